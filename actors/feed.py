"""When to pull how much: late binding where calls are long, a small look-ahead where they are short.

A call belongs to nobody until someone can start it, so an instance pulls for its free slots only. Where
calls take less than a round trip to the server that would leave slots idle; there it asks ahead for
what it finishes within a few milliseconds, as measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from callboard.infra.pull import Pull

AHEAD = 0.01
"""Seconds of work that an instance pulls ahead."""
MOST_AHEAD = 256
_FAIRNESS = 8
_RATE_WINDOW = 0.25


class Source(Protocol):
    """What calls are asked from: a :class:`Pull`, or one of a simulation.

    Attributes:
        asked: messages asked for that have not come.
    """

    asked: int

    def ask(self, count: int, *, wait: bool) -> None:
        """Ask for at most so many, for those that are there or for those that are yet to come, too."""

    def withdraw(self) -> None:
        """Take back what was asked for."""


class Rate:
    """How many calls an instance finishes in a second, lately.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Nothing is finished at the moment."""
        self._rate = 0.0
        self._finished = 0
        self._since = self._clock()

    def count(self, finished: int) -> None:
        """So many calls have ended."""
        self._finished += finished

    def __call__(self) -> float:
        """Calls a second."""
        now = self._clock()
        span = now - self._since
        if span >= _RATE_WINDOW:
            fresh = self._finished / span
            self._rate = fresh if span > 4 * _RATE_WINDOW else (self._rate + fresh) / 2
            self._finished = 0
            self._since = now
        return max(self._rate, self._finished / max(span, 0.02))

    def ahead(self) -> int:
        """Calls to pull ahead at this rate."""
        return min(MOST_AHEAD, int(self() * AHEAD))


class Steady:
    """One consumer, asked for all there is room for."""

    def __init__(self, pull: Pull, room: Callable[[], int]) -> None:
        self._pull = pull
        self._room = room

    def feed(self) -> None:
        """Ask for what there is room for and has not been asked for yet."""
        room = self._room()
        missing = room - self._pull.asked
        if missing > 0 and (self._pull.asked == 0 or missing * 4 >= room):
            self._pull.ask(missing, wait=True)


class Banded:
    """The consumers of a lane's bands, the most urgent first.

    Args:
        pulls: one for each band.
        room: calls that could start now, those in the mailbox not counted.
        waiting: how many calls of a band and more urgent ones the mailbox holds.
        ahead: calls to pull beyond the free slots; 0 means strictly late binding.
        giving_way: how many calls of a band could run in the place of less urgent ones.
    """

    def __init__(
        self,
        pulls: Sequence[Source],
        room: Callable[[], int],
        waiting: Callable[[int], int],
        ahead: Callable[[], int],
        giving_way: Callable[[int], int],
    ) -> None:
        self._pulls = pulls
        self._room = room
        self._waiting = waiting
        self._ahead = ahead
        self._giving_way = giving_way
        self._probing: list[Source] = []
        self._probes = 0

    def feed(self) -> None:
        """Ask for what can be used now. Called whenever a slot is free or a call has come."""
        ahead = self._ahead()
        if ahead > 0:
            self._probing.clear()
            self._feed_ahead(self._room() + ahead)
        else:
            self._feed_late(self._room() - self._waiting(len(self._pulls) - 1))

    def ended(self, pull: Source) -> None:
        """A request has ended with less than it asked for."""
        if self._probing and self._probing[0] is pull:
            self._probing.pop(0)
            room = self._room() - self._waiting(len(self._pulls) - 1)
            if room > 0 and not self._probing:
                self._wait_for(room)
            elif room > 0:
                self._probing[0].ask(room, wait=False)
            else:
                self._probing.clear()
        else:
            self.feed()

    def _feed_ahead(self, room: int) -> None:
        for band, pull in enumerate(self._pulls):
            # One at least, so that calls of every band come into the mailbox and age there.
            want = max(1, room - self._waiting(band))
            missing = want - pull.asked
            if missing > 0 and (pull.asked == 0 or missing * 4 >= want):
                pull.ask(missing, wait=True)

    def _feed_late(self, room: int) -> None:
        if room <= 0:
            self._probing.clear()
            self._listen_for_urgent()
        elif self._probing and self._probing[0].asked:
            return
        elif any(pull.asked for pull in self._pulls):
            self._wait_for(room)
        else:
            self._probes += 1
            self._probing = list(self._pulls)
            if self._probes % _FAIRNESS == 0:  # so that no band starves in the stream
                self._probing.reverse()
            self._probing[0].ask(room, wait=False)

    def _listen_for_urgent(self) -> None:
        """Ask for nothing but what would stop calls that run."""
        for band, pull in enumerate(self._pulls):
            want = self._giving_way(band) - self._waiting(band)
            if want <= 0:
                pull.withdraw()
            elif want > pull.asked:
                pull.ask(want - pull.asked, wait=True)

    def _wait_for(self, room: int) -> None:
        for pull in self._pulls:
            pull.ask(room - pull.asked, wait=True)
