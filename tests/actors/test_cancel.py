"""Cancelling: runs, calls, and what they have called, on the loop and in threads, on other hosts too."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from tests.support.board import Board, instance
from tests.support.waiting import SOON, until

from callboard import agent, checkpoint, method, tool, workflow
from callboard.infra.errors import CallCancelled, RunCancelled, RunUnknown

SAW: list[str] = []
GATE = asyncio.Event()
CLEAN = asyncio.Event()
STOP = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing was seen, the gates are shut."""
    global CLEAN, GATE, STOP
    CLEAN, GATE, STOP = asyncio.Event(), asyncio.Event(), threading.Event()
    SAW.clear()


@tool
async def forever(name: str) -> int:
    """Wait, and tell how it ends."""
    SAW.append(f"{name} begins")
    try:
        await GATE.wait()
    except asyncio.CancelledError:
        SAW.append(f"{name} cancelled")
        raise
    SAW.append(f"{name} ends")
    return 1


@tool
def in_thread(name: str) -> int:
    """Work in steps, and tell how it ends."""
    SAW.append(f"{name} begins")
    try:
        while not STOP.is_set():
            checkpoint()
            time.sleep(0.002)
    except CallCancelled:
        SAW.append(f"{name} cancelled")
        raise
    SAW.append(f"{name} ends")
    return 1


@agent
class Middle:
    """Calls in between."""

    @method
    async def nested(self, name: str) -> int:
        """Wait for calls of its own."""
        return sum(await asyncio.gather(forever(f"{name}.a"), in_thread(f"{name}.b")))

    @method
    def nested_in_thread(self, name: str) -> int:
        """The same, in a thread that waits for a value."""
        try:
            return forever(f"{name}.a").value()
        finally:
            SAW.append(f"{name} left")


@workflow
async def flow() -> int:
    """Calls of all kinds, nested."""
    return sum(await asyncio.gather(forever("one"), Middle.nested("two"), Middle.nested_in_thread("three")))


@workflow
def sync_flow() -> Any:
    """The same in plain code."""
    one, two = forever("one"), Middle.nested("two")
    three = Middle.nested_in_thread("three")
    return one + two + three  # type: ignore[operator]


BEGUN = {"one begins", "two.a begins", "two.b begins", "three.a begins"}
ENDED = {"one cancelled", "two.a cancelled", "two.b cancelled", "three.a cancelled", "three left"}


@pytest.mark.parametrize("which", [flow, sync_flow], ids=["async", "sync"])
async def test_cancelling_a_run_cancels_all_its_calls(board: Board, which: Any) -> None:
    """Nested ones on other hosts, on the loop and in threads; messages are settled, nothing runs again."""
    await board.host(which)
    await board.host(Middle)
    await board.host(forever, in_thread)
    client = await board.client()
    run = await client.submit(which.name)
    await until(lambda: set(SAW) >= BEGUN)
    await client.cancel(run, "changed my mind")
    with pytest.raises(RunCancelled, match="changed my mind") as caught:
        await client.result(run, SOON)
    assert caught.value.fields["run"] == run
    await until(lambda: set(SAW) >= BEGUN | ENDED)
    await board.emptied("CALLS")
    await board.emptied("REQUESTS")
    assert len(SAW) == len(BEGUN | ENDED), SAW
    assert (await client.status(run)).status == "cancelled"


async def test_a_run_can_be_cancelled_at_any_moment(board: Board) -> None:
    """Right after it was submitted, before anybody drives it, or in the middle of it: it ends."""
    await board.host(flow, Middle, forever, in_thread)
    client = await board.client()
    runs = [await client.submit(flow.name) for _ in range(40)]
    for number, run in enumerate(runs):
        if number % 4 == 3:
            await asyncio.sleep(0.002)
        await client.cancel(run)
    for _ in range(20):
        runs.append(await client.submit(flow.name))
        await client.cancel(runs[-1])
    for run in runs:
        assert (await client.done(run, SOON)).status == "cancelled"
    await board.emptied("CALLS")


async def test_a_run_cancelled_before_it_began_runs_none_of_its_code(board: Board) -> None:
    """The journal knew first."""
    client = await board.client()
    run = await client.submit(flow.name)
    await client.cancel(run, "too late")
    await board.host(flow, Middle, forever, in_thread)
    with pytest.raises(RunCancelled, match="too late"):
        await client.result(run, SOON)
    await board.emptied("REQUESTS")
    assert SAW == []


async def test_cancelling_a_run_that_has_ended_changes_nothing(board: Board) -> None:
    """Its outcome stands."""
    await board.host(flow, Middle, forever, in_thread)
    GATE.set()
    STOP.set()
    client = await board.client()
    run = await client.submit(flow.name)
    assert await client.result(run, SOON) == 4
    await client.cancel(run)
    assert await client.result(run, SOON) == 4
    assert (await client.status(run)).status == "completed"


