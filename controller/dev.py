"""Supervision for ``callboard dev``: host processes that are replaced when the code changes.

A host process imports the application first and says what it found; only then is it told which server to
use. So the server starts while the application is imported, and code that cannot be imported never
replaces code that runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import site
import sys
import sysconfig
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from callboard.controller.restarts import Restarts
from callboard.infra.messages.registry import ActorInfo

_LIMIT = 64 * 1024 * 1024
"""Bytes of one message of a host to its supervisor, at most."""

_LOOK_EVERY = 500
"""Milliseconds after which files are looked at although nothing was heard of them."""
_CLOCK_TICK = 20_000_000
"""Nanoseconds by which the time of a file may be behind the clock."""


class Loaded(msgspec.Struct, tag="loaded"):
    """A host has imported the application.

    Attributes:
        actors: what it declares, and this host has the resources for; files: the source files whose change
            matters; left_out: what it declares beside that.
        apart: those of the latter that this host leaves to a process of their own, with a hash of all that
            makes them what they are.
    """

    actors: list[ActorInfo]
    files: list[str]
    left_out: list[ActorInfo] = []
    apart: dict[str, str] = {}


class Broken(msgspec.Struct, tag="broken"):
    """A host cannot import the application, and has ended.

    Attributes:
        code, message, fields: of the error.
    """

    code: str
    message: str
    fields: dict[str, Any] = {}

    @property
    def hopeless(self) -> bool:
        """Whether saving a file would hardly help: what was named is not there."""
        return self.code == "unknown_actor" or self.fields.get("reason") == "missing"


class Ready(msgspec.Struct, tag="ready"):
    """A host works."""

    host: str


Said = Loaded | Broken | Ready
_decode = msgspec.json.Decoder(Said).decode


class Leash:
    """A host's side of the line to its supervisor: stdin and stdout, which it takes over.

    What the application prints goes to stderr instead.
    """

    def __init__(self) -> None:
        self._in = os.dup(0)
        self._out = os.fdopen(os.dup(1), "wb")
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is what is needed
            os.dup2(nothing.fileno(), 0)
        os.dup2(2, 1)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]

    def say(self, said: Said) -> None:
        """Tell the supervisor."""
        self._out.write(msgspec.json.encode(said) + b"\n")
        self._out.flush()

    def address(self) -> str:
        """Wait for the server's address; empty: the supervisor is gone or needs this host no more."""
        heard = b""
        while not heard.endswith(b"\n"):
            more = os.read(self._in, 4096)
            if not more:
                return ""
            heard += more
        return heard.decode().strip()

    def when_let_go(self, callback: Callable[[], None]) -> None:
        """Call back when the supervisor is gone, in a thread: also if the event loop is blocked by then."""

        def wait() -> None:
            while os.read(self._in, 4096):
                pass
            callback()

        threading.Thread(target=wait, name="leash", daemon=True).start()


