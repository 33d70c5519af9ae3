"""Slots: where handlers run, how many at once, and what one that blocks the event loop does to others."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs
from tests.support import cpu_actors
from tests.support.board import Board
from tests.support.waiting import until

from callboard import agent, checkpoint, method, tool, workflow
from callboard.actors.pulse import _culprit, _fix
from callboard.actors.running import Running
from callboard.infra.errors import CallCancelled, CallTimeout, DeclarationInvalid


class Meter:
    """Counts how many handlers run at once, and holds them until it is opened."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0
        self.total = 0
        self.open = threading.Event()
        self._lock = threading.Lock()

    def enter(self) -> None:
        """A handler begins."""
        with self._lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)

    def leave(self) -> None:
        """A handler ends."""
        with self._lock:
            self.now -= 1


METER = Meter()


@pytest.fixture(autouse=True)
def fresh() -> None:
    """A meter of the test's own."""
    global METER  # noqa: PLW0603 - handlers are declared once
    METER = Meter()


@tool(concurrency=3)
async def on_the_loop(number: int) -> int:
    """Three at once, on the loop."""
    METER.enter()
    try:
        await until(METER.open.is_set)
    finally:
        METER.leave()
    return number


@tool(concurrency=3)
def in_threads(number: int) -> int:
    """Three at once, in threads."""
    METER.enter()
    try:
        METER.open.wait(10)
    finally:
        METER.leave()
    return number


@agent(concurrency=2)
class Mixed:
    """Methods of both kinds share the slots."""

    @method
    async def on_the_loop(self, number: int) -> int:
        """On the loop."""
        return await on_the_loop.function(number)  # type: ignore[no-any-return]

    @method
    def in_threads(self, number: int) -> int:
        """In a thread."""
        return in_threads.function(number)  # type: ignore[no-any-return]


@workflow
async def crowd_flow(which: str, count: int) -> Any:
    """Many calls at once."""
    made: dict[str, Callable[[int], Any]] = {
        "loop": on_the_loop,
        "threads": in_threads,
        "mixed": lambda n: Mixed.on_the_loop(n) if n % 2 else Mixed.in_threads(n),
    }
    return await asyncio.gather(*(made[which](n) for n in range(count)))


@pytest.mark.parametrize(("which", "slots"), [("loop", 3), ("threads", 3), ("mixed", 2)])
async def test_no_more_run_at_once_than_there_are_slots(board: Board, which: str, slots: int) -> None:
    """Further calls wait, in the stream rather than here, and run when a slot is free."""
    host = await board.host(crowd_flow, on_the_loop, in_threads, Mixed)
    run = await board.submit(crowd_flow, which=which, count=12)
    await until(lambda: METER.now == slots)
    held = {seq for member in host._members for pull in member.pulls for seq in pull.held}
    assert len(held) <= slots + 1, "the run's request and the calls that run"
    METER.open.set()
    done = await board.done(run)
    assert done.status == "completed"
    assert (METER.most, METER.total) == (slots, 12)


@tool
def who() -> list[Any]:
    """Where it runs."""
    return [threading.current_thread().name, threading.current_thread() is threading.main_thread()]


@workflow
async def who_flow() -> list[Any]:
    """Ask it."""
    return await who()


async def test_blocking_handlers_run_in_threads_named_after_their_actor(board: Board) -> None:
    """Off the event loop."""
    await board.host(who, who_flow)
    name, is_main = await board.run(who_flow)
    assert name.startswith("callboard-who")
    assert not is_main


# -- threads that do not stop -----------------------------------------------------------------


@agent(concurrency=1)
class Stubborn:
    """One slot."""

    @method(timeout=0.05)
    def ignores(self) -> None:
        """Ignores its time-out."""
        METER.open.wait(60)

    @method
    def other(self) -> int:
        """Needs the slot."""
        return 1


@workflow
async def stubborn_flow() -> list[str]:
    """Call both, one after the other."""
    calls: list[Callable[[], Any]] = [Stubborn.ignores, Stubborn.other]
    found = [repr(await asyncio.gather(call(), return_exceptions=True)) for call in calls]
    METER.open.set()
    return found


