"""Calls are taken from hosts that do nothing for them, blocked event loops among them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.faults import ledger
from tests.faults.board import PATIENT, Board, Worker
from tests.faults.checker import Allowed

pytestmark = pytest.mark.fault

_PAUSE = 1.5


async def crowded(board: Board, runs: int, **settings: Any) -> list[Worker]:
    """Three hosts, and runs whose calls are all addressed to one of them each; gives the hosts."""
    hosts, _ = await asyncio.gather(board.hosts(3, "hog", **settings), board.hosts(1, "crowded", **settings))
    for number in range(runs):
        host = board.chance.choice(hosts).host
        await board.submit("crowded", number=number, host=host, width=40, pause=_PAUSE)
    return hosts


async def test_behind_a_blocked_loop(board: Board) -> None:
    """What the loop of a host has not even read runs elsewhere, before the loop goes on; each call once."""
    (one, other), _ = await asyncio.gather(
        board.hosts(2, "hog", dead_after=PATIENT), board.hosts(1, "crowded", dead_after=PATIENT)
    )
    other.freeze()  # it takes nothing before the loop is blocked
    await board.submit("crowded", number=0, host=one.host, width=80, pause=0.0)
    await board.begun(1)
    other.thaw()
    await board.progress(60)
    entries = board.ledger.refresh()
    (blocked,) = [e for e in entries if e.what == ledger.START and e.pid == one.pid][:1]
    assert not [e for e in entries if e.what == ledger.END and e.future == blocked.future]
    assert one.said("calls_given")
    board.open_gate()
    await board.verdict(Allowed(starts=1, late=0.0))


async def test_by_a_host_that_came_up_after_the_block(board: Board) -> None:
    """A blocked loop has not heard of it; it is given the calls nevertheless."""
    (one,), _ = await asyncio.gather(
        board.hosts(1, "hog", dead_after=PATIENT), board.hosts(1, "crowded", dead_after=PATIENT)
    )
    await board.submit("crowded", number=0, host=one.host, width=80, pause=0.0)
    await board.begun(1)
    await board.hosts(1, "hog", dead_after=PATIENT)
    await board.progress(60)
    assert one.said("calls_given")
    board.open_gate()
    await board.verdict(Allowed(starts=1, late=0.0))


@pytest.mark.fault(seeds=(1, 2))
async def test_many_hosts(board: Board) -> None:
    """Hosts that are busy or blocked in turn take from each other: each call runs once."""
    await crowded(board, 8, dead_after=PATIENT)
    await board.said("calls_given")
    await board.verdict(Allowed(starts=1, late=0.0))


@pytest.mark.fault(seeds=(1, 2))
async def test_a_host_dies(board: Board) -> None:
    """Whoever gives or takes may die in the middle of it: nothing is lost."""
    hosts = await crowded(board, 8)
    await board.said("calls_given")
    await board.chance.choice(hosts).kill()
    await board.verdict()


@pytest.mark.fault(seeds=(1, 2))
async def test_a_host_leaves(board: Board) -> None:
    """Whoever gives or takes may be drained meanwhile: each call runs once."""
    hosts = await crowded(board, 8, dead_after=PATIENT)
    await board.said("calls_given")
    await board.chance.choice(hosts).drain()
    await board.verdict(Allowed(starts=1, late=0.0))
