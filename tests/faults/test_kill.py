"""kill -9, of everything, under load."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.board import Board

pytestmark = pytest.mark.fault


@pytest.mark.fault(seeds=(1, 2))
async def test_nothing(board: Board) -> None:
    """No fault."""
    await asyncio.gather(board.hosts(2, "tools"), board.hosts(1, "workflows"))
    await board.load(60)
    await board.verdict()
