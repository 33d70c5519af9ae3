"""A board with the sample market on it, and the module of stubs that is written from its registry."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from callboard.actors.client import connect
from callboard.actors.host import Host
from callboard.actors.node import Node
from callboard.actors.stubs import generate

ROOT = str(Path(__file__).resolve().parents[3])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from tests.actors.stubs.support import SAMPLES, Load, declared_in, imported  # noqa: E402 - needs the path


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Makes a module of a text, imported under a name until the test ends."""
    loaded = []

    def load(name: str, text: str) -> ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        loaded.append(name)
        return imported(name, path)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


@pytest.fixture
def market() -> Iterator[ModuleType]:
    """The agents' side."""
    yield imported("market", SAMPLES / "market.py")
    sys.modules.pop("market", None)


@pytest.fixture
async def hosted(market: ModuleType, nats_url: str) -> AsyncIterator[str]:
    """A server with the market on it; gives its address."""
    host = Host(declared_in(market), nats_url)
    await host.start()
    yield nats_url
    await host.stop(grace=1)


@pytest.fixture
async def node(hosted: str) -> AsyncIterator[Node]:
    """A client's node on that server."""
    async with connect(hosted) as client:
        yield client.node


@pytest.fixture
async def board(node: Node) -> str:
    """The text of the stubs of all that the market has."""
    return await generate(node, [])
