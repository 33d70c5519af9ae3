"""Retries by schedules in the stream, time-outs, and deadlines that reach nested calls."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.board import Board, instance
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import agent, method, tool, workflow
from callboard.actors.outcomes import schedule_at
from callboard.infra import headers as H
from callboard.infra.errors import CallTimeout, DeadlineExceeded, RunFailed

RAN: list[Any] = anew([])
FAILED: list[float] = anew([])
"""When, unix seconds."""
GATE = Gate()


class Flaky(Exception):
    """A user's error."""


@agent(concurrency=1)
class Single:
    """One slot for all of it."""

    @method(retries=1, backoff=0.8, backoff_max=0.8)
    async def flaky(self) -> int:
        """Fail the first time."""
        RAN.append("flaky")
        if RAN.count("flaky") == 1:
            FAILED.append(time.time())
            raise Flaky("first")
        return len(RAN)

    @method
    async def other(self, number: int) -> int:
        """Run meanwhile."""
        RAN.append(number)
        return number


@workflow
async def backing_off_flow() -> list[Any]:
    """Make other calls while one backs off."""
    flaky = Single.flaky()
    others: list[int] = []
    while not flaky.done():
        others.append(await Single.other(len(others)))
        if len(others) == 20:
            break
    before = flaky.done()
    return [before, await flaky, flaky.metadata.attempt]


async def test_a_call_that_backs_off_holds_no_slot_and_no_message(board: Board) -> None:
    """The only slot runs other calls until a schedule in the stream brings the call back."""
    host = await board.host(Single, backing_off_flow)
    node = await board.node()
    timers: list[dict[str, str]] = []
    node.connection.subscribe("cb.timer.>", lambda subject, reply, data, head: timers.append(H.decode(head)))
    await node.connection.flush()
    begun = time.time()
    run = await board.submit(backing_off_flow)
    await until(lambda: len(RAN) > 10)
    here, looked = len(instance(host, Single).running), time.time()
    done = await board.done(run)
    assert done.status == "completed"
    assert time.time() - begun > 0.4, "at least half of the back-off"
    assert RAN.count("flaky") == 2
    (timer,) = timers
    assert timer[H.ATTEMPT] == "2"
    assert timer[H.SCHEDULE_TARGET] == "cb.call.Single.any.1"
    due = datetime.fromisoformat(timer[H.SCHEDULE].removeprefix("@at ")).timestamp()
    (failed,) = FAILED
    assert 0.4 <= due - failed <= 5.0, "at most the back-off, and how long the host may have stood still"
    assert here <= 1 or looked > due
    await board.emptied("CALLS")


async def test_the_journal_keeps_the_failed_attempts(board: Board) -> None:
    """Each with its error; the outcome tells which attempt it was."""
    await board.host(Single, backing_off_flow)
    run = await board.submit(backing_off_flow)
    await board.done(run)
    (attempt,) = await board.entries(run, "attempt")
    assert b"first" in attempt.body
    result = next(r for r in await board.results(run) if r.call == "Single.flaky")
    assert (result.attempt, result.error) == (2, None)


@given(st.floats(1_000_000_000, 4_000_000_000))
def test_a_schedule_is_due_at_its_time(unix: float) -> None:
    """To the millisecond, and never before it: at the end of a second, too."""
    text = schedule_at(unix)
    due = datetime.fromisoformat(text.removeprefix("@at ")).timestamp()
    assert -1e-6 < due - unix < 0.0011


def test_a_schedule_at_the_very_end_of_a_second() -> None:
    """Rounding up carries over into the seconds."""
    assert schedule_at(1_700_000_000.9996) == "@at 2023-11-14T22:13:21.000Z"
    assert schedule_at(1_700_000_000.5) == "@at 2023-11-14T22:13:20.500Z"


# -- time-outs -------------------------------------------------------------------------------------------


@tool(timeout=0.05, retries=1, backoff=0.01, idempotent=True)
async def slow_at_first() -> int:
    """Take too long the first time."""
    RAN.append("slow")
    if len(RAN) == 1:
        await GATE.wait()
    return len(RAN)


@tool(timeout=0.05, retries=1, backoff=0.01)
async def slow_and_not_idempotent() -> int:
    """Take too long."""
    RAN.append("slow")
    await GATE.wait()
    return 0


@workflow
async def slow_flow(*, idempotent: bool) -> Any:
    """Call one of them."""
    return await (slow_at_first() if idempotent else slow_and_not_idempotent())


