"""Calls that kill their host, and what is too large for a message."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults import app
from tests.faults.board import Board
from tests.faults.checker import Allowed

from callboard.infra.errors import Poisoned

pytestmark = pytest.mark.fault


async def test_call_that_kills_its_host(board: Board) -> None:
    """After a few deaths it goes to the dead letters, its caller is told, and everything else goes on."""
    await asyncio.gather(
        board.hosts(4, "deadly", max_deliver=2), board.hosts(1, "tools"), board.hosts(2, "workflows")
    )
    await board.submit("dying", number=1)
    await board.load(20, pause=0.05)
    found = await board.verdict(Allowed(dead={"too_many_deliveries": 1}, starts=2))
    (letter,) = found.dead
    assert letter.actor == "deadly"
    assert sum(not worker.running for worker in board.workers) == 2
    assert app.expected("dying", {"number": 1}) is Poisoned


async def test_what_is_too_large(board: Board) -> None:
    """Errors of megabytes, and thousands of calls cancelled at once, cost nobody the connection."""
    await asyncio.gather(board.hosts(1, "tools"), board.hosts(1, "workflows"))
    await board.submit("shouting", number=1, at_home=True)
    await board.submit("shouting", number=1, at_home=False)
    await board.submit("crowd", number=1, width=30_000)
    await board.load(20, pause=0.05)
    await board.settled()
    await board.hosts(1, "nobody")  # finds that nobody waits for these calls any more
    await board.verdict()
    assert not any(worker.said("disconnected") for worker in board.workers)
