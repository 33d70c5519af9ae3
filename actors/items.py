"""The items of a batch: whose session a batchable handler works for, one at a time.

A batch serves many sessions at once, so none of them is the handler's own. Code says whose turn it is:
``for text in callboard.each(texts)`` goes through them all, ``with callboard.item(2)`` takes one. Inside,
managed state is that of the item's session, and so are the calls made there. Outside there is no state,
rather than somebody's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

from callboard.actors.scope import chosen
from callboard.infra.errors import BatchMisused
from callboard.state.managed import current as state

if TYPE_CHECKING:
    from callboard.state.turn import Turn

T = TypeVar("T")


class _Batch:
    """A batch while its handler runs.

    Args:
        sessions: of its items; turns: their state, none where the agent has no managed state.
    """

    def __init__(self, sessions: Sequence[str], turns: Sequence[Turn | None]) -> None:
        self.sessions = sessions
        self.turns = turns or [None] * len(sessions)

    def enter(self, place: int) -> None:
        """From here on, code works for this item."""
        state.set(self.turns[place])
        chosen.set(chosen.get()._replace(session=self.sessions[place]))


_batch: ContextVar[_Batch | None] = ContextVar("callboard_batch", default=None)


@contextlib.contextmanager
def serving(sessions: Sequence[str], turns: Sequence[Turn | None]) -> Iterator[None]:
    """Let the code inside be a handler's that has these items."""
    outer, known = _batch.get(), state.get()
    _batch.set(_Batch(sessions, turns))
    state.set(None)
    try:
        yield
    finally:
        _batch.set(outer)
        state.set(known)


def each(values: Iterable[T]) -> Iterator[T]:
    """In a batchable handler: go through a list that has one entry for each item, each in its item's session.

    It may be the handler's argument or anything made of it, and be done as often as needed: once to collect
    what a model is to be asked, once to keep its answers.

    Args:
        values: as many as the batch has items, in the same order.

    Raises:
        BatchMisused: they are more or fewer, or this is no batchable handler.
    """
    batch, found = _here(), list(values)
    if len(found) != len(batch.sessions):
        raise BatchMisused(
            f"each() was given {len(found)} values and the batch has {len(batch.sessions)} items: give it "
            "one for each item, in their order"
        )
    return _in_turn(batch, found)


def _in_turn(batch: _Batch, values: Sequence[T]) -> Iterator[T]:
    with _kept():
        for place, value in enumerate(values):
            batch.enter(place)
            yield value


@contextlib.contextmanager
def item(place: int) -> Iterator[None]:
    """In a batchable handler: work in the session of one item inside of the ``with`` block.

    Args:
        place: of the item in the batch, from 0.

    Raises:
        BatchMisused: there is no such item, or this is no batchable handler.
    """
    batch = _here()
    if not 0 <= place < len(batch.sessions):
        raise BatchMisused(f"there is no item {place}: the batch has {len(batch.sessions)}, counted from 0")
    with _kept():
        batch.enter(place)
        yield


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    # No tokens: a generator that is left in the middle may be closed in another context.
    turn, options = state.get(), chosen.get()
    try:
        yield
    finally:
        state.set(turn)
        chosen.set(options)


def _here() -> _Batch:
    batch = _batch.get()
    if batch is None:
        raise BatchMisused("each() and item() are for handlers of batchable methods, and this is none")
    return batch
