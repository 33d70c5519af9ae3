"""A board with the sample market on it, and the module of stubs that is written from its registry."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from callboard.actors.client import connect
from callboard.actors.declare import Declaration, declaration
from callboard.actors.host import Host
from callboard.actors.node import Node
from callboard.actors.registry import describe
from callboard.actors.stubs import generate
from callboard.actors.stubs.module import write

SAMPLES = Path(__file__).parent / "samples"

Load = Callable[[str, str], ModuleType]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Makes a module of a text, to be imported under a name until the test ends."""
    loaded = []

    def load(name: str, text: str) -> ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        loaded.append(name)
        return _imported(name, path)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


def _imported(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def market() -> Iterator[ModuleType]:
    """The agents' side."""
    yield _imported("market", SAMPLES / "market.py")
    sys.modules.pop("market", None)


def declared_in(module: ModuleType) -> list[Declaration]:
    """All declarations of a module, by name."""
    found = {d.name: d for d in map(declaration, vars(module).values()) if d is not None}
    return [found[name] for name in sorted(found)]


def stubs_of(*declared: Declaration) -> str:
    """The module of stubs for these, without a server in between."""
    return write([describe(one) for one in declared], everything=False)


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
