"""What the tests of actors share."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:  # so that tests can import what they share, as `tests.support`
    sys.path.append(ROOT)

from tests.support.board import Board  # noqa: E402 - needs the path above
from tests.support.gates import begin_anew  # noqa: E402 - as above

MAY_BLOCK = [
    # Once, when a process begins:
    ("callboard/infra/settings.py", "load"),
    ("callboard/actors/declared.py", "code_version"),
    ("callboard/actors/resources.py", "capacity"),
    # A process is started or told of a call through a pipe:
    ("callboard/actors/execute.py", "_in_process"),
    ("callboard/actors/confine.py", "_outcome"),
    # The source lines of a traceback that is logged:
    ("linecache.py", "checkcache"),
    ("linecache.py", "updatecache"),
]
"""Places in the code, by file and function, that may block the event loop for a moment."""


@pytest.fixture(autouse=True)
def no_blocking() -> Iterator[None]:
    """A blocking call that Callboard makes on the event loop fails the test that meets it."""
    with blockbuster_ctx("callboard") as guard:
        for where, function in MAY_BLOCK:
            for one in guard.functions.values():
                one.can_block_in(where, function)
        yield


@pytest.fixture(autouse=True)
def begun_anew() -> None:
    """All gates are shut, and nothing is noted down."""
    begin_anew()


@pytest.fixture
async def board(nats_url: str) -> AsyncIterator[Board]:
    """A board on a server of the test's own; what the test starts ends with it."""
    board = Board(nats_url)
    yield board
    await board.close()
