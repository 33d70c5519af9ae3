"""Schedules that the server has forgotten.

nats-server (2.15) drops a schedule that comes due while the store has no room: the message stays in the
stream and never fires, unless the server starts again. So whoever was refused for want of room looks
for such messages afterwards and stores them once more, which makes them fire at once.
"""

from __future__ import annotations

import time
from datetime import datetime

from callboard.actors.node import Node
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.direct import Stored
from callboard.infra.errors import CallboardError, Fenced

_AGAIN = 2.0
_OVERDUE = 2.0
_KEPT = frozenset({H.SCHEDULE, H.SCHEDULE_TARGET, H.TRACEPARENT})


class Overdue:
    """Fires overdue schedules after a time without room.

    Args:
        node: of this process, open.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._looked = 0.0
        self._log = log.get("overdue")

    @property
    def due(self) -> bool:
        """Whether it is time to look: some seconds after the last refusal, once."""
        refused = self._node.store.full_at
        return refused > self._looked and time.monotonic() - refused > _AGAIN

    async def look(self) -> None:
        """Fire what should have fired. Several processes may do so at once: each schedule fires once."""
        self._looked = time.monotonic()
        fired = 0
        try:
            for stored in await self._node.reader.read(subjects.CALLS, subjects.timer(">")):
                if _due_at(stored) < time.time() - _OVERDUE:
                    fired += await self._fire(stored)
        except CallboardError as error:
            self._looked = 0.0
            self._log.warning("schedules_unread", error=str(error))
        if fired:
            self._log.warning("overdue_schedules_fired", count=fired)

    async def _fire(self, stored: Stored) -> bool:
        kept = [(k, v) for k, v in stored.headers.items() if k.startswith("Cb-") or k in _KEPT]
        head = H.encode([*kept, (H.EXPECTED_SEQUENCE, str(stored.sequence))])
        try:
            await self._node.store.stored(stored.subject, stored.body, head)
        except Fenced:
            return False  # somebody else has
        return True


def _due_at(stored: Stored) -> float:
    """When a schedule should fire, unix seconds; the far future for what is none."""
    kind, _, at = stored.headers.get(H.SCHEDULE, "").partition(" ")
    try:
        return datetime.fromisoformat(at).timestamp() if kind == "@at" else float("inf")
    except ValueError:
        return float("inf")
