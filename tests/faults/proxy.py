"""A TCP proxy between a process and the server, which can be slow, torn, silent or gone."""

from __future__ import annotations

import asyncio
import contextlib
import random
from types import TracebackType
from typing import Self

_CHUNK = 64 * 1024


class Proxy:
    """Forwards connections to a port on this machine. Use with ``async with``.

    Its faults are attributes; a change holds from the next chunk on, for every connection.

    Args:
        port: of the server.
        seed: of delays and sizes.

    Attributes:
        delay: each chunk is held back for up to so many seconds; order is kept.
        rate: bytes a second towards the client, for all its connections together; 0 for no limit.
        piece: chunks are cut into pieces of at most so many bytes; 0 to leave them whole.
        refusing: new connections are closed at once.
        most: so many connections are let in, further ones are refused; None for no limit.
    """

    def __init__(self, port: int, seed: int) -> None:
        self.delay = 0.0
        self.rate = 0
        self.piece = 0
        self.refusing = False
        self.most: int | None = None
        self.connections = 0
        """How many have been made so far."""
        self._port = port
        self._chance = random.Random(seed)
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where clients connect."""
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def partition(self) -> None:
        """Nothing passes, and nobody is told: what is sent waits, as TCP would send it again."""
        self._open.clear()

    def heal(self) -> None:
        """Everything passes again, what has waited first."""
        self._open.set()

    def cut(self) -> None:
        """End all connections at once; what was on its way is lost."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing or (self.most is not None and self.connections > self.most):
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        pumps = {
            asyncio.create_task(self._pump(reader, back, slow=False)),
            asyncio.create_task(self._pump(there, writer, slow=True)),
        }
        self._pumps |= pumps
        for pump in pumps:
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, slow: bool) -> None:
        """Forward one direction to its end."""
        with contextlib.suppress(OSError):
            while chunk := await source.read(_CHUNK):
                for piece in self._pieces(chunk):
                    if self.delay:
                        await asyncio.sleep(self._chance.uniform(0, self.delay))
                    if slow and self.rate:
                        await asyncio.sleep(len(piece) / self.rate)
                    await self._open.wait()
                    sink.write(piece)
                    await sink.drain()
        await self._open.wait()
        self._writers.discard(sink)
        with contextlib.suppress(OSError):
            sink.close()
            await sink.wait_closed()

    def _pieces(self, chunk: bytes) -> list[bytes]:
        if not self.piece:
            return [chunk]
        pieces = []
        while chunk:
            size = self._chance.randint(1, self.piece)
            pieces.append(chunk[:size])
            chunk = chunk[size:]
        return pieces
