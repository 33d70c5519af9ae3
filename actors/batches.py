"""What starts next: one call, or a batch when it is full or its first call has waited long enough."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callboard.actors.declared import Method
    from callboard.actors.inbound import Call
    from callboard.actors.mailbox import Mailbox


class Batches:
    """Takes what starts next from a mailbox.

    Args:
        methods: of the actor.
        wake: called when it is worth asking again.
    """

    def __init__(self, mailbox: Mailbox[Call], methods: Iterable[Method], wake: Callable[[], None]) -> None:
        self._mailbox = mailbox
        self._batchable = [method for method in methods if method.directives.batchable]
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None

    def next(self) -> list[Call]:
        """The calls to hand over together, or none while it is worth waiting for more."""
        method = self._mailbox.peek().method
        if not method.directives.batchable:
            return [self._mailbox.pop()]
        return (
            self._batch(method)
            or self._mailbox.take(lambda call: not call.method.directives.batchable, 1)
            or next((batch for other in self._batchable if (batch := self._batch(other))), [])
        )

    def is_due(self, method: Method) -> bool:
        """Whether a call of this method may start; if a batch waits for more, this is asked again then."""
        directives = method.directives
        if not directives.batchable:
            return True
        first = self._mailbox.first(lambda call: call.method is method)
        if first is None:
            return False
        waited = time.monotonic() - first.arrived
        if waited >= directives.max_wait:
            return True
        if self._mailbox.count(lambda call: call.method is method) >= directives.max_batch:
            return True
        self._wake_in(directives.max_wait - waited)
        return False

    def _batch(self, method: Method) -> list[Call]:
        if not self.is_due(method):
            return []
        return self._mailbox.take(lambda call: call.method is method, method.directives.max_batch)

    def _wake_in(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._wake()