async def test_a_thread_that_ignores_its_timeout_does_not_keep_its_slot(board: Board) -> None:
    """A thread cannot be stopped from outside; the next call must not wait for it."""
    await board.host(Stubborn, stubborn_flow)
    first, second = await board.run(stubborn_flow)
    assert "CallTimeout" in first
    assert second == "[1]"


@agent(concurrency=1)
class Deaf:
    """One slot."""

    @method
    def ignores(self) -> None:
        """Does not look whether it was cancelled."""
        METER.enter()
        METER.open.wait(60)
        METER.leave()

    @method
    def other(self) -> int:
        """Needs the slot."""
        return METER.now


@workflow
async def deaf_flow() -> int:
    """Cancel one that runs, then call the other."""
    first = Deaf.ignores()
    await until(lambda: METER.now == 1)
    first.cancel()
    return await Deaf.other()


async def test_a_thread_that_ignores_a_cancellation_does_not_keep_its_slot(board: Board) -> None:
    """It goes on beside the next call."""
    await board.host(Deaf, deaf_flow)
    try:
        assert await board.run(deaf_flow) == 1
    finally:
        METER.open.set()
    await until(lambda: METER.now == 0)


@tool(concurrency=1, timeout=1.0)
def careful() -> int:
    """Looks whether it should stop."""
    METER.enter()
    try:
        while True:
            checkpoint()
            time.sleep(0.002)
    except CallCancelled:
        METER.leave()
        raise


@workflow
async def careful_flow() -> str:
    """Call it."""
    return type((await asyncio.gather(careful(), return_exceptions=True))[0]).__name__


async def test_a_thread_stops_at_its_next_checkpoint(board: Board) -> None:
    """After its time-out; its caller got the time-out, not what the thread raised then."""
    await board.host(careful, careful_flow)
    assert await board.run(careful_flow) == CallTimeout.__name__
    await until(lambda: METER.now == 0)
    assert METER.total == 1


# -- processes --------------------------------------------------------------------------------


@workflow
async def cpu_flow() -> dict[str, Any]:
    """What comes of each."""
    calls: dict[str, Any] = {
        "add": cpu_actors.add(1, 2),
        "fail": cpu_actors.fail("worn out"),
        "die": cpu_actors.die(),
        "leave": cpu_actors.leave(),
        "again": cpu_actors.Worker.again(30_000),
    }
    found: dict[str, Any] = dict(
        zip(calls, await asyncio.gather(*calls.values(), return_exceptions=True), strict=True)
    )
    found["again"] = [len(found["again"]), found["again"][1] != os.getpid()]
    found["after"] = await cpu_actors.add(3, 4)
    return {
        name: f"{type(one).__name__}: {one}" if isinstance(one, Exception) else one
        for name, one in found.items()
    }


async def test_cpu_handlers_run_in_processes(board: Board) -> None:
    """Results, errors and large values come back; a process that ends is its call's failure alone."""
    await board.host(
        cpu_flow, cpu_actors.add, cpu_actors.fail, cpu_actors.die, cpu_actors.leave, cpu_actors.Worker
    )
    found = await board.run(cpu_flow, timeout=90)
    assert found["add"] == 3
    assert found["fail"] == "Tired: worn out"
    assert "ProcessExpired" in found["die"]
    assert "SystemExit: 3" in found["leave"]
    assert found["again"] == [30_002, True]
    assert found["after"] == 7


@workflow
async def burning_flow(until_file: str, mark: str) -> int:
    """Compute for long."""
    return await cpu_actors.burn(until_file, mark)


async def test_cancelling_ends_the_process(board: Board, tmp_path: Path) -> None:
    """A process is ended, whatever it computes; the loop was free meanwhile."""
    await board.host(burning_flow, cpu_actors.burn)
    mark = tmp_path / "mark"
    run = await board.submit(burning_flow, until_file=str(tmp_path / "never"), mark=str(mark))
    await until(lambda: mark.exists() and mark.read_text())
    pid = int(mark.read_text())
    assert psutil.pid_exists(pid)
    await (await board.client()).cancel(run, "enough")
    assert (await board.done(run)).status == "cancelled"
    await until(lambda: not _alive(pid))
    await board.emptied("CALLS")


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_a_cpu_handler_has_to_be_found_by_its_process(board: Board) -> None:
    """One declared inside of a function cannot be, which its host says when it starts."""

    @tool(cpu=True)
    def local() -> int:
        """Not at the top of a module."""
        return 1

    with pytest.raises(DeclarationInvalid, match=r"local\.call is a cpu handler.*top of a module"):
        await board.host(local)


