"""A lane above its limit refuses, and says when to come again; callers wait accordingly."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.support.board import Board
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import tool, workflow
from callboard.infra.errors import DeadlineExceeded, Overloaded, RunFailed

RAN: list[int] = anew([])
GATE = Gate()


@tool(concurrency=1, max_queue=3)
async def narrow(number: int) -> int:
    """One at a time, three may wait."""
    RAN.append(number)
    await GATE.wait()
    return number


@tool(concurrency=2, max_queue=4)
async def brisk(number: int) -> int:
    """Quick, and still limited."""
    RAN.append(number)
    await asyncio.sleep(0.002)
    return number


@workflow
async def crowd_flow(count: int) -> list[str]:
    """More calls than may wait."""
    found = await asyncio.gather(*(narrow(n) for n in range(count)), return_exceptions=True)
    return [f"{type(one).__name__}" if isinstance(one, BaseException) else str(one) for one in found]


@workflow
async def brisk_flow(count: int) -> int:
    """More calls than may wait, of a quick tool."""
    return sum(await asyncio.gather(*(brisk(n) for n in range(count))))


async def test_refused_calls_wait_and_come_again(board: Board) -> None:
    """By default nobody notices: all are done in the end, each once."""
    await board.host(brisk, brisk_flow)
    run = await board.submit(brisk_flow, count=60)
    done = await board.done(run, timeout=90)  # a host that stood still says to come again much later
    assert done.status == "completed"
    assert sorted(RAN) == list(range(60))
    results = await board.results(run)
    assert [r for r in results if r.error is not None and r.error.code == Overloaded.code], "none was refused"


async def test_a_refusal_that_nobody_can_wait_out_is_told(board: Board) -> None:
    """With the length of the queue and the time to wait, when the deadline comes first."""
    await board.host(narrow, crowd_flow)
    client = await board.client()
    begun = time.monotonic()
    run = await client.submit(crowd_flow.name, {"count": 10}, deadline=2.0)
    with pytest.raises(RunFailed) as caught:
        await client.result(run, SOON)
    assert isinstance(caught.value.__cause__, DeadlineExceeded | Overloaded)
    assert time.monotonic() - begun < 15
    refusals = [r.error for r in await board.results(run) if r.error and r.error.code == Overloaded.code]
    assert refusals
    for error in refusals:
        assert error.fields["queue"] >= 3
        assert 0.05 <= error.fields["retry_after"] <= 30
        assert str(error.fields["queue"]) in error.message
    GATE.set()


async def test_a_lane_within_its_limit_refuses_nobody(board: Board) -> None:
    """One runs, three wait: that is what was declared."""
    await board.host(narrow, crowd_flow)
    run = await board.submit(crowd_flow, count=4)
    await until(lambda: RAN)
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert [r for r in await board.results(run) if r.error is not None] == []


async def test_cancelling_a_call_that_waits_to_come_again(board: Board) -> None:
    """It does not come again."""
    host = await board.host(narrow, crowd_flow)
    client = await board.client()
    run = await client.submit(crowd_flow.name, {"count": 8})
    await until(lambda: RAN)
    await board.entries(run, "result")
    await client.cancel(run)
    assert (await client.done(run, SOON)).status == "cancelled"
    await until(lambda: host.cancelled.covers(run, f"{run}:1"))  # hosts hear of it after the clients
    GATE.set()
    await board.emptied("CALLS")
    assert len(RAN) == 1
