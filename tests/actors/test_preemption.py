"""Preemption: a call that may be stopped makes room for a more urgent one, and runs again."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support import cpu_actors
from tests.support.board import Board, instance
from tests.support.waiting import SOON, until

from callboard import agent, batchable, checkpoint, method, options, tool, uuid, workflow
from callboard.actors.host import Host
from callboard.actors.slots import PREEMPTIONS
from callboard.infra.errors import CallCancelled

LOG: list[str] = []
GATES: dict[str, asyncio.Event] = {}
OPEN = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run; all gates are shut."""
    LOG.clear()
    GATES.clear()
    OPEN.clear()


def gate(name: str) -> asyncio.Event:
    """What calls of this name wait for."""
    return GATES.setdefault(name, asyncio.Event())


@tool
async def nested(name: str) -> str:
    """Called by one that is stopped."""
    LOG.append(f"nested {name}")
    await gate(f"nested {name}").wait()
    return name


@agent(concurrency=1)
class Worker:
    """One slot."""

    @method(preemptable=True)
    async def patient(self, name: str) -> str:
        """May be stopped."""
        LOG.append(f"+{name}")
        try:
            await gate(name).wait()
        finally:
            LOG.append(f"-{name}")
        return name

    @method(preemptable=True)
    async def sulky(self, name: str) -> str:
        """Raises something of its own when it is stopped."""
        LOG.append(f"+{name}")
        try:
            await gate(name).wait()
        except asyncio.CancelledError:
            raise ValueError("disturbed") from None
        return name

    @method(preemptable=True)
    async def calling(self, name: str) -> list[Any]:
        """Has a call under way while it does something else."""
        made = [str(uuid()), nested(name)]
        LOG.append(f"+{name}")
        await gate(name).wait()
        return [made[0], await made[1]]  # type: ignore[misc]

    @method
    async def steady(self, name: str) -> str:
        """May not be stopped."""
        LOG.append(f"+{name}")
        await gate(name).wait()
        return name

    @method(preemptable=True)
    def in_thread(self, name: str) -> str:
        """Looks now and then whether it should stop."""
        LOG.append(f"+{name}")
        try:
            while not OPEN.is_set():
                checkpoint()
                time.sleep(0.001)
        except CallCancelled:
            LOG.append(f"-{name}")
            raise
        return name

    @method(preemptable=True)
    def deaf(self, name: str) -> str:
        """Does not look."""
        LOG.append(f"+{name}")
        OPEN.wait(10)
        return name

    @batchable(max_batch=4, max_wait=0.0, preemptable=True)
    async def together(self, names: list[str]) -> list[str]:
        """A batch that may be stopped."""
        LOG.append(f"+{' '.join(sorted(names))}")
        await gate("together").wait()
        return names


@workflow
async def flow(which: str, name: str, priority: int) -> Any:
    """One call."""
    with options(priority=priority):
        return await getattr(Worker, which)(name)


class Work:
    """Submits single calls."""

    def __init__(self, board: Board, host: Host) -> None:
        self.board = board
        self.host = host

    async def submit(self, which: str, name: str, priority: int) -> str:
        """Make a call; gives its run."""
        return await self.board.submit(flow, which=which, name=name, priority=priority)

    async def value(self, run: str) -> Any:
        """What came of it, at the first attempt and the first delivery."""
        client = await self.board.client()
        value = await client.result(run, SOON)
        (result,) = [r for r in await self.board.results(run) if r.call.startswith("Worker")]
        assert result.attempt == 1
        return value

    def delivered(self) -> list[int]:
        """How often the calls that are here now were delivered."""
        return [call.delivered.delivered for call in instance(self.host, Worker).running.values()]


@pytest.fixture
async def work(board: Board) -> Work:
    """One host with one slot."""
    return Work(board, await board.host(Worker, nested, flow))


