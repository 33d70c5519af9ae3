"""FastStream on a connection that is there already, and its logs through structlog."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from faststream.nats import NatsBroker
from nats.aio.client import Client

from callboard.infra import log


class SharedBroker(NatsBroker):
    """A broker on a client that belongs to somebody else.

    One connection has one watchdog, one way to reconnect and one place where its errors are told.

    Args:
        client: open by the time the broker starts, and until it has stopped.
        options: of the broker.
    """

    def __init__(self, client: Client, url: list[str], **options: Any) -> None:
        self._shared = client
        super().__init__(url, logger=StructLogger(), log_level=logging.DEBUG, **options)

    async def _connect(self) -> Client:
        self.config.connect(self._shared)
        return self._shared

    async def stop(
        self,
        exc_type: type[BaseException] | None = None,
        exc_val: BaseException | None = None,
        exc_tb: TracebackType | None = None,
    ) -> None:
        """Stop the subscribers. The connection stays open, where NatsBroker's own would be closed."""
        await super(NatsBroker, self).stop(exc_type, exc_val, exc_tb)
        self._connection = None
        self.config.disconnect()

    async def drain(self, grace: float) -> None:
        """Stop, but let handlers end within so many seconds."""
        self.config.broker_config.graceful_timeout = grace
        await self.stop()


class StructLogger:
    """What FastStream takes for a logger."""

    def __init__(self) -> None:
        self._log = log.get("faststream")

    def log(
        self, level: int, msg: Any, /, *, exc_info: Any = None, extra: Mapping[str, Any] | None = None
    ) -> None:
        """Pass an event on; what FastStream tells of its ordinary work, twice a message, is left out."""
        if level >= logging.WARNING:
            fields = {key: value for key, value in (extra or {}).items() if value}
            self._log.log(level, str(msg), exc_info=exc_info, **fields)
