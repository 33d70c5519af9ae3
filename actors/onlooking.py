"""A process that only looks: what would be stored, taken away or told to others is not."""

from __future__ import annotations

from typing import Any

from callboard.actors.node import Node
from callboard.actors.weaving import Weaver
from callboard.infra.store import OnStored, Store
from callboard.infra.topology import Topology
from callboard.state.blobs import Blobs
from callboard.state.journal import Journal


class Onlooker(Node):
    """Reads with the connection of a node, and writes nothing.

    Args:
        node: open, and to be closed by its owner.
    """

    def __init__(self, node: Node) -> None:
        self.settings, self.name = node.settings, node.name
        self.connection, self.loop, self.reader = node.connection, node.loop, node.reader
        self.topology = _Untouched(node.connection, node.settings)
        self.store = _Unstored(node.connection)
        self.journal = Journal(self.store, self.reader)
        self.blobs = Blobs(self.connection, self.store, self.reader, self.settings)
        # It reads states besides, as the node does.
        self.weaver = Weaver(self.reader, node.shelf, self.blobs, self.settings)


class _Unstored(Store):
    """Takes everything, and stores nothing."""

    def put(
        self,
        subject: str,
        body: bytes,
        head: bytes | None = None,
        on_stored: OnStored | None = None,
        ack: str = "",
    ) -> None:
        """Nothing."""

    def put_together(self, subject: str, body: bytes, head: bytes, on_stored: OnStored) -> None:
        """Nothing."""

    async def stored(self, subject: str, body: bytes, head: bytes | None = None, ack: str = "") -> int:
        """Nothing, at no place."""
        return 0


class _Untouched(Topology):
    """Changes nothing."""

    async def api(self, verb: str, body: Any = None) -> dict[str, Any]:
        """Nothing is asked of the server."""
        return {}
