"""A board with a host and a gateway in this process, and a plain nats-py client that asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import nats
import pytest
from tests.actors.gateway.support import WORKFLOWS, Asker, gates
from tests.support.board import Board
from tests.support.waiting import SOON

from callboard.actors.gateway import Gateway


def pytest_itemcollected(item: pytest.Item) -> None:
    """nats-py's micro service asks for the time in a way that Python 3.12 has deprecated."""
    item.add_marker(pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"))


@pytest.fixture(autouse=True)
def fresh_gates() -> None:
    """Every test has its gates closed, on its own event loop."""
    gates.entered.clear()
    gates.open = asyncio.Event()


@pytest.fixture
async def ask(nats_url: str) -> AsyncIterator[Asker]:
    """Asks with core NATS alone."""
    connection = await nats.connect(nats_url)
    yield Asker(connection)
    await connection.close()


@pytest.fixture
async def gateway(board: Board) -> AsyncIterator[Gateway]:
    """A gateway, and a host that drives all the workflows."""
    await board.host(*WORKFLOWS)
    async with Gateway(board.settings(dead_after=SOON)) as gateway:
        yield gateway
        gates.open.set()
