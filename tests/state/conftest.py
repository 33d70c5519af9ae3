"""Fixtures of the state floor: a process on the board, its streams made."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from callboard.infra.connection import Connection
from callboard.infra.direct import DirectReader
from callboard.infra.settings import Settings
from callboard.infra.store import Store
from callboard.infra.topology import Topology
from callboard.state.blobs import Blobs
from callboard.state.journal import Journal
from callboard.state.shelf import NatsShelf

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:  # so that tests can import what they share, as `tests.support`
    sys.path.append(ROOT)


class Process:
    """What a process has open: connection, store, reader, journal, blobs and shelf."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.connection = Connection(settings, "test")

    async def open(self) -> Process:
        """Connect and make the streams."""
        await self.connection.open()
        self.store = Store(self.connection)
        self.store.start()
        self.reader = DirectReader(self.connection)
        self.journal = Journal(self.store, self.reader)
        self.blobs = Blobs(self.connection, self.store, self.reader, self.settings)
        self.topology = Topology(self.connection, self.settings)
        await self.topology.ensure()
        self.shelf = NatsShelf(self.connection, self.store, self.reader, self.topology, self.settings)
        return self

    async def close(self) -> None:
        """Store what is on its way, and disconnect."""
        await self.shelf.close()
        await self.store.stop(timeout=1.0)
        await self.connection.close()


Join = Callable[..., Awaitable[Process]]


@pytest.fixture
async def join(nats_url: str) -> AsyncIterator[Join]:
    """Opens further processes on the test's server; all are closed after the test."""
    opened: list[Process] = []

    async def join(**settings: Any) -> Process:
        process = Process(Settings.load({}, nats_url=nats_url, **settings))
        opened.append(process)
        return await process.open()

    yield join
    for process in opened:
        await process.close()


@pytest.fixture
async def process(join: Join) -> Process:
    """One process."""
    return await join()
