"""Fixtures of the ground: open connections and what stands on them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from callboard.infra.connection import Connection
from callboard.infra.settings import Settings
from callboard.infra.store import Store
from callboard.infra.topology import Topology

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:  # so that tests can import what they share, as `tests.support`
    sys.path.append(ROOT)

Connect = Callable[..., Awaitable[Connection]]


@pytest.fixture
def settings(nats_url: str) -> Settings:
    """Settings for the test's own server; the watchdog looks often, and is patient with a busy machine."""
    return Settings.load({}, nats_url=nats_url, rtt_every=0.05, rtt_timeout=5.0)


@pytest.fixture
async def connect(settings: Settings) -> AsyncIterator[Connect]:
    """Opens connections; all are closed after the test."""
    opened: list[Connection] = []

    async def connect(name: str = "test", **options: object) -> Connection:
        connection = Connection(settings, name, **options)  # type: ignore[arg-type]
        opened.append(connection)
        return await connection.open()

    yield connect
    for connection in opened:
        await connection.close()


@pytest.fixture
async def connection(connect: Connect) -> Connection:
    """One open connection."""
    return await connect()


@pytest.fixture
async def store(connection: Connection) -> AsyncIterator[Store]:
    """A store on that connection."""
    store = Store(connection)
    store.start()
    yield store
    await store.stop(timeout=0.05)


@pytest.fixture
def topology(connection: Connection, settings: Settings) -> Topology:
    """The topology of the test's server, nothing created yet."""
    return Topology(connection, settings)


@pytest.fixture
async def stream(topology: Topology) -> str:
    """An empty stream ``T`` that takes ``t.>``."""
    await topology.api(
        "STREAM.CREATE.T",
        {"name": "T", "subjects": ["t.>"], "allow_direct": True, "storage": "file", "num_replicas": 1},
    )
    return "T"
