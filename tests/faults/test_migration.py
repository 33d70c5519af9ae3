"""Sessions that move under faults: each is at one place, and no operation is lost, doubled or reordered."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults.board import PATIENT, Board
from tests.faults.checker import Allowed
from tests.faults.moving import moving
from tests.faults.trading import Trade

pytestmark = pytest.mark.fault


@pytest.mark.fault(seeds=(1, 2, 3))
async def test_sessions_move_all_the_time(board: Board) -> None:
    """Nobody dies: then no handler runs twice, however often its session moves."""
    await asyncio.gather(
        board.hosts(3, "accounts", dead_after=PATIENT), board.hosts(2, "business", dead_after=PATIENT)
    )
    trade = Trade(board)
    async with moving(board, trade.sessions) as mover:
        await trade.load(40)
        await board.settled()
        while mover.moved <= 20 or mover.calls <= 20:  # on a machine on which there was little time for it
            await trade.load(10)
            await board.settled()
    await trade.verdict(Allowed(starts=1, late=0.0))


@pytest.mark.fault(seeds=(1, 2, 3))
async def test_sources_and_destinations_die(board: Board) -> None:
    """Two of three hosts die while sessions move between them; a new one takes their place."""
    (first, second, _), _ = await asyncio.gather(board.hosts(3, "accounts"), board.hosts(2, "business"))
    trade = Trade(board)
    async with moving(board, trade.sessions) as mover:
        await trade.load(40)
        await mover.progress(board.chance.randint(3, 15))
        await asyncio.sleep(board.chance.uniform(0.0, 0.05))  # anywhere in a move
        await first.kill()
        spare = await board.spawn("accounts")
        await mover.progress(mover.moved + board.chance.randint(3, 15))
        await second.kill()
        await spare.ready()
        await board.settled()
    await trade.verdict()


@pytest.mark.fault(seeds=(1, 2))
async def test_a_source_stands_still(board: Board) -> None:
    """It is taken for dead in the middle of its moves, and comes back and goes on with them."""
    (frozen, *_), _ = await asyncio.gather(board.hosts(3, "accounts"), board.hosts(2, "business"))
    trade = Trade(board, sessions=2)
    async with moving(board, trade.sessions) as mover:
        await trade.load(40)
        await mover.progress(board.chance.randint(3, 10))
        frozen.freeze()
        await board.said("host_dead")
        await board.further(50)
        frozen.thaw()
        await trade.load(10)
        await board.settled()
    await trade.verdict(Allowed(frozen=frozenset({frozen.pid})))


@pytest.mark.fault(seeds=(1, 2))
async def test_the_server_dies(board: Board) -> None:
    """With a host, while sessions move, and starts again on its store."""
    (host, *_), _ = await asyncio.gather(board.hosts(3, "accounts"), board.hosts(2, "business"))
    trade = Trade(board)
    async with moving(board, trade.sessions) as mover:
        await trade.load(40)
        await mover.progress(board.chance.randint(3, 10))
        await asyncio.gather(host.kill(), asyncio.to_thread(board.server.kill))
        await asyncio.to_thread(board.server.start)
        await board.settled()
    await trade.verdict()


@pytest.mark.fault(seeds=(1, 2, 3))
async def test_hosts_are_drained(board: Board) -> None:
    """Two of three, under load: they hand over what is busy, and no handler runs twice for it."""
    (first, second, _), _ = await asyncio.gather(
        board.hosts(3, "accounts", dead_after=PATIENT), board.hosts(2, "business", dead_after=PATIENT)
    )
    trade = Trade(board)
    await trade.load(40)
    await board.progress(board.chance.randint(20, 100))
    await first.drain()
    spare = await board.spawn("accounts", dead_after=PATIENT)
    await spare.ready()
    await second.drain()
    await trade.verdict(Allowed(starts=1, late=0.0))
