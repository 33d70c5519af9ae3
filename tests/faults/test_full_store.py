"""The server's disk is full, and then it is not."""

from __future__ import annotations

import asyncio

import pytest
from nats.js.errors import APIError
from tests.faults import app, evidence
from tests.faults.board import STUCK, Board

from callboard.infra.settings import Settings

pytestmark = pytest.mark.fault

_ROOM = 4_000_000


@pytest.fixture
def max_file_store() -> int:
    """Bytes that the server of this file's boards may store."""
    return _ROOM


async def fill(board: Board) -> None:
    """Store something else until the server refuses."""
    async with evidence.connected(board.server.url) as client:
        js = client.jetstream(timeout=STUCK)
        await js.add_stream(name="FILLER", subjects=["filler"])
        size = 100_000
        while size > 50:
            try:
                await js.publish("filler", bytes(size))
            except APIError:
                size //= 4


async def free(board: Board) -> None:
    """Make room again."""
    async with evidence.connected(board.server.url) as client:
        await client.jetstream().delete_stream("FILLER")


@pytest.mark.fault(seeds=(1, 2))
async def test_full_under_load(board: Board) -> None:
    """Nothing can be stored for a while: everything waits, and goes on when there is room."""
    await asyncio.gather(board.hosts(2, "tools"), board.hosts(2, "workflows"))
    await board.hold()
    load = asyncio.create_task(board.load(60, pause=0.05))
    await board.progress(board.chance.randint(5, 100))
    await fill(board)
    board.open_gate()  # one outcome at least is to be stored now
    await board.said("not_stored_yet")
    more = asyncio.create_task(board.load(10))
    await free(board)
    await asyncio.gather(load, more)
    await board.verdict()
    assert all(worker.running for worker in board.workers)


async def test_host_dies_while_full(board: Board) -> None:
    """A host and a driver die while nobody can store that he takes over."""
    (host, _), (driver, _) = await asyncio.gather(board.hosts(2, "tools"), board.hosts(2, "workflows"))
    await board.hold()
    await board.load(60, pause=0.1)
    await board.progress(board.chance.randint(20, 100))
    await fill(board)
    board.open_gate()  # one outcome at least is to be stored now
    await board.said("not_stored_yet")
    await asyncio.gather(host.kill(), driver.kill())
    await asyncio.sleep(Settings().dead_after + 1.0)  # the fault itself lasts so long
    await free(board)
    await board.verdict()


async def test_due_while_full(board: Board) -> None:
    """Retries come due while there is no room, and all who could know of that die."""
    hosts = await board.hosts(2, "tools", "workflows")
    for number in range(10):
        await board.submit("timed", number=number)
    await board.retries_scheduled(5)
    await fill(board)
    await asyncio.sleep(app.PATIENCE + 0.5)  # the fault itself lasts so long
    await asyncio.gather(*(host.kill() for host in hosts))
    await free(board)
    await board.hosts(2, "tools", "workflows")
    await board.verdict()