@pytest.mark.parametrize(("patient", "urgent"), [(-1, 0), (0, 1), (-1, 1)])
async def test_a_more_urgent_call_takes_the_slot(
    work: Work, patient: int, urgent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, though the instance is full; the other one runs again, as if for the first time."""
    monkeypatch.setattr("callboard.actors.instance.STUCK", 600.0)  # else it is given back soon
    first = await work.submit("patient", "slow", patient)
    await until(lambda: LOG == ["+slow"])
    second = await work.submit("steady", "quick", urgent)
    await until(lambda: LOG == ["+slow", "-slow", "+quick"])
    assert work.delivered() == [1, 1]
    waiting = instance(work.host, Worker).mailbox.peek()
    assert waiting.since > waiting.stored_at, "the time that it ran gives it no claim to go before others"
    gate("quick").set()
    assert await work.value(second) == "quick"
    await until(lambda: LOG[3:] == ["+slow"])
    gate("slow").set()
    assert await work.value(first) == "slow"
    await work.board.emptied("CALLS")
    slots = instance(work.host, Worker).slots
    assert (slots.busy, slots.preemptable) == (0, set())


@pytest.mark.parametrize(("which", "priority"), [("steady", 1), ("patient", 0), ("patient", -1)])
async def test_others_wait(work: Work, which: str, priority: int) -> None:
    """One that may not be stopped is not, and nobody makes room for a call as urgent as itself."""
    first = await work.submit(which, "slow", 0)
    await until(lambda: LOG == ["+slow"])
    second = await work.submit("steady", "quick", priority)
    await _stored(work.board, 2)
    gate("slow").set()
    gate("quick").set()
    assert [await work.value(run) for run in (first, second)] == ["slow", "quick"]
    assert [entry for entry in LOG if entry.startswith("+")] == ["+slow", "+quick"]


async def _stored(board: Board, count: int) -> None:
    """Wait until so many calls are in the stream; whoever wants to pull them can."""
    from tests.support.waiting import eventually

    async def enough() -> bool:
        return bool((await board.stream("CALLS"))["messages"] >= count)

    await eventually(enough)


async def test_a_call_is_stopped_a_few_times_and_then_no_more(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else there might always be a more urgent one."""
    monkeypatch.setattr("callboard.actors.instance.STUCK", 600.0)  # what was given back is counted anew
    first = await work.submit("patient", "slow", 0)
    for number in range(PREEMPTIONS):
        await until(lambda number=number: LOG.count("+slow") == number + 1)  # type: ignore[misc]
        second = await work.submit("steady", f"quick{number}", 1)
        await until(lambda number=number: f"+quick{number}" in LOG)  # type: ignore[misc]
        gate(f"quick{number}").set()
        assert await work.value(second) == f"quick{number}"
    await until(lambda: LOG.count("+slow") == PREEMPTIONS + 1)
    last = await work.submit("steady", "last", 1)
    await _stored(work.board, 2)
    gate("slow").set()
    gate("last").set()
    assert [await work.value(run) for run in (first, last)] == ["slow", "last"]
    assert LOG.count("-slow") == PREEMPTIONS + 1
    assert LOG.index("+last") > len(LOG) - 2


async def test_what_a_stopped_handler_raises_is_no_outcome(work: Work) -> None:
    """Whatever it makes of the cancellation."""
    first = await work.submit("sulky", "slow", 0)
    await until(lambda: LOG == ["+slow"])
    second = await work.submit("steady", "quick", 1)
    await until(lambda: "+quick" in LOG)
    for name in ("slow", "quick"):
        gate(name).set()
    assert [await work.value(run) for run in (first, second)] == ["slow", "quick"]


async def test_calls_of_a_stopped_handler_go_on(work: Work) -> None:
    """It finds them again: they are neither cancelled nor run twice, and what it has drawn is the same."""
    first = await work.submit("calling", "slow", 0)
    await until(lambda: {"+slow", "nested slow"} <= set(LOG))
    second = await work.submit("steady", "quick", 1)
    await until(lambda: "+quick" in LOG)
    gate("nested slow").set()
    gate("quick").set()
    assert await work.value(second) == "quick"
    await until(lambda: LOG.count("+slow") == 2)
    gate("slow").set()
    drawn, found = await work.value(first)
    assert (found, LOG.count("nested slow")) == ("slow", 1)
    recorded = [result for result in await work.board.results(first) if result.call == "nested.call"]
    assert [result.error for result in recorded] == [None]
    assert len(drawn) == 36


async def test_one_that_waits_for_its_calls_is_in_nobodys_way(work: Work) -> None:
    """It has lent its slot already."""
    first = await work.submit("calling", "slow", 0)
    gate("slow").set()
    await until(lambda: {"+slow", "nested slow"} <= set(LOG))
    await until(lambda: instance(work.host, Worker).slots.busy == 0)
    second = await work.submit("steady", "quick", 1)
    gate("quick").set()
    assert await work.value(second) == "quick"
    gate("nested slow").set()
    assert (await work.value(first))[1] == "slow"
    assert LOG.count("+slow") == 1


async def test_a_thread_makes_room_at_its_next_checkpoint(work: Work) -> None:
    """And runs again from the top."""
    first = await work.submit("in_thread", "slow", 0)
    await until(lambda: LOG == ["+slow"])
    second = await work.submit("steady", "quick", 1)
    await until(lambda: LOG == ["+slow", "-slow", "+quick"])
    gate("quick").set()
    assert await work.value(second) == "quick"
    OPEN.set()
    assert await work.value(first) == "slow"
    assert LOG.count("+slow") == 2


async def test_a_thread_that_does_not_look_keeps_its_slot(work: Work) -> None:
    """Else it would run twice at once. What it gives is its outcome."""
    first = await work.submit("deaf", "slow", 0)
    await until(lambda: LOG == ["+slow"])
    second = await work.submit("steady", "quick", 1)
    await until(lambda: any(slot.stopping for slot in instance(work.host, Worker).slots.preemptable))
    assert LOG == ["+slow"]
    OPEN.set()
    gate("quick").set()
    assert [await work.value(run) for run in (first, second)] == ["slow", "quick"]
    assert LOG == ["+slow", "+quick"]


@workflow
async def burning_flow(mark: str, until_file: str) -> int:
    """Compute in a process."""
    return await cpu_actors.yields(until_file, mark)


@workflow
async def urgent_flow(mark: str, until_file: str) -> int:
    """The same, urgently."""
    with options(priority=1):
        return await cpu_actors.yields(until_file, mark)


async def test_a_process_makes_room_at_once(board: Board, tmp_path: Path) -> None:
    """It is ended, and the call runs again in another."""
    await board.host(cpu_actors.yields, burning_flow, urgent_flow)
    slow, quick = tmp_path / "slow", tmp_path / "quick"
    first = await board.submit(burning_flow, mark=str(slow), until_file=str(tmp_path / "open"))
    await until(lambda: slow.exists() and slow.read_text())
    pid = int(slow.read_text())
    second = await board.submit(urgent_flow, mark=str(quick), until_file=str(tmp_path))
    assert (await board.done(second, SOON)).status == "completed"
    await until(lambda: not psutil.pid_exists(pid))
    (tmp_path / "open").touch()
    done = await board.done(first, SOON)
    assert done.status == "completed"
    (result,) = await board.results(first)
    assert result.attempt == 1


async def test_a_batch_makes_room_as_a_whole(work: Work) -> None:
    """All of its calls wait again."""
    holding = await work.submit("steady", "hold", 0)
    await until(lambda: "+hold" in LOG)
    runs = [await work.submit("together", name, 0) for name in "abc"]
    await _stored(work.board, 4)
    gate("hold").set()
    assert await work.value(holding) == "hold"
    await until(lambda: LOG[-1].startswith("+") and LOG[-1] != "+hold")
    second = await work.submit("steady", "quick", 1)
    await until(lambda: "+quick" in LOG)
    gate("quick").set()
    gate("together").set()
    assert await work.value(second) == "quick"
    assert [await work.value(run) for run in runs] == ["a", "b", "c"]
    await work.board.emptied("CALLS")


async def test_a_call_that_was_stopped_can_be_cancelled(work: Work) -> None:
    """It is not started again."""
    first = await work.submit("patient", "slow", 0)
    await until(lambda: LOG == ["+slow"])
    second = await work.submit("steady", "quick", 1)
    await until(lambda: "+quick" in LOG)
    await (await work.board.client()).cancel(first)
    assert (await work.board.done(first)).status == "cancelled"
    await until(lambda: work.host.cancelled.covers(first, f"{first}:1"))  # hosts hear of it after the clients
    gate("quick").set()
    assert await work.value(second) == "quick"
    await work.board.emptied("CALLS")
    assert LOG.count("+slow") == 1


async def test_whoever_has_room_takes_a_call_that_was_stopped(work: Work) -> None:
    """It does not wait for the host that has stopped it."""
    first = await work.submit("patient", "slow", 0)
    await until(lambda: LOG == ["+slow"])
    second = await work.submit("steady", "quick", 1)
    await until(lambda: "+quick" in LOG)
    other = await work.board.host(Worker)
    await until(lambda: LOG.count("+slow") == 2)
    assert [call.method.name for call in instance(other, Worker).running.values()] == ["patient"]
    gate("slow").set()
    assert await work.value(first) == "slow"
    gate("quick").set()
    assert await work.value(second) == "quick"


async def test_a_host_that_drains_gives_back_what_it_has_stopped(work: Work) -> None:
    """A call that is being stopped just then, too."""
    first = await work.submit("patient", "slow", 0)
    await until(lambda: LOG == ["+slow"])
    other = await work.board.host(Worker, flow)
    second = await work.submit("steady", "quick", 1)
    await until(lambda: "+quick" in LOG)
    for name in ("slow", "quick"):
        gate(name).set()
    await work.host.stop(grace=0.0)
    work.host = other
    client = await work.board.client()
    assert [await client.result(run, SOON) for run in (first, second)] == ["slow", "quick"]
