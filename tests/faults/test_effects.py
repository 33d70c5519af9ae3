"""kill -9 of hosts that carry out effects: by the effects themselves, and at any time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing

import pytest
from tests.faults.board import STUCK, Board, Worker

pytestmark = pytest.mark.fault

EFFECTS = 200
KILLED_AT_ANY_TIME = 5


async def _always_two(board: Board, killed: list[Worker]) -> None:
    """Two hosts work; for one that has died another one comes. Some are killed at any time."""
    working = await board.mortals(2, "charge")
    while True:
        if len(killed) < KILLED_AT_ANY_TIME:
            await asyncio.sleep(board.chance.uniform(0.0, 0.3))
            victim = board.chance.choice(working)
            await victim.kill()
            killed.append(victim)
        else:
            ends = [asyncio.ensure_future(worker.process.wait()) for worker in working]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for end in ends:
                    end.cancel()
        working = [worker for worker in working if worker.running]
        working += await board.mortals(2 - len(working), "charge")


async def test_hosts_die_in_the_middle_of_effects(board: Board) -> None:
    """Nothing happens twice, and every caller has a result or is told that nobody knows."""
    await board.hosts(1, "charging")
    numbers = list(range(EFFECTS))
    runs = [
        await board.client.submit("charging", {"numbers": numbers[at : at + 20], "pause": 0.01})
        for at in range(0, EFFECTS, 20)
    ]
    killed: list[Worker] = []
    async with asyncio.TaskGroup() as beside:
        hosts = beside.create_task(_always_two(board, killed))
        told = [one for run in runs for one in await board.client.result(run, 2 * STUCK)]
        hosts.cancel()
    with closing(sqlite3.connect(board.folder / "effects")) as base:
        times = Counter(name for (name,) in base.execute("SELECT name FROM done"))
    assert [name for name, count in times.items() if count > 1] == []
    for number, outcome in zip(numbers, told, strict=True):
        assert outcome in {str(number), "unknown"}, outcome
        assert outcome == "unknown" or times[outcome] == 1
    assert {told[number] for number in numbers if number % 10 == 3} == {"unknown"}
    dead = [worker for worker in board.workers if not worker.running]
    assert len(dead) >= KILLED_AT_ANY_TIME
