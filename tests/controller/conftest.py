"""What the tests of the controller share."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:  # so that tests can import what they share, as `tests.support`
    sys.path.append(ROOT)

from tests.support.board import Board  # noqa: E402 - needs the path above


@pytest.fixture
async def board(nats_url: str) -> AsyncIterator[Board]:
    """A board on a server of the test's own; what the test starts ends with it."""
    board = Board(nats_url)
    yield board
    await board.close()