@workflow
async def choosing_flow() -> str:
    """Cancel one call and its descendants, and go on with the others."""
    first, second = Middle.nested("one"), forever("two")
    await until(lambda: len(SAW) == 3)
    first.cancel()
    await until(lambda: {"one.a cancelled", "one.b cancelled"} <= set(SAW))
    GATE.set()
    return f"{first.cancelled()} {await second}"


async def test_a_run_that_nobody_knows_cannot_be_cancelled(board: Board) -> None:
    """Whoever mistypes its id is told so."""
    client = await board.client()
    with pytest.raises(RunUnknown, match="there is no run nobody"):
        await client.cancel("nobody")


async def test_cancelling_one_call_leaves_the_others_alone(board: Board) -> None:
    """What it has called ends with it; the run goes on."""
    await board.host(choosing_flow)
    await board.host(Middle, forever, in_thread)
    assert await board.run(choosing_flow) == "True 1"
    assert "two ends" in SAW
    await board.emptied("CALLS")


@tool(concurrency=1)
async def one_at_a_time(name: str) -> int:
    """Hold the only slot."""
    return await forever.function(name)  # type: ignore[no-any-return]


@workflow
async def queued_flow() -> str:
    """Cancel calls that wait for a slot."""
    first = one_at_a_time("first")
    await until(lambda: SAW == ["first begins"])
    waiting = [one_at_a_time(f"waiting {n}") for n in range(5)]
    for one in waiting:
        one.cancel()
    GATE.set()
    return f"{await first} {await one_at_a_time('last')}"


async def test_a_call_cancelled_while_it_waits_is_never_started(board: Board) -> None:
    """In the stream or in a mailbox, wherever it was."""
    await board.host(one_at_a_time, queued_flow)
    assert await board.run(queued_flow) == "1 1"
    await board.emptied("CALLS")
    assert SAW == ["first begins", "first ends", "last begins", "last ends"]


@tool
async def stubborn() -> str:
    """Ignore a cancellation and return something."""
    SAW.append("begins")
    try:
        await GATE.wait()
    except asyncio.CancelledError:
        SAW.append("refuses")
    return "anyway"


@workflow
async def stubborn_flow() -> str:
    """Cancel it."""
    call = stubborn()
    await until(lambda: SAW == ["begins"])
    call.cancel()
    await until(lambda: SAW == ["begins", "refuses"])
    return str(call.cancelled())


async def test_a_handler_that_refuses_to_be_cancelled(board: Board) -> None:
    """Its caller has gone; its message is settled, and its slot is free again."""
    host = await board.host(stubborn, stubborn_flow)
    assert await board.run(stubborn_flow) == "True"
    await board.emptied("CALLS")
    await until(lambda: instance(host, stubborn).info().busy == 0)
    assert instance(host, stubborn).running == {}


@tool
def calls_late() -> int:
    """Block a thread, and make a call afterwards."""
    SAW.append("begins")
    STOP.wait(SOON)
    try:
        _ = forever("late")
    except CallCancelled:
        SAW.append("stopped")
        raise
    return 1


@workflow
async def late_flow() -> int:
    """Call it."""
    return await calls_late()


async def test_a_thread_that_was_cancelled_makes_no_calls(board: Board) -> None:
    """It stops where it would make the next one."""
    host = await board.host(calls_late, forever, late_flow)
    run = await board.submit(late_flow)
    await until(lambda: SAW == ["begins"])
    await (await board.client()).cancel(run)
    try:
        await until(lambda: not instance(host, calls_late).running)
    finally:
        STOP.set()
    await until(lambda: SAW == ["begins", "stopped"])
    await board.emptied("CALLS")


@tool
async def cleaning_up() -> None:
    """Take until it may be over to stop."""
    SAW.append("begins")
    try:
        await GATE.wait()
    finally:
        SAW.append("cleaning")
        await CLEAN.wait()
        SAW.append("clean")


@workflow
async def cleaning_flow() -> None:
    """Call it."""
    await cleaning_up()


async def test_a_cancelled_handler_may_clean_up(board: Board) -> None:
    """It has the time it needs; only then is its slot free."""
    host = await board.host(cleaning_up, cleaning_flow)
    run = await board.submit(cleaning_flow)
    await until(lambda: SAW == ["begins"])
    await (await board.client()).cancel(run)
    await until(lambda: SAW[-1] == "cleaning")
    assert instance(host, cleaning_up).info().busy == 1
    CLEAN.set()
    await until(lambda: SAW[-1] == "clean")
    await until(lambda: instance(host, cleaning_up).info().busy == 0)
    await board.emptied("CALLS")