def own_files() -> list[str]:
    """The files of all imported modules that somebody works on: not Python's, not installed, not ours."""
    paths = sysconfig.get_paths()
    foreign = [Path(paths[key]).resolve() for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    foreign += [Path(folder).resolve() for folder in site.getsitepackages()]
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name.partition(".")[0] in {"callboard", "__main__", "__mp_main__"}:
            continue
        path = Path(file).resolve()
        if not any(path.is_relative_to(place) for place in foreign):
            found.add(str(path))
    return sorted(found)


def ended_by(code: int) -> str:
    """How a process has ended, in words.

    Args:
        code: its exit code, negative for a signal.
    """
    if code >= 0:
        return f"has ended (exit code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was ended by {name}" + (", as the system does for want of memory" if name == "SIGKILL" else "")


class Child:
    """A host process on its leash.

    Args:
        command: what to run.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self.born = time.monotonic()
        self.loaded: Loaded | None = None

    async def load(self) -> Loaded | Broken:
        """Start the process and wait until it has imported the application."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LIMIT,
            # Two saves within a second look alike to Python's cache.
            env={"PYTHONDONTWRITEBYTECODE": "1", **os.environ},
            start_new_session=True,  # Ctrl-C reaches the supervisor, which drains
        )
        said = await self._hear()
        if isinstance(said, Loaded):
            self.loaded = said
            return said
        code = await self.ended()
        if isinstance(said, Broken):
            return said
        return Broken("app_unloadable", f"the host {ended_by(code)} while it imported the application")

    async def work(self, url: str) -> bool:
        """Tell it to work on this server; returns whether it does."""
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(f"{url}\n".encode())
            await self._process.stdin.drain()
        return isinstance(await self._hear(), Ready)

    async def _hear(self) -> Said | None:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        return _decode(line) if line else None

    @property
    def pid(self) -> int:
        """Of the process; 0: it has not been started."""
        return 0 if self._process is None else self._process.pid

    async def ended(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        return 0 if self._process is None else await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended stays as it is."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


Tell = Callable[[str, dict[str, Any]], None]
"""Called with what has happened and its data; see :class:`Supervisor`."""


class Supervisor:
    """Keeps a number of hosts running the newest code that can be imported.

    It tells ``ready``, ``reloaded`` and ``restarted`` (actors), ``broken`` (a :class:`Broken`, and
    whether the old code is kept), ``crashed`` (code, retry_in).

    Args:
        command: runs a host on its leash.
        count: how many of them.
        url: awaited for the server's address.
        tell: told what happens.
    """

    def __init__(
        self, command: Sequence[str], count: int, url: Callable[[], Awaitable[str]], tell: Tell
    ) -> None:
        self._command = command
        self._count = count
        self._url = url
        self._tell = tell
        self._hosts: list[Child] = []
        self._leaving: dict[asyncio.Task[int], Child] = {}
        self._minders: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._restarts = Restarts()

    async def load(self) -> Broken | None:
        """Bring the newest code to work; if it cannot be imported, what runs goes on.

        Returns:
            Why it cannot be imported, or None.
        """
        async with self._changing:
            fresh = [Child(self._command) for _ in range(self._count)]
            old = list(self._hosts)
            try:
                broken = await self._import(fresh, kept=bool(old))
                if broken is None:
                    await self._url()  # the old ones go on until there is a server for the new ones
                    self._hosts = fresh
                    self._release(old)
            finally:
                if self._hosts is not fresh:
                    await _discard(fresh)
            if broken is None:
                await self._begin(fresh, "reloaded" if old else "ready")
            return broken

    async def _import(self, fresh: list[Child], *, kept: bool) -> Broken | None:
        said = await asyncio.gather(*(child.load() for child in fresh))
        broken = next((one for one in said if isinstance(one, Broken)), None)
        if broken is not None:
            self._tell("broken", {"error": broken, "kept": kept})
        return broken

    async def _begin(self, fresh: list[Child], what: str) -> None:
        url = await self._url()
        works = await asyncio.gather(*(child.work(url) for child in fresh))
        for child in fresh:
            task = asyncio.create_task(self._mind(child))
            self._minders.add(task)
            task.add_done_callback(self._minders.discard)
        if all(works) and fresh[0].loaded is not None:
            self._tell(what, {"actors": fresh[0].loaded.actors})

    async def _mind(self, child: Child) -> None:
        """Start another in place of a host that has ended by itself, later each time."""
        code = await child.ended()
        if child not in self._hosts:
            return
        wait = self._restarts.crashed(time.monotonic() - child.born)
        self._tell("crashed", {"code": code, "retry_in": wait})
        await asyncio.sleep(wait)
        async with self._changing:
            if child in self._hosts:
                self._hosts.remove(child)
                await self._restart()

    async def _restart(self) -> None:
        child = Child(self._command)
        if await self._import([child], kept=False) is None:
            self._hosts.append(child)
            await self._begin([child], "restarted")

    def _release(self, hosts: list[Child]) -> None:
        """Let hosts finish what they do, and end."""
        for child in hosts:
            child.send(signal.SIGTERM)
            task = asyncio.create_task(child.ended())
            self._leaving[task] = child
            task.add_done_callback(self._leaving.pop)

    async def stop(self, grace: float) -> None:
        """Drain all hosts, those that were replaced included; end what is left after ``grace`` seconds."""
        for task in self._minders:
            task.cancel()
        async with self._changing:
            hosts, self._hosts = self._hosts, []
            self._release(hosts)
        if self._leaving:
            _, late = await asyncio.wait(set(self._leaving), timeout=grace)
            if late:
                self.kill()
                await asyncio.wait(late)

    def kill(self) -> None:
        """End all hosts at once."""
        for child in (*self._hosts, *self._leaving.values()):
            child.send(signal.SIGKILL)

    def apart(self) -> dict[str, str]:
        """What these hosts leave to a process of its own; see :class:`Loaded`."""
        return self._hosts[0].loaded.apart if self._hosts and self._hosts[0].loaded is not None else {}

    def folders(self) -> set[Path]:
        """The folders that hold the application's own files, as far as they are known."""
        loaded = [child.loaded for child in self._hosts if child.loaded is not None]
        return {Path(file).parent for one in loaded for file in one.files}


async def _discard(children: Sequence[Child]) -> None:
    for child in children:
        child.send(signal.SIGKILL)
    await asyncio.gather(*(child.ended() for child in children))


class Sources:
    """The Python files of some folders, and which of them were saved since they were last looked at.

    Made before the files are imported, so that what is saved meanwhile is noticed. The operating system
    tells when to look; what counts is that a file is another one than before.

    Args:
        folders: where to look; asked again each time, since imports change too.
    """

    def __init__(self, folders: Callable[[], set[Path]]) -> None:
        self._folders = folders
        self._seen: dict[Path, dict[str, tuple[int, int]]] = {}
        self._since = time.time_ns()
        self._look()

    async def changes(self) -> AsyncIterator[list[str]]:
        """The files that were saved, once the dust of a save has settled."""
        from watchfiles import awatch

        while True:
            watched = {folder for folder in self._folders() if folder.is_dir()} or {Path.cwd()}
            news = awatch(*watched, recursive=False, rust_timeout=_LOOK_EVERY, yield_on_timeout=True)
            async with contextlib.aclosing(news):
                async for _ in news:
                    found = self._look()
                    if found:
                        self._since = time.time_ns()
                        yield found
                    if not self._folders() <= watched:
                        break

    def _look(self) -> list[str]:
        changed: set[str] = set()
        for folder in self._folders():
            now, before = _stamps(folder), self._seen.get(folder)
            if before is None:  # only now known to matter: was it saved while it was imported?
                changed |= {file for file, (saved, _) in now.items() if saved > self._since - _CLOCK_TICK}
            else:
                changed |= {file for file in {*now, *before} if now.get(file) != before.get(file)}
            self._seen[folder] = now
        return sorted(changed)


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Time of the last change and size of each Python file in a folder."""
    found = {}
    for path in folder.glob("*.py"):
        with contextlib.suppress(OSError):  # gone meanwhile
            told = path.stat()
            found[str(path)] = (told.st_mtime_ns, told.st_size)
    return found
