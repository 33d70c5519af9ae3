"""The proxy itself: what passes, what is late, and what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.faults.proxy import Proxy

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Streams]]
SOON = 30.0


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it gets; its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            writer.write(chunk)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def proxy(echo: int) -> AsyncIterator[Proxy]:
    """Before that server."""
    async with Proxy(echo, seed=1) as proxy:
        yield proxy


@pytest.fixture
async def connect(proxy: Proxy) -> AsyncIterator[Connect]:
    """Makes connections through the proxy."""
    made: list[asyncio.StreamWriter] = []

    async def connect() -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
        made.append(writer)
        return reader, writer

    yield connect
    for writer in made:
        writer.transport.abort()


async def test_passes_everything_in_order(proxy: Proxy, connect: Connect) -> None:
    """Late, and in pieces of a few bytes, but whole."""
    proxy.delay, proxy.piece = 0.001, 50
    reader, writer = await connect()
    sent = bytes(range(256)) * 8
    writer.write(sent)
    async with asyncio.timeout(SOON):
        assert await reader.readexactly(len(sent)) == sent


async def test_partition_holds_back(proxy: Proxy, connect: Connect) -> None:
    """Nothing passes during a partition, and everything afterwards."""
    reader, writer = await connect()
    proxy.partition()
    writer.write(b"held")
    waiting = asyncio.ensure_future(reader.readexactly(4))
    done, _ = await asyncio.wait((waiting,), timeout=0.1)
    assert not done
    proxy.heal()
    async with asyncio.timeout(SOON):
        assert await waiting == b"held"


async def test_cut_ends_connections(proxy: Proxy, connect: Connect) -> None:
    """Both ends see it, and a new connection works."""
    reader, writer = await connect()
    writer.write(b"x")
    await reader.readexactly(1)
    proxy.cut()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        async with asyncio.timeout(SOON):
            await reader.readexactly(1)
    again, other = await connect()
    other.write(b"y")
    async with asyncio.timeout(SOON):
        assert await again.readexactly(1) == b"y"
    assert proxy.connections == 2


async def test_refuses(proxy: Proxy, connect: Connect) -> None:
    """A refused connection ends at once."""
    proxy.refusing = True
    reader, _ = await connect()
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        async with asyncio.timeout(SOON):
            await reader.readexactly(1)
