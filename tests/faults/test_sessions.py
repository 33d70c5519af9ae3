"""Sessions under faults: no operation is lost, doubled or reordered, and no handler sees what is stale."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults import evidence
from tests.faults.board import PATIENT, Board
from tests.faults.checker import Allowed
from tests.faults.test_duplicates import Copier
from tests.faults.trading import Trade

from callboard.infra.settings import Settings

pytestmark = pytest.mark.fault

_LONG = Settings().dead_after + 1.0
"""Seconds after which every process that is left has noticed."""


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
    await board.further(150)
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


@pytest.mark.parametrize("keep_id", [True, False], ids=["same_id", "no_id"])
async def test_calls_come_more_than_once(board: Board, keep_id: bool) -> None:  # noqa: FBT001 - a parameter
    """Most calls are published up to four times, at once and later, and hosts die meanwhile."""
    (first, *_), _ = await asyncio.gather(board.hosts(3, "accounts"), board.hosts(2, "business"))
    async with evidence.connected(board.server.url) as client:
        copier = Copier(client, board, share=0.7, keep_id=keep_id)
        await copier.start()
        trade = Trade(board)
        await trade.load(30)
        await board.progress(board.chance.randint(50, 150))
        await first.kill()
        await board.settled()
        await copier.finish()
        assert copier.copies > 100
        await trade.verdict(Allowed(starts=8))


async def test_the_server_stands_still(board: Board) -> None:
    """For longer than a host may."""
    workers, _ = await asyncio.gather(board.hosts(2, "accounts"), board.hosts(2, "business"))
    trade = Trade(board)
    await trade.load(30)
    await board.progress(board.chance.randint(50, 150))
    async with board.server_frozen():
        await asyncio.sleep(_LONG)  # the fault itself lasts so long
    await trade.verdict(Allowed(frozen=frozenset(worker.pid for worker in workers)))


@pytest.mark.fault(seeds=(1, 2))
async def test_everything_at_once(board: Board) -> None:
    """One host stands still, one is drained, a driver and the server die, in an order that the seed draws."""
    (frozen, drained, *_), (driver, *_) = await asyncio.gather(
        board.hosts(4, "accounts"), board.hosts(3, "business")
    )
    trade = Trade(board)
    await trade.load(50)

    async def stand_still() -> None:
        frozen.freeze()
        await asyncio.sleep(_LONG)  # the fault itself lasts so long
        frozen.thaw()

    async def lose_the_server() -> None:
        await asyncio.to_thread(board.server.kill)
        await asyncio.to_thread(board.server.start)

    faults = [stand_still, drained.drain, driver.kill, lose_the_server]
    board.chance.shuffle(faults)
    for fault in faults:
        await board.further(board.chance.randint(1, 50))
        await fault()
    await trade.verdict(Allowed(frozen=frozenset({frozen.pid})))
