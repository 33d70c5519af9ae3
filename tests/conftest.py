"""Fixtures for every floor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from callboard.infra.server import EmbeddedServer

# A machine that is busy makes no test fail.
settings.register_profile("callboard", deadline=None)
settings.load_profile("callboard")


@pytest.fixture(autouse=True)
def _logging_of_its_own() -> Iterator[None]:
    """Every event, so that tests may look for it, whatever a test before has set up."""
    structlog.reset_defaults()
    plain: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.KeyValueRenderer(),
    ]  # reads no files
    structlog.configure(processors=plain, cache_logger_on_first_use=False)
    yield
    structlog.reset_defaults()


@pytest.fixture
def nats_server() -> Iterator[EmbeddedServer]:
    """A real server of the test's own: a free port and a temporary store. Ready in about 50 ms."""
    with EmbeddedServer() as server:
        yield server
        server.kill()  # ending it gently takes longer than most tests


@pytest.fixture
def nats_url(nats_server: EmbeddedServer) -> str:
    """Where `nats_server` listens."""
    return nats_server.url
