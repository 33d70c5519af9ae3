"""Long chats under faults: whatever goes, each call sees the whole history, though it travels as references."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults.board import STUCK, Board, until
from tests.faults.chats import expected

pytestmark = pytest.mark.fault

TURNS = 60
CHATS = 6


async def _outcomes(board: Board) -> int:
    """Outcomes in all journals."""
    stream = board.client.node.topology.api("STREAM.INFO.RUNS")
    return int((await stream)["state"]["messages"])


async def _progress(board: Board, count: int) -> None:
    seen = [0]

    async def look() -> None:
        while seen[0] < count:
            seen[0] = await _outcomes(board)
            await asyncio.sleep(0.01)

    looking = asyncio.create_task(look())
    try:
        await until(lambda: seen[0] >= count, f"{count} entries")
    finally:
        looking.cancel()


@pytest.mark.fault(seeds=(1, 2))
async def test_everything_dies_in_turn(board: Board) -> None:
    """A host, a driver, the server; the chats come to what they must."""
    (host, *_), (driver, *_) = await asyncio.gather(
        board.hosts(2, "reply", "Chatterer"), board.hosts(2, "chatting")
    )
    chats = [
        await board.client.submit("chatting", {"name": f"chat{n}", "turns": TURNS, "kept": n % 2 == 0})
        for n in range(CHATS)
    ]
    await _progress(board, board.chance.randint(100, 250))
    await host.kill()
    await board.hosts(1, "reply", "Chatterer")
    await _progress(board, board.chance.randint(250, 330))
    await driver.kill()
    await board.hosts(1, "chatting")
    await _progress(board, board.chance.randint(330, 400))
    await asyncio.to_thread(board.server.kill)
    await asyncio.to_thread(board.server.start)
    told = [await board.client.result(run, 2 * STUCK) for run in chats]
    assert told == [expected(f"chat{n}", TURNS) for n in range(CHATS)]
