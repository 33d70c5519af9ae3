"""Schedules that the server has forgotten.

nats-server (2.15) drops a schedule that comes due while the store has no room: the message stays in the
stream and never fires, unless the server starts again. So whoever was refused for want of room looks
for such messages afterwards and stores them once more, which makes them fire at once. Nobody may have
been refused, or nobody who was may be left: so the longest running host looks now and then, some at a
time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from callboard.actors.node import Node
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.direct import Stored
from callboard.infra.errors import CallboardError, Fenced

_AGAIN = 2.0
_OVERDUE = 2.0
_ROUTINE = 30.0
_SOME = 500
_KEPT = frozenset({H.SCHEDULE, H.SCHEDULE_TARGET, H.TRACEPARENT})


class Overdue:
    """Fires overdue schedules that have been forgotten.

    Args:
        node: of this process, open.
        in_charge: whether this is the process that looks though it was not refused.
    """

    def __init__(self, node: Node, in_charge: Callable[[], bool]) -> None:
        self._node = node
        self._in_charge = in_charge
        self._looked_at_all = 0.0
        self._looked = time.monotonic() - _ROUTINE + _AGAIN
        self._after = 0
        self._log = log.get("overdue")

    @property
    def due(self) -> bool:
        """Whether it is time to look: some seconds after the last refusal, once; and now and then."""
        now = time.monotonic()
        return self._refused(now) or (now - self._looked > _ROUTINE and self._in_charge())

    def _refused(self, now: float) -> bool:
        refused = self._node.store.full_at
        return refused > self._looked_at_all and now - refused > _AGAIN

    async def look(self) -> None:
        """Fire what should have fired. Several processes may do so at once: each schedule fires once."""
        self._looked = now = time.monotonic()
        everything = self._refused(now)
        if everything:
            self._looked_at_all, self._after = now, 0
        fired = 0
        try:
            for stored in await self._read(None if everything else _SOME):
                if _due_at(stored) < time.time() - _OVERDUE:
                    fired += await self._fire(stored)
        except CallboardError as error:
            if everything:
                self._looked_at_all = 0.0
            self._log.warning("schedules_unread", error=str(error))
        if fired:
            self._log.warning("overdue_schedules_fired", count=fired)

    async def _read(self, limit: int | None) -> list[Stored]:
        """All schedules, or so many after those of the last time."""
        read = self._node.reader.read
        found = await read(subjects.CALLS, subjects.timer(">"), self._after, limit)
        self._after = found[-1].sequence if limit is not None and len(found) == limit else 0
        return found

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