async def test_a_timeout_is_tried_again_only_where_that_does_no_harm(board: Board) -> None:
    """An idempotent call is; of another nobody knows what it has done already."""
    await board.host(slow_flow, slow_at_first, slow_and_not_idempotent)
    assert await board.run(slow_flow, idempotent=True) == 2
    RAN.clear()
    with pytest.raises(RunFailed) as caught:
        await board.run(slow_flow, idempotent=False)
    assert isinstance(caught.value.__cause__, CallTimeout)
    assert caught.value.__cause__.fields["timeout"] == 0.05
    assert RAN == ["slow"]


# -- deadlines -----------------------------------------------------------------------------------------------


@agent
class Chain:
    """Calls that call calls."""

    @method
    async def outer(self) -> str:
        """Call the inner one and tell what came of it."""
        RAN.append("outer begins")
        try:
            return await Chain.inner()
        except asyncio.CancelledError:
            RAN.append("outer stopped")
            raise

    @method
    async def inner(self) -> str:
        """Wait for ever."""
        RAN.append("inner begins")
        try:
            await GATE.wait()
        except asyncio.CancelledError:
            RAN.append("inner stopped")
            raise
        return "done"


@workflow
async def deadline_flow() -> str:
    """Call it."""
    return await Chain.outer()


@workflow(timeout=2.0)
async def limited_flow() -> str:
    """Call it within a time."""
    return await Chain.outer()


@pytest.mark.parametrize("flow", [deadline_flow, limited_flow], ids=["request", "workflow"])
async def test_a_deadline_stops_the_run_and_all_its_calls(board: Board, flow: Any) -> None:
    """Given with the request or by the workflow; nested calls on other hosts end with it."""
    await board.host(flow)
    await board.host(Chain)
    client = await board.client()
    run = await client.submit(flow.name, deadline=2.0 if flow is deadline_flow else None)
    with pytest.raises(RunFailed) as caught:
        await client.result(run, SOON)
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    await until(lambda: len(RAN) == 4)
    assert sorted(RAN) == ["inner begins", "inner stopped", "outer begins", "outer stopped"]
    await board.emptied("CALLS")
    await board.emptied("REQUESTS")


@tool(concurrency=1)
async def queued(number: int) -> int:
    """Hold the only slot."""
    RAN.append(number)
    await GATE.wait()
    return number


@workflow
async def queued_flow(number: int) -> int:
    """Call it."""
    return await queued(number)


async def test_a_call_whose_deadline_passes_while_it_waits_is_not_started(board: Board) -> None:
    """Its run has ended; when there is a slot at last, nobody wants the result any more."""
    host = await board.host(queued, queued_flow)
    client = await board.client()
    first = await client.submit(queued_flow.name, {"number": 1})
    await until(lambda: RAN == [1])
    second = await client.submit(queued_flow.name, {"number": 2}, deadline=0.15)
    with pytest.raises(RunFailed) as caught:
        await client.result(second, SOON)
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    driver = next(member for member in host.instances() if member.name == "queued_flow")
    await until(lambda: driver.info().busy == 1)
    await host.node.connection.flush()  # by now it has heard that the call is cancelled
    GATE.set()
    assert await client.result(first, SOON) == 1
    await board.emptied("CALLS")
    assert RAN == [1]


async def test_a_request_whose_deadline_has_passed_is_not_begun(board: Board) -> None:
    """The run fails with the typed error; none of its code is run."""
    client = await board.client()
    run = await client.submit(queued_flow.name, {"number": 3}, deadline=-1.0)
    await board.host(queued, queued_flow)
    with pytest.raises(RunFailed) as caught:
        await client.result(run, SOON)
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    await board.emptied("CALLS")
    assert RAN == []


@workflow
async def idle_flow() -> None:
    """Await nothing."""
    RAN.append("begun")


@workflow
def idle_plain_flow() -> None:
    """The same in a thread."""
    RAN.append("begun")


@pytest.mark.parametrize("flow", [idle_flow, idle_plain_flow])
async def test_such_a_request_is_not_begun_though_it_would_wait_for_nothing(board: Board, flow: Any) -> None:
    """Its function is not called."""
    client = await board.client()
    run = await client.submit(flow.name, deadline=-1.0)
    await board.host(flow)
    done = await client.done(run, SOON)
    assert done.error is not None
    assert (done.status, done.error.code, RAN) == ("failed", "deadline_exceeded", [])