# -- blocking the loop ------------------------------------------------------------------------


LOGS: list[MutableMapping[str, Any]] = []
"""What was logged while the handler blocked the loop: before and after, others may have done so."""


@tool
async def blocks(seconds: float) -> str:
    """Block the event loop, as a careless handler does."""
    METER.enter()
    with capture_logs() as logs:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            pass
    LOGS.extend(logs)
    return "done"


@workflow
async def blocking_flow(seconds: float) -> str:
    """Call it."""
    return await blocks(seconds)


async def test_a_handler_that_blocks_the_loop_is_reported_by_name_and_not_lost(board: Board) -> None:
    """Its host looks alive meanwhile, its message is not delivered again, and its result arrives."""
    LOGS.clear()
    with capture_logs() as logs:
        worker = await board.host(blocks, ack_wait=0.3)
        watcher = await board.host(blocking_flow)
        # The handler blocks the loop of all hosts of this process, so the server is asked from a thread.
        run = await board.submit(blocking_flow, seconds=1.2)
        assert (await board.done(run)).status == "completed"
    every = [entry for entry in LOGS if entry["event"] == "event_loop_blocked"]
    reports = [report for report in every if report["by"] != "unknown code"]  # which a busy machine is
    assert {report["by"] for report in reports} == {"blocks.call"}
    assert any(report["at"].startswith("test_slots.py:") for report in reports)
    assert "plain 'def'" in reports[0]["fix"]
    assert METER.total == 1
    assert not [entry for entry in [*logs, *LOGS] if entry["event"] == "host_dead"]
    assert worker.id in watcher.watch.alive
    (result,) = await board.results(run)
    assert result.took >= 1.2


def _function(run: int) -> tuple[str, str]:
    """A user's own, of a name that a host has, too."""
    return _culprit(sys._getframe())


def handle(calls: list[int]) -> tuple[str, str]:
    """Likewise."""
    return _culprit(sys._getframe())


async def test_whoever_blocks_the_loop_is_named_without_an_error() -> None:
    """Whatever the user's functions are called, and however early in a run: the heart lives from this."""
    assert _function(1)[0] == handle([1])[0] == "unknown code"
    seen: list[str] = []

    async def decoding(request: object) -> dict[str, object]:
        seen.append(_culprit(sys._getframe())[0])
        raise KeyError

    run = SimpleNamespace(request=None, maker=SimpleNamespace(context=SimpleNamespace(workflow="flow")))
    host = SimpleNamespace(_arguments=decoding, _declared=SimpleNamespace(method=None))
    with pytest.raises(KeyError):
        await Running._function(host, run)  # type: ignore[arg-type]
    assert seen == ["workflow flow"]


def test_who_blocks_the_loop_is_looked_for_at_any_moment() -> None:
    """Also before the code that runs a workflow knows which one."""

    def _function(run: str) -> FrameType:
        """As that of the driver is called, at its first line."""
        return sys._getframe()

    what, where = _culprit(_function("01RUN"))
    assert (what, where.partition(":")[0]) == ("unknown code", "test_slots.py")


def test_what_helps_depends_on_who_blocks_the_loop() -> None:
    """Where no handler stands on the stack, nobody is sent to look for one."""
    assert "plain 'def'" in _fix("blocks.call")
    assert "the machine is too busy" in _fix(_culprit(None)[0])


async def test_a_quick_handler_is_not_reported(board: Board) -> None:
    """Waiting on the loop is not blocking it."""
    METER.open.set()
    with capture_logs() as logs:
        await board.host(crowd_flow, on_the_loop)
        await board.run(crowd_flow, which="loop", count=50)
    reports = [entry for entry in logs if entry["event"] == "event_loop_blocked"]
    # A machine that stands still for a moment is reported, too, but not as the handler's doing.
    assert [report for report in reports if report["by"] == "on_the_loop.call"] == []
