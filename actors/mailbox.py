"""The mailbox of an instance: which call goes next.

Order: by band, then by priority, then by arrival; and waiting counts. A call's rank is the time it began
to wait plus a handicap for its band and priority, so that one second of waiting makes up for one step of
priority and ten for a band. Ranks never change while a call waits, so ageing costs nothing, and no call
can be passed for ever.

Of calls alike in that, those that are expected to be short go first (Smith, "Various Optimizers for
Single-Stage Production", 1956: the mean wait is the least so): what is expected to take a second is half a
step of priority behind what takes no time, and nothing is a whole one behind.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

STEP = 1.0
"""Seconds of waiting that make up for one step of priority."""
BAND = 10.0
"""Seconds of waiting that make up for one band."""
MOST = 9
"""Priorities are taken between minus this and this, so that no priority outweighs a band."""


class Waiting(Protocol):
    """What the mailbox needs to know of a call.

    Attributes:
        band: 0 is the most urgent; priority: greater goes first.
        since: unix seconds, when it began to wait.
        longer: seconds, for how long it is expected to take, see :func:`handicap`.
    """

    band: int
    priority: int
    since: float
    longer: float


C = TypeVar("C", bound=Waiting)


def rank(call: Waiting) -> float:
    """What calls are ordered by, smallest first: when it began to wait plus the handicap."""
    return call.since + call.longer + call.band * BAND - max(-MOST, min(MOST, call.priority)) * STEP


def handicap(expected: float) -> float:
    """Seconds that a call waits longer which takes so many: as many if they are few, less than a step."""
    return STEP * expected / (expected + STEP)


class Mailbox(Generic[C]):
    """Calls that have been pulled and not started."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, C]] = []
        self._arrivals = 0
        self._bands = [0, 0, 0]

    def __len__(self) -> int:
        return len(self._heap)

    def up_to(self, band: int) -> int:
        """How many calls of this band and more urgent ones wait."""
        return sum(self._bands[: band + 1])

    @property
    def by_band(self) -> tuple[int, int, int]:
        """How many calls of each band wait."""
        urgent, middle, patient = self._bands
        return urgent, middle, patient

    def push(self, call: C) -> None:
        """A call has arrived."""
        self._arrivals += 1
        self._bands[call.band] += 1
        heapq.heappush(self._heap, (rank(call), self._arrivals, call))

    def peek(self) -> C:
        """The call that goes next; the mailbox must not be empty."""
        return self._heap[0][2]

    def pop(self) -> C:
        """Take the call that goes next; the mailbox must not be empty."""
        call = heapq.heappop(self._heap)[2]
        self._bands[call.band] -= 1
        return call

    def take(self, fits: Callable[[C], bool], most: int) -> list[C]:
        """Take up to ``most`` calls that fit, in order."""
        taken: list[C] = []
        kept: list[tuple[float, int, C]] = []
        while self._heap and len(taken) < most:
            entry = heapq.heappop(self._heap)
            if fits(entry[2]):
                taken.append(entry[2])
            else:
                kept.append(entry)
        for entry in kept:
            heapq.heappush(self._heap, entry)
        for call in taken:
            self._bands[call.band] -= 1
        return taken

    def reorder(self, changed: Callable[[C], bool]) -> bool:
        """Have each looked at, which may change its band and priority; whether one was.

        Args:
            changed: whether it has changed the call.
        """
        if not sum([changed(call) for _, _, call in self._heap]):
            return False
        self._heap = [(rank(call), arrival, call) for _, arrival, call in self._heap]
        heapq.heapify(self._heap)
        self._bands = [0, 0, 0]
        for _, _, call in self._heap:
            self._bands[call.band] += 1
        return True

    def first(self, fits: Callable[[C], bool]) -> C | None:
        """The call that goes next among those that fit."""
        found = min((entry for entry in self._heap if fits(entry[2])), default=None)
        return found[2] if found else None

    def all(self) -> list[C]:
        """All that wait, in no order; for other threads, too."""
        return [call for _, _, call in list(self._heap)]

    def count(self, fits: Callable[[C], bool]) -> int:
        """How many waiting calls fit."""
        return sum(1 for entry in self._heap if fits(entry[2]))
