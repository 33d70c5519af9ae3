"""What a process shares: one connection, and what stands on it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable

import msgspec

from callboard.actors.weaving import Weaver
from callboard.infra import log
from callboard.infra.connection import Connection
from callboard.infra.direct import DirectReader
from callboard.infra.errors import ConnectionLost
from callboard.infra.settings import KIB, Settings
from callboard.infra.store import Store
from callboard.infra.topology import Topology
from callboard.state.blobs import Blobs
from callboard.state.intents import Intents
from callboard.state.journal import Journal
from callboard.state.shelf import NatsShelf

ROOM_FOR_HEADERS = 32 * KIB
"""Of the server's largest message, what is left beside a value that travels inline."""


class Node:
    """A process on the board.

    Args:
        settings: with the server's address.
        name: of the process, a subject token: a host's id, or what a client calls itself.
        on_lost: awaited once if the connection is closed for good.
        migrates: its settings count: streams that differ are brought to their declarations.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        on_lost: Callable[[ConnectionLost], Awaitable[None]] | None = None,
        *,
        migrates: bool = False,
    ) -> None:
        self._migrates = migrates
        self.settings = settings
        self.name = name
        self.connection = Connection(settings, name, on_lost)
        self.topology = Topology(self.connection, settings)

    async def open(self) -> Node:
        """Connect and see that the streams are there.

        Raises:
            ConnectFailed, ServerUnsuitable, StoreRefused: as their texts say.
        """
        await self.connection.open()
        try:
            self.loop = asyncio.get_running_loop()
            self._fit_inline_limit()
            self.store = Store(self.connection)
            self.store.start()
            self.reader = DirectReader(self.connection)
            self.journal = Journal(self.store, self.reader)
            self.intents = Intents(self.store, self.reader)
            self.blobs = Blobs(self.connection, self.store, self.reader, self.settings)
            await self.topology.ensure(migrate=self._migrates)
        except BaseException:
            await self.close()
            raise
        return self

    def _fit_inline_limit(self) -> None:
        """What is above the server's largest message travels by reference, whatever the setting says."""
        most = max(0, self.connection.max_payload - ROOM_FOR_HEADERS)
        asked = self.settings.inline_limit
        if asked > most:
            self.settings = msgspec.structs.replace(self.settings, inline_limit=most)
            log.get("node").warning("inline_limit_lowered", setting=asked, to=most)

    @functools.cached_property
    def shelf(self) -> NatsShelf:
        """Where the managed state of sessions lies."""
        return NatsShelf(self.connection, self.store, self.reader, self.topology, self.settings)

    @functools.cached_property
    def weaver(self) -> Weaver:
        """Long arguments as references to what is stored already."""
        return Weaver(self.reader, self.shelf, self.blobs, self.settings)

    async def close(self) -> None:
        """Store what is still on its way, then close. Idempotent."""
        if hasattr(self, "journal"):
            self.journal.flush()
        if "shelf" in vars(self):
            await self.shelf.close()
        if hasattr(self, "store"):
            await self.store.stop()
        await self.connection.close()
