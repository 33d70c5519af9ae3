"""Fixtures for every floor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from callboard.infra.server import EmbeddedServer


@pytest.fixture
def nats_server() -> Iterator[EmbeddedServer]:
    """A real server of the test's own: a free port and a temporary store. Ready in about 50 ms."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def nats_url(nats_server: EmbeddedServer) -> str:
    """Where `nats_server` listens."""
    return nats_server.url
