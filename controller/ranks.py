"""Priorities of sessions as columns beside the view's: what holds, and what a round has decided.

A policy that ranks every session says the same of nearly all of them in each round. Held against columns that
costs next to nothing; held against a dictionary it would take most of the round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from callboard.controller.table import Table

Claim: TypeAlias = str | tuple[str, str]
"""A key, or session and actor of a priority."""
Values: TypeAlias = NDArray[np.int16]
T = TypeVar("T", bound=np.generic)


class Column:
    """The priorities that hold at one actor, or at all, by the rows of sessions.

    Attributes:
        changed: sessions that have got another one since the column was looked at.
    """

    def __init__(self, actor: str) -> None:
        self._actor = actor
        self._of: Table | None = None
        self.changed: set[str] = set()

    def of(self, sessions: Table, held: Mapping[tuple[str, str], int]) -> Values:
        """The column as it is now; 0 where nothing is decided.

        Args:
            sessions: of the view; held: all priorities, by session and actor.
        """
        if self._of is not sessions:
            self._of = sessions
            self._values = np.zeros(0, np.int16)
            self._added = np.zeros(0, np.uint32)
        size = len(sessions.keys)
        self._values, self._added = _grown(self._values, size), _grown(self._added, size)
        added = sessions["added"]
        fresh = np.flatnonzero(self._added != added)
        self._added[fresh] = added[fresh]
        found = sessions.find(self.changed)
        self.changed.clear()
        rows = np.concatenate([fresh, found[found >= 0]])
        if held:
            names = [sessions.keys[row] for row in rows.tolist()]
            self._values[rows] = [held.get((name, self._actor), 0) for name in names]
        else:
            self._values[rows] = 0
        return self._values


class Claims(set[Claim]):
    """All for which a policy has decided in a round, whether or not that changes anything.

    Args:
        claims: of policies before; ranked: by actor, see :meth:`ranked`.
    """

    def __init__(self, claims: Iterable[Claim] = (), ranked: Mapping[str, NDArray[np.bool_]] = {}) -> None:
        super().__init__(claims)
        self._ranked = dict(ranked)

    def ranked(self, sessions: Table, actor: str) -> NDArray[np.bool_]:
        """Which sessions have their priority at an actor, or at all: by row, to be changed in place."""
        known = self._ranked.get(actor, np.zeros(0, np.bool_))
        self._ranked[actor] = grown = _grown(known, len(sessions.keys))
        return grown

    def has_rank(self, sessions: Table, session: str, actor: str) -> bool:
        """Whether a session has its priority; it need not be in the view."""
        if session in sessions:
            return bool(self.ranked(sessions, actor)[sessions.row(session)])
        return (session, actor) in self

    def add_rank(self, sessions: Table, session: str, actor: str) -> None:
        """A session has its priority."""
        if session in sessions:
            self.ranked(sessions, actor)[sessions.row(session)] = True
        else:
            self.add((session, actor))

    def copy(self) -> Self:
        """The same, to be changed for itself."""
        return type(self)(self, {actor: rows.copy() for actor, rows in self._ranked.items()})


def _grown(column: NDArray[T], size: int) -> NDArray[T]:
    if len(column) >= size:
        return column
    more: NDArray[Any] = np.zeros(size - len(column), column.dtype)
    return np.concatenate([column, more])
