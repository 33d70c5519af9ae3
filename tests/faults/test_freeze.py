"""SIGSTOP: a process that is neither alive nor dead."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults.board import Board
from tests.faults.checker import Allowed

from callboard.infra.settings import Settings

pytestmark = pytest.mark.fault

_LONG = Settings().dead_after + 1.0
"""Seconds after which every process that is left has noticed."""


@pytest.mark.fault(seeds=(1, 2))
async def test_host(board: Board) -> None:
    """A host is taken for dead and comes back: its late results and acks double nothing."""
    (frozen, _), _ = await asyncio.gather(board.hosts(2, "tools"), board.hosts(1, "workflows"))
    await board.load(60, pause=0.05)
    await board.progress(board.chance.randint(20, 150))
    frozen.freeze()
    await board.said("host_dead")
    frozen.thaw()
    await board.verdict(Allowed(frozen=frozenset({frozen.pid})))


@pytest.mark.fault(seeds=(1, 2))
async def test_driver(board: Board) -> None:
    """A driver is taken for dead and comes back: its successor's leases fence it off."""
    slowly = 3.0  # on a busy machine nobody alive may be taken for dead: each call is to run once
    _, (frozen,) = await asyncio.gather(
        board.hosts(2, "tools", dead_after=slowly), board.hosts(1, "workflows", dead_after=slowly)
    )
    await board.hold()  # it has a run when it freezes, however late that is
    await board.hosts(1, "workflows", dead_after=slowly)
    await board.load(60, pause=0.05)
    await board.progress(board.chance.randint(20, 150))
    frozen.freeze()
    await board.said("run_taken_over")
    frozen.thaw()
    board.open_gate()
    await board.verdict(Allowed(starts=1, late=0.0))


async def test_host_that_never_comes_back(board: Board) -> None:
    """A host freezes, its calls are given back, and it dies while more were delivered to it."""
    (frozen, _), _ = await asyncio.gather(board.hosts(2, "tools"), board.hosts(1, "workflows"))
    await board.load(60, pause=0.05)
    await board.progress(board.chance.randint(20, 150))
    frozen.freeze()
    await board.said("host_dead")
    await board.load(20)
    await asyncio.sleep(_LONG)  # the fault itself lasts so long: calls go to a host that does nothing
    await frozen.kill()
    await board.verdict()


async def test_server(board: Board) -> None:
    """The server itself stands still for longer than a host may."""
    workers, _ = await asyncio.gather(board.hosts(2, "tools"), board.hosts(2, "workflows"))
    await board.load(60, pause=0.05)
    await board.progress(board.chance.randint(20, 150))
    async with board.server_frozen():
        await asyncio.sleep(_LONG)  # the fault itself lasts so long
    await board.verdict(Allowed(frozen=frozenset(w.pid for w in workers)))
    assert all(worker.running for worker in board.workers)
