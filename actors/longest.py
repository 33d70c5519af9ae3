"""The order in which calls leave that are made together: the one with the longest work behind it first.

Who has a branch of many steps, and starts it last, waits for it alone at the end. So of calls that a maker
makes in one turn of the event loop the first to leave is the one with the longest chain of expected times:
its own, and those of the calls that wait for it.

Source: Graham, "Bounds on Multiprocessing Timing Anomalies" (SIAM J. Appl. Math., 1969), of calls without
others behind them; Adam, Chandy and Dickson, "A Comparison of List Schedules for Parallel Processing Systems"
(CACM, 1974), of chains: of the list schedules they have compared it comes nearest to the optimum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from callboard.actors.expecting import Expectations
    from callboard.actors.future import Future
    from callboard.actors.maker import CallMaker


class Made(Protocol):
    """A call that was made: the id of its future, and those of the calls that wait for it."""

    id: str
    consumers: tuple[str, ...]


M = TypeVar("M", bound=Made)

QUICK = 0.001
"""Seconds: a call that is likely to take less leaves at once, since to order it costs as much as it takes."""


def remaining(calls: Iterable[M], made: Mapping[str, M], expected: Callable[[M], float]) -> dict[str, float]:
    """Seconds of the longest chain of calls that begins with each of these, itself included, by id.

    Args:
        made: calls by id: who waits for one is looked up there, and passed over if it is not there.
        expected: seconds that one call takes.
    """
    known: dict[str, float] = {}
    for call in calls:
        way = [call]
        while way:
            last = way[-1]
            after = [made[name] for name in last.consumers if name in made]
            unknown = [one for one in after if one.id not in known]
            if unknown and last.id not in known:  # nobody waits for a call made later, so that this ends
                way += unknown
            else:
                way.pop()
                known[last.id] = expected(last) + max((known[one.id] for one in after), default=0.0)
    return known


class Departures:
    """Calls that leave when this turn of the event loop has ended.

    Args:
        expectations: how long calls take, as far as is known here.
        later: has something done at the end of this turn; done: told when all of them have left.
    """

    def __init__(
        self,
        expectations: Expectations,
        later: Callable[[Callable[[], None]], object],
        done: Callable[[], None],
    ) -> None:
        self._expectations = expectations
        self._later = later
        self._done = done
        self._waiting: list[tuple[CallMaker, Future[Any], str]] = []

    def take(self, maker: CallMaker, future: Future[Any], message_id: str) -> bool:
        """Let a call leave in its order; whether that is done, and not left to who asks."""
        if not len(self._expectations) or self._expected(future) < QUICK:
            return False
        if not self._waiting:
            self._later(self._leave)
        self._waiting.append((maker, future, message_id))
        return True

    def _leave(self) -> None:
        waiting, self._waiting = self._waiting, []
        together: dict[CallMaker, list[tuple[Future[Any], str]]] = {}
        for maker, future, message_id in waiting:
            together.setdefault(maker, []).append((future, message_id))
        for maker, calls in together.items():
            if not _alike(calls):
                left = remaining((future for future, _ in calls), maker.open, self._expected)
                calls.sort(key=lambda call: -left[call[0].id])  # those alike stay as they were made
            for future, message_id in calls:
                maker.put(future, message_id)
        self._done()

    def _expected(self, future: Future[Any]) -> float:
        return self._expectations.seconds(future.method.where, _size(future))


def _alike(calls: list[tuple[Future[Any], str]]) -> bool:
    """Whether as much is expected of each of these calls, more or less, and nobody waits for any of them."""
    kinds = {(future.method, _size(future).bit_length()) for future, _ in calls}
    return len(kinds) == 1 and not any(future.consumers for future, _ in calls)


def _size(future: Future[Any]) -> int:
    """Bytes of a call's arguments; 0: it is not known, perhaps since it waits for others."""
    body = future.body
    return 0 if body is None else body.size or (0 if body.blobs or body.woven else len(body.body))
