"""The stage of a scenario: a real server, real host processes, a client, a load, and the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults import app, evidence, ledger
from tests.faults.checker import Accepted, Allowed, Evidence, violations

import callboard
from callboard.infra.server import EmbeddedServer
from callboard.infra.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
STUCK = float(os.environ.get("CALLBOARD_FAULT_STUCK", "60"))
"""Seconds after which something that has not happened never will, on a slow and busy machine too."""
_ACK_WAIT = 4 * STUCK
"""So long that whatever only the ack wait brings back is found to be stuck."""
PATIENT = 20.0
"""``dead_after`` for scenarios in which every call runs once: nobody alive is to be taken for dead."""
_POLL = 0.01


async def until(true: Callable[[], bool], what: str, timeout: float = STUCK) -> None:
    """Wait for something that another process does.

    Raises:
        AssertionError: it has not come true in time.
    """
    ends = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < ends, f"stuck: {what} (after {timeout} s)"
        await asyncio.sleep(_POLL)


class Worker:
    """A host process.

    Args:
        process: started with its standard output piped.
        log: the file that holds its standard error.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log
        self.host = ""
        self.frozen = False

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    async def ready(self) -> Self:
        """Wait until it works."""
        line = await self._line("ready")
        self.host = line.split()[1]
        return self

    async def _line(self, word: str) -> str:
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(STUCK):
                line = (await self.process.stdout.readline()).decode()
        except TimeoutError:
            line = ""
        assert line.startswith(word), f"{self.log.name} did not say {word!r}:\n{self.tail()}"
        return line

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    async def kill(self) -> None:
        """``kill -9``."""
        self.signal(signal.SIGKILL)
        await self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it is there and does nothing."""
        self.frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    async def drain(self) -> None:
        """SIGTERM, and wait for its end in good order."""
        self.signal(signal.SIGTERM)
        await self.ended()

    async def ended(self) -> None:
        """Wait for its end in good order."""
        await self._line("stopped")
        async with asyncio.timeout(STUCK):
            assert await self.process.wait() == 0, self.tail()

    async def end(self) -> None:
        """Whatever state it is in, it is gone afterwards."""
        if self.running:
            self.signal(signal.SIGKILL)
        await self.process.wait()

    def said(self, event: str) -> int:
        """How often it has logged an event."""
        return len(self.lines_of(event))

    def lines_of(self, event: str) -> list[str]:
        """What it has logged of an event."""
        said = self.log.read_text(errors="replace").splitlines()
        return [line for line in said if f'"event": "{event}"' in line]

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Board:
    """Everything a scenario plays on. Use with ``async with``.

    Args:
        folder: for the store, the ledger and the logs.
        seed: of all that is drawn here.
        max_file_store: bytes that the server may store.
    """

    def __init__(self, folder: Path, seed: int, max_file_store: int | None = None) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.server = EmbeddedServer(folder / "store", max_file_store=max_file_store)
        self.ledger = ledger.Reader(folder / "ledger")
        self.workers: list[Worker] = []
        self._numbers = itertools.count()
        self.accepted: list[Accepted] = []
        self.started = time.monotonic()
        sys.stdout.write(f"seed {seed}, set CALLBOARD_FAULT_SEEDS={seed} to repeat\n")

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.server.start)
        self.client = callboard.connect(settings=self.settings())
        await self.client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers:
            await worker.end()
        await self.client.close()
        await asyncio.to_thread(self.server.kill)  # quicker than a gentle end, and nobody is left to care
        await asyncio.to_thread(self.server.stop)

    def settings(self) -> Settings:
        """Settings of the client."""
        return Settings(nats_url=self.server.url, telemetry_max_bytes=100_000, ack_wait=_ACK_WAIT)

    async def show(self) -> None:
        """Tell what every process has logged, and what those that are left hold and wait for."""
        alive = [worker for worker in self.workers if worker.running and worker.host]
        for worker in alive:
            worker.thaw()
            worker.signal(signal.SIGUSR1)
        with contextlib.suppress(AssertionError):
            await until(lambda: all(worker.said("state") for worker in alive), "states", 2.0)
        for worker in self.workers:
            sys.stdout.write(f"--- {worker.log.name}, pid {worker.pid}, {worker.host}\n{worker.tail()}\n")

    # -- processes ------------------------------------------------------------------------------------

    async def spawn(self, *names: str, url: str = "", clock: float = 0.0, **settings: Any) -> Worker:
        """Start a host process for these declarations.

        Args:
            names: of `app`'s declarations; all tools and agents for ``tools``, all workflows for
                ``workflows``.
            url: where it connects; the server by default.
            clock: seconds by which SIGUSR2 sets its clock.
            settings: other than the default ones.
        """
        log = self.folder / f"worker{next(self._numbers)}.log"
        own = self.settings()
        settings = {
            "telemetry_max_bytes": own.telemetry_max_bytes,
            "ack_wait": own.ack_wait,
            **settings,
        }
        given = {f"CALLBOARD_{name.upper()}": str(value) for name, value in settings.items()}
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
            "FAULTS_LEDGER": str(self.folder / "ledger"),
            "FAULTS_CLOCK": str(clock),
            **given,
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(ROOT / "tests" / "faults" / "worker.py"), url or self.server.url),
                *_names(names),
                cwd=self.folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
            )
        worker = Worker(process, log)
        self.workers.append(worker)
        return worker

    async def hosts(self, count: int, *names: str, **options: Any) -> list[Worker]:
        """Start so many host processes side by side; all of them are ready."""
        made = [await self.spawn(*names, **options) for _ in range(count)]
        await asyncio.gather(*(worker.ready() for worker in made))
        return made

    async def mortals(self, count: int, *names: str) -> list[Worker]:
        """The same; a call may kill one of them before it can say that it is ready."""
        made = [await self.spawn(*names) for _ in range(count)]
        said = await asyncio.gather(*(worker.ready() for worker in made), return_exceptions=True)
        for worker, outcome in zip(made, said, strict=True):
            if isinstance(outcome, BaseException):
                async with asyncio.timeout(STUCK):
                    ended = await worker.process.wait()
                assert ended == -signal.SIGKILL, worker.tail()
        return made

    # -- load -------------------------------------------------------------------------------------------

    async def submit(self, workflow: str, **arguments: Any) -> str:
        """Submit a run; it is accepted when this returns."""
        run = await self.client.submit(workflow, arguments)
        self.accepted.append(Accepted(run, workflow, app.expected(workflow, arguments)))
        return run

    async def load(self, count: int, pause: float = 0.02) -> None:
        """Submit so many runs of all kinds."""
        await asyncio.gather(*(self._some(number, pause) for number in range(count)))

    async def _some(self, number: int, pause: float) -> str:
        kind = self.chance.choices(("mixed", "plain", "chain", "failing"), (5, 2, 3, 1))[0]
        pause *= self.chance.uniform(0.2, 2.0)
        if kind == "mixed":
            return await self.submit(kind, number=number, width=self.chance.randint(1, 5), pause=pause)
        if kind == "failing":
            return await self.submit(kind, number=number, pause=pause)
        return await self.submit(kind, number=number, steps=self.chance.randint(2, 6), pause=pause)

    async def progress(self, ends: int) -> None:
        """Wait until so many calls have been executed since the beginning."""
        await until(lambda: self.ledger.count(ledger.END) >= ends, f"{ends} calls executed")

    async def further(self, ends: int) -> None:
        """Wait until so many more calls have been executed; or all that there are, if there are fewer."""
        goal = self.ledger.count(ledger.END) + ends
        async with evidence.connected(self.server.url) as client, asyncio.timeout(STUCK):
            while self.ledger.count(ledger.END) < goal:
                kept = await evidence.left(client, "RUNS")
                if sum(n for subject, n in kept.items() if subject.endswith(".done")) >= len(self.accepted):
                    return
                await asyncio.sleep(_POLL)

    async def said(self, event: str) -> None:
        """Wait until any process has logged an event."""
        await until(lambda: any(worker.said(event) for worker in self.workers), f"the event {event!r}")

    async def begun(self, count: int) -> None:
        """Wait until so many executions have begun since the beginning."""
        await until(lambda: self.ledger.count(ledger.START) >= count, f"{count} calls begun")

    async def calls_waiting(self, count: int) -> None:
        """Wait until the stream holds so many calls."""
        await self._in_calls("cb.", lambda found: found >= count)

    async def retries_scheduled(self, count: int) -> None:
        """Wait until so many attempts have failed that are to be repeated; their schedules are stored with them."""
        async with evidence.connected(self.server.url) as client, asyncio.timeout(STUCK):
            while True:
                left = await evidence.left(client, "RUNS")
                if sum(n for subject, n in left.items() if subject.endswith(".attempt")) >= count:
                    return
                await asyncio.sleep(_POLL)

    async def timers_fired(self) -> None:
        """Wait until the stream holds no schedule."""
        await self._in_calls("cb.timer.", lambda found: found == 0)

    async def _in_calls(self, prefix: str, enough: Callable[[int], bool]) -> None:
        async with evidence.connected(self.server.url) as client, asyncio.timeout(STUCK):
            while True:
                left = await evidence.left(client, "CALLS")
                if enough(sum(count for subject, count in left.items() if subject.startswith(prefix))):
                    return
                await asyncio.sleep(_POLL)

    @contextlib.asynccontextmanager
    async def server_frozen(self) -> AsyncIterator[None]:
        """The server does nothing for a while."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)

    async def hold(self) -> None:
        """Submit a run that is under way when this returns, and stays so until the gate is open."""
        before = self.ledger.count(ledger.START)
        await self.submit("holding", number=0)
        await self.begun(before + 1)

    def open_gate(self) -> None:
        """Let the calls of ``held`` end."""
        (self.folder / "gate").touch()

    # -- verdict ------------------------------------------------------------------------------------------

    async def settled(self, timeout: float = STUCK) -> None:
        """Wait until every accepted run has its outcome.

        Raises:
            AssertionError: one has none in time.
        """
        waits = [asyncio.ensure_future(self.client.done(run.id)) for run in self.accepted]
        _, missing = await asyncio.wait(waits, timeout=timeout)
        for wait in missing:
            wait.cancel()
        stuck = [run.id for run, wait in zip(self.accepted, waits, strict=True) if wait in missing]
        if stuck:
            left = await evidence.journals(self.server.url, stuck[:3], self.ledger.refresh())
            raise AssertionError(f"{len(stuck)} of {len(waits)} runs have no outcome\n{left}")
        for wait in waits:
            wait.result()

    async def verdict(self, allowed: Allowed | None = None, timeout: float = STUCK) -> Evidence:
        """Wait for all outcomes and for empty streams, then hold everything against the guarantees."""
        await self.settled(timeout)
        await evidence.drained(self.server.url, timeout, ignored=(allowed or Allowed()).left)
        found = await evidence.gather(self.server.url, self.accepted, self.ledger.refresh())
        broken = violations(found, allowed or Allowed())
        if broken:
            concerned = [run.id for run in self.accepted if any(run.id in text for text in broken)]
            stories = await evidence.journals(self.server.url, concerned[:3], found.ledger)
            raise AssertionError(f"{len(broken)} violations:\n" + "\n".join(broken[:20]) + f"\n{stories}")
        return found


def _names(names: Iterable[str]) -> list[str]:
    groups = {
        "tools": [
            "add",
            "blocking",
            "flaky",
            "broken",
            "held",
            "shout",
            "returning",
            "endless",
            "Collector",
            "Clerk",
        ],
        "accounts": ["Purse", "Chest", "courier"],
        "workflows": [
            "patient",
            "mixed",
            "plain",
            "failing",
            "chain",
            "timed",
            "holding",
            "dying",
            "shouting",
            "crowd",
        ],
    }
    return [name for given in names for name in groups.get(given, [given])]
