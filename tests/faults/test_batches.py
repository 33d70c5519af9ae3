"""kill -9 of hosts in between the commits of one batch."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults.board import STUCK, Board, Worker
from tests.faults.tills import DEATHS, ring_all

pytestmark = pytest.mark.fault

SESSIONS = 6
CALLS = 40


async def _always_two(board: Board) -> None:
    """For a host that has died another one comes."""
    working: list[Worker] = []
    while True:
        working = [worker for worker in working if worker.running]
        working += await board.mortals(2 - len(working), "Till")
        ends = [asyncio.ensure_future(worker.process.wait()) for worker in working]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()


async def test_hosts_die_between_the_commits_of_a_batch(board: Board) -> None:
    """Each item's change is there once, whatever became of the others of its batch."""
    await board.hosts(1, "ringing")
    async with asyncio.TaskGroup() as beside:
        hosts = beside.create_task(_always_two(board))
        told = await ring_all(board.client, SESSIONS, CALLS, 2 * STUCK)
        hosts.cancel()
    for places, rung, counted in told:
        assert places == list(range(1, CALLS + 1))
        assert rung == list(range(CALLS))
        assert counted == CALLS
    dead = [worker for worker in board.workers if not worker.running]
    assert len(dead) == DEATHS
