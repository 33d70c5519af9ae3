"""Telling how runs have ended: in the bucket of runs, and that their requests are done."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from callboard.infra.errors import StoreRefused

if TYPE_CHECKING:
    from callboard.actors.node import Node
    from callboard.infra.messages.run import RunSummary
    from callboard.infra.pull import Delivered

_TOGETHER = 0.02
_AT_ONCE = 4


class Endings:
    """Tells of the ends of runs, of which the journals know already.

    When many end within 20 ms, all but the first few are told in one go: a message that comes alone costs the
    server several times as much. Nobody waits for it, since clients hear of the end by the journal.

    Args:
        node: of this process.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._ends: list[tuple[RunSummary, Delivered]] = []
        self._lately = 0

    def tell(self, summary: RunSummary, request: Delivered) -> None:
        """Tell how a run has ended, and only then that its request is done."""
        if not self._lately:
            self._node.loop.call_later(_TOGETHER, self._next)
        self._lately += 1
        self._ends.append((summary, request))
        if self._lately <= _AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Tell at once what has been gathered."""
        ends, self._ends = self._ends, []
        for summary, request in ends:
            self._node.journal.put_summary(summary, partial(_told, request))

    def _next(self) -> None:
        self._lately = 0
        self.flush()


def _told(request: Delivered, _: int | StoreRefused) -> None:
    request.ack()  # also where the summary is refused for good: the journal knows the end
