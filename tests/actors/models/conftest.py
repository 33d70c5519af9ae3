"""What the tests of models share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.support.standin import StandIn


@pytest.fixture
async def engine() -> AsyncIterator[StandIn]:
    """A stand-in for an engine, at a port of its own."""
    async with StandIn() as server:
        yield server
