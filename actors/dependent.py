"""Calls whose arguments are outcomes of others: announced at once, sent when the last of those is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from callboard.actors.failures import text_of
from callboard.infra.errors import DependencyFailed
from callboard.infra.messages.run import Announced, Pending

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.state.journal import Journal

_ANNOUNCED = 1000
"""In one message: it has room for a megabyte."""


class Announcements:
    """Tells the journal which calls of a run wait for others; those of one turn of the loop together.

    Args:
        loop: of the maker; journal, run: where they are told.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, journal: Journal, run: str) -> None:
        self._loop = loop
        self._journal = journal
        self._run = run
        self._due: list[Announced] = []

    def add(self, future: Future[Any]) -> None:
        """A call waits."""
        if not self._due:
            self._loop.call_soon(self._flush)
        self._due.append(Announced(future.id, future.method.where, list(future.deps)))

    def _flush(self) -> None:
        due, self._due = self._due, []
        for start in range(0, len(due), _ANNOUNCED):
            self._journal.put_pending(self._run, Pending(due[start : start + _ANNOUNCED]))


class WhenAllDone:
    """Calls back when the last of some futures has an outcome."""

    __slots__ = ("_left", "_ready")

    def __init__(self, waiting: Iterable[Future[Any]], ready: Callable[[], None]) -> None:
        self._ready = ready
        self._left = 0
        for one in waiting:
            self._left += 1
            one.when_done(self._one)

    def _one(self, _: Future[Any]) -> None:
        self._left -= 1
        if self._left == 0:
            self._ready()


def failed(
    future: Future[Any], needed: Iterable[Future[Any]], path: Sequence[str]
) -> DependencyFailed | None:
    """The error of a call that cannot be made, since an outcome it needs is an error; None if it can be.

    Args:
        needed: have their outcomes; path: of the maker.
    """
    for one in needed:
        error = asyncio.CancelledError() if one.cancelled() else one.exception()
        if error is None:
            continue
        how = "was cancelled" if one.cancelled() else f"failed: {text_of(error)}"
        failure = DependencyFailed(
            f"{future.method.where} was not called: its argument {one.method.where} {how}",
            future=future.id,
            actor=future.method.actor,
            method=future.method.name,
            dependency=one.id,
            path=[*path, future.method.where],
        )
        failure.__cause__ = error
        return failure
    return None
