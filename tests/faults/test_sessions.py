"""Sessions under faults: no operation is lost, doubled or reordered, and no handler sees what is stale."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults.board import PATIENT, Board
from tests.faults.checker import Allowed
from tests.faults.trading import Trade

pytestmark = pytest.mark.fault


async def test_nothing(board: Board) -> None:
    """Without a fault: what the other scenarios are measured against."""
    await asyncio.gather(
        board.hosts(3, "accounts", dead_after=PATIENT), board.hosts(2, "business", dead_after=PATIENT)
    )
    trade = Trade(board)
    await trade.load(30)
    history = await trade.verdict(Allowed(starts=1, late=0.0))
    assert len(history.accounts) == 8


@pytest.mark.fault(seeds=(1, 2))
async def test_hosts_die(board: Board) -> None:
    """Two of three hosts die, one after the other; a new one takes their place."""
    (first, second, _), _ = await asyncio.gather(board.hosts(3, "accounts"), board.hosts(2, "business"))
    trade = Trade(board)
    await trade.load(40)
    await board.progress(board.chance.randint(20, 100))
    await first.kill()
    spare = await board.spawn("accounts")
    await board.progress(board.chance.randint(150, 300))
    await second.kill()
    await spare.ready()
    await trade.verdict()


@pytest.mark.fault(seeds=(1, 2))
async def test_a_driver_dies(board: Board) -> None:
    """Its runs go on elsewhere, and a host dies with it."""
    (host, _), (driver, _) = await asyncio.gather(board.hosts(2, "accounts"), board.hosts(2, "business"))
    trade = Trade(board)
    await trade.load(40)
    await board.progress(board.chance.randint(50, 250))
    await asyncio.gather(driver.kill(), host.kill())
    await trade.verdict()


@pytest.mark.fault(seeds=(1, 2))
async def test_the_server_dies(board: Board) -> None:
    """With a host, and starts again on its store."""
    (host, _), _ = await asyncio.gather(board.hosts(2, "accounts"), board.hosts(2, "business"))
    trade = Trade(board)
    await trade.load(40)
    await board.progress(board.chance.randint(50, 250))
    await asyncio.gather(host.kill(), asyncio.to_thread(board.server.kill))
    await asyncio.to_thread(board.server.start)
    await trade.verdict()


@pytest.mark.fault(seeds=(1, 2, 3))
async def test_a_host_stands_still(board: Board) -> None:
    """It is taken for dead, others take its sessions over, and it comes back and goes on where it was."""
    (frozen, *_), _ = await asyncio.gather(board.hosts(3, "accounts"), board.hosts(2, "business"))
    trade = Trade(board, sessions=2)
    await trade.load(40)
    await board.progress(board.chance.randint(50, 200))
    frozen.freeze()
    await board.said("host_dead")
    await board.progress(board.ledger.count("end") + 150)
    frozen.thaw()
    await trade.load(10)
    await trade.verdict(Allowed(frozen=frozenset({frozen.pid})))


@pytest.mark.fault(seeds=(1, 2))
async def test_hosts_leave_in_good_order(board: Board) -> None:
    """Two of three hosts are drained under load."""
    (first, second, _), _ = await asyncio.gather(board.hosts(3, "accounts"), board.hosts(2, "business"))
    trade = Trade(board)
    await trade.load(40)
    await board.progress(board.chance.randint(20, 100))
    await first.drain()
    spare = await board.spawn("accounts")
    await second.drain()
    await spare.ready()
    await trade.verdict()
