"""Runs that are put aside while processes die: each goes on once, and what was done stays done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tests.faults.board import STUCK, Board
from tests.support.waiting import eventually

pytestmark = pytest.mark.fault

_RUNS = 12
_SLEEP = 1.5
_PARK = {"park_after": 0.05, "grace": 0.2}


async def hosts(board: Board) -> None:
    """Two that drive, and one for the calls."""
    await asyncio.gather(board.hosts(2, "workflows", **_PARK), board.hosts(1, "tools", grace=0.2))


async def runs(board: Board) -> list[str]:
    """Runs that are put aside."""
    made = [await board.submit("patient", number=number, seconds=_SLEEP) for number in range(_RUNS)]

    async def aside() -> bool:
        found = await asyncio.gather(*(board.client.node.journal.aside(run) for run in made))
        return all(found)

    await eventually(aside, STUCK)
    return made


async def hosts_die(board: Board) -> None:
    """All hosts are killed, and others come."""
    await asyncio.gather(*(worker.kill() for worker in board.workers if worker.running))
    await hosts(board)


async def everything_dies(board: Board) -> None:
    """The server, too."""
    await asyncio.gather(*(worker.kill() for worker in board.workers if worker.running))
    await asyncio.to_thread(board.server.kill)
    await asyncio.sleep(_SLEEP)  # all of them are due meanwhile
    await asyncio.to_thread(board.server.start)
    await hosts(board)


async def server_dies(board: Board) -> None:
    """The server alone; hosts live on."""
    await asyncio.to_thread(board.server.kill)
    await asyncio.to_thread(board.server.start)


@pytest.mark.parametrize("fault", [hosts_die, everything_dies, server_dies])
async def test_waiting_goes_on(board: Board, fault: Callable[[Board], Awaitable[None]]) -> None:
    """Sleeps and signals outlast whatever dies; then a driver dies while all the runs are woken."""
    await hosts(board)
    made = await runs(board)
    await fault(board)
    for number, run in enumerate(made[: _RUNS // 2]):
        await board.client.signal(run, "go", number)
    drives = next(worker for worker in board.workers if worker.running)
    await drives.kill()
    await hosts(board)
    for number, run in enumerate(made):
        if number >= _RUNS // 2:
            await board.client.signal(run, "go", number)
    await board.verdict()
