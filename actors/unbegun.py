"""Calls that wait in an instance and may still go to another host.

The event loop takes a call out when its handler takes its first step, the heart's thread when it gives it
away (``giving.py``). ``dict.pop`` is atomic, so one of them has it, never both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callboard.actors.host import Host
    from callboard.actors.inbound import Call

_TOGETHER = 0.005
_DELIVERIES = 2
"""A call delivered more often may be deadly: its message stays, and with it the count."""


def is_late(host: Host, call: Call, after: float) -> bool:
    """Whether a call has waited in a host, or in the host's lane, for so many seconds."""
    if call.arrived < time.monotonic() - after:
        return True
    return call.delivered.pull is host.lane and call.stored_at < time.time() - after


def next_late(calls: Iterable[Call], after: float) -> float:
    """Seconds until the next of them has been in its host for so long; those that came together count as one.

    If all have, it is the time after which they are told of again.
    """
    limit = time.monotonic() - after
    return max(
        _TOGETHER, min((call.arrived - limit for call in calls if call.arrived > limit), default=after)
    )


class Unbegun:
    """Who waits, by sequence.

    Args:
        host: where.
        bound: they go nowhere, since their actor keeps something for their sessions.
        full: whether there is no slot for them.
    """

    def __init__(self, host: Host, full: Callable[[], bool], *, bound: bool) -> None:
        self._host = host
        self._full = full
        self._bound = bound
        self._calls: dict[int, Call] = {}
        self._watching = self._telling = False

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, call: Call) -> None:
        """It waits from now on, or again."""
        if self._bound:
            return
        call.claimed = False
        self._calls[call.delivered.sequence] = call
        if self._full():
            self._look_soon()
            after = self._host.node.settings.steal_after
            if after and not self._telling and is_late(self._host, call, after):  # it has waited in the lane
                self._telling = True
                self._host.node.loop.call_soon(self._tell)

    def claim(self, call: Call) -> bool:
        """Whether it is here still; then it stays. For the event loop."""
        if self._bound or call.claimed:
            return True
        call.claimed = self._calls.pop(call.delivered.sequence, None) is not None
        return call.claimed

    def take(self, call: Call) -> bool:
        """Whether it can be given away; then it is gone from here. For the heart."""
        return self._calls.pop(call.delivered.sequence, None) is not None

    def overdue(self, after: float) -> list[Call]:
        """Those that have waited for so many seconds. For the heart."""
        waiting = list(self._calls.values())
        return [c for c in waiting if is_late(self._host, c, after) and c.delivered.delivered <= _DELIVERIES]

    def _look_soon(self) -> None:
        """Have it looked whether they wait too long, when the next of them does."""
        after = self._host.node.settings.steal_after
        if after and not self._watching:
            self._watching = True
            self._host.node.loop.call_later(next_late(list(self._calls.values()), after), self._look)

    def _tell(self) -> None:
        self._telling = False
        self._host.tell_of_waiting()

    def _look(self) -> None:
        self._watching = False
        if self._calls and self._full():
            self._host.tell_of_waiting()
            self._look_soon()
