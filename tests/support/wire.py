"""A bare connection to the server: the protocol itself, since clients refuse to send what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Wire:
    """A connection on which anything can be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, frame: bytes) -> None:
        """Send, and wait until the server has read it."""
        self._writer.write(frame + b"PING\r\n")
        await self._writer.drain()
        while await self._reader.readline() != b"PONG\r\n":
            pass


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Wire]:
    """Connect to a server."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    await reader.readline()
    wire = Wire(reader, writer)
    await wire.send(b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n')
    yield wire
    writer.close()
    await writer.wait_closed()


def headed(subject: bytes, head: bytes, body: bytes = b"", reply: bytes = b"_R.x") -> bytes:
    """A message with these very header bytes."""
    size = len(head)
    return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (subject, reply, size, size + len(body), head, body)


def plain(subject: bytes, body: bytes = b"", reply: bytes = b"_R.x") -> bytes:
    """A message without headers."""
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(body), body)
