"""What hosts know of how long calls take, and what they do with it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from tests.support.board import Board, instance
from tests.support.waiting import until

from callboard import tool, workflow
from callboard.actors.host import Host
from callboard.infra import subjects
from callboard.infra.messages.runtimes import Curve, Line

GATE: asyncio.Event
STARTED: list[int]
A_MILLISECOND = -9.966
"""Its logarithm to base 2."""
WORK = Curve("work.call", middle=0.5, lines=[Line(bits, A_MILLISECOND, 1.0) for bits in (5, 8, 11)])
"""A millisecond for each byte."""

FOLLOW = Curve("follow.call", middle=60.0, lines=[Line(3, 0.0, 0.0)])


@tool(concurrency=1)
async def work(text: str) -> int:
    """Wait for the gate."""
    STARTED.append(len(text))
    await GATE.wait()
    return len(text)


@tool
async def follow(length: int) -> int:
    """What comes after it."""
    return length


@workflow
async def branches() -> int:
    """Three calls, on the shortest of which another one waits."""
    some, more = work("x" * 500), work("x" * 1_000)
    short: Any = work("x" * 20)
    return sum(await asyncio.gather(some, more, follow(short)))


@workflow
async def works(lengths: list[int]) -> int:
    """So many calls at once."""
    return sum(await asyncio.gather(*(work("x" * length) for length in lengths)))


async def store(board: Board, *curves: Curve) -> None:
    """As the controller that leads stores them."""
    node = await board.node()
    for curve in curves:
        subject = subjects.runtime_curve(*curve.call.split("."))
        await node.store.stored(subject, msgspec.msgpack.encode(curve))


async def knows(host: Host, curve: Curve = WORK) -> None:
    """Wait until a host has heard of a curve."""
    await until(lambda: host.expectations.seconds(curve.call) == curve.middle)


def stay(host: Host) -> int:
    """How many calls wait in a host to stay: one that is delivered for the first time may be given back."""
    return sum(call.delivered.delivered > 1 for call in instance(host, work).mailbox.all())


async def test_hosts_read_what_is_known_and_hear_what_is_new(board: Board) -> None:
    """Without a controller; what anybody writes does no harm, and nothing is expected of what nobody knows."""
    await store(board, WORK)
    host = await board.host(work)
    await knows(host)
    asked = host.expectations
    assert asked.seconds("work.call", 20) == pytest.approx(0.02, rel=0.01)
    assert asked.seconds("work.call", 2_000) == pytest.approx(2.0, rel=0.01)
    assert asked.seconds("other.call", 20) == 0
    await store(board, Curve("work.call"), Curve("other.call", middle=1.0, lines=[Line(3, 0.0, 0.0)]))
    await until(lambda: asked.seconds("other.call", 4) == 1.0)
    assert asked.seconds("work.call") == WORK.middle
    node = await board.node()
    await node.store.stored(subjects.runtime_curve("odd", "call"), b"\xc1")
    await store(board, Curve("last.call", middle=1.0, lines=[Line(3, 0.0, 0.0)]))
    await until(lambda: len(asked) == 3)


@pytest.mark.parametrize("shortest_first", [True, False])
async def test_short_calls_go_first(board: Board, *, shortest_first: bool) -> None:
    """Of calls that wait in a host those that are expected to be short go first; else they go as they came."""
    global GATE, STARTED
    GATE, STARTED = asyncio.Event(), []
    await store(board, WORK)
    host = await board.host(work, works, shortest_first=shortest_first)
    await knows(host)
    client = await board.client()
    await client.route("work", host.id)
    await until(lambda: len(host.routes) == 1)
    first = await board.submit(works, lengths=[1])
    await until(lambda: STARTED == [1])
    lengths = [200, 2_000, 20, 1_000]
    second = await board.submit(works, lengths=lengths)
    await until(lambda: stay(host) == len(lengths))
    GATE.set()
    assert [(await board.done(run)).status for run in (first, second)] == ["completed"] * 2
    assert STARTED[1:] == sorted(lengths, reverse=not shortest_first)


async def begun_in_order(board: Board, *, longest_first: bool) -> list[int]:
    """In which order the calls of ``branches`` start, one at a time."""
    global GATE, STARTED
    GATE, STARTED = asyncio.Event(), []
    GATE.set()
    host = await board.host(work, follow, branches, longest_first=longest_first, shortest_first=False)
    await knows(host)
    await knows(host, FOLLOW)
    assert await board.run(branches) == 1_520
    await host.stop()
    return STARTED


async def test_the_longest_branch_leaves_first(board: Board) -> None:
    """With all that waits for it; where that is turned off calls leave as they were made."""
    await store(board, WORK, FOLLOW)
    assert await begun_in_order(board, longest_first=True) == [20, 1_000, 500]
    assert await begun_in_order(board, longest_first=False) == [500, 1_000, 20]
