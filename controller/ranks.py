"""What is decided for sessions, as columns beside the view's: what holds, and what a round has decided.

A policy that ranks every session says the same of nearly all of them in each round. Held against columns that
costs next to nothing; held against a dictionary it would take most of the round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from callboard.controller.remembered import Remembered
from callboard.controller.table import Rows, Table, grown

Claim: TypeAlias = str | tuple[str, str]
"""A key, or session and actor of a priority."""
Values: TypeAlias = NDArray[np.int16]
_NONE = np.zeros(0, np.bool_)


class Column:
    """The priorities that hold at one actor, or at all, by the rows of sessions.

    Attributes:
        changed: sessions that have got another one since the column was looked at.
    """

    def __init__(self, actor: str) -> None:
        self._actor = actor
        self._columns = Remembered(value=np.int16)
        self.changed: set[str] = set()

    def of(self, sessions: Table, held: Mapping[tuple[str, str], int]) -> Values:
        """The column as it is now; 0 where nothing is decided.

        Args:
            sessions: of the view; held: all priorities, by session and actor.
        """
        fresh, values = self._columns.follow(sessions), self._columns["value"]
        found = sessions.find(self.changed)
        self.changed.clear()
        rows = np.concatenate([fresh, found[found >= 0]])
        if held:
            names = [sessions.keys[row] for row in rows.tolist()]
            values[rows] = [held.get((name, self._actor), 0) for name in names]
        else:
            values[rows] = 0
        return values


class Claims(set[Claim]):
    """All for which a policy has decided in a round, whether or not that changes anything.

    Args:
        claims: of policies before; ranked: by actor, see :meth:`ranked`; routed: by actor, rows of sessions.
    """

    def __init__(
        self,
        claims: Iterable[Claim] = (),
        ranked: Mapping[str, NDArray[np.bool_]] = {},
        routed: Mapping[str, tuple[Rows, ...]] = {},
    ) -> None:
        super().__init__(claims)
        self._ranked = dict(ranked)
        self._routed = dict(routed)

    def ranked(self, sessions: Table, actor: str) -> NDArray[np.bool_]:
        """Which sessions have their priority at an actor, or at all: by row, to be changed in place."""
        known = self._ranked.get(actor, _NONE)
        self._ranked[actor] = known = grown(known, len(sessions.keys))
        return known

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

    def routed(self, actor: str, sessions: Rows) -> NDArray[np.bool_]:
        """Which of these sessions have had their route at an actor by :meth:`add_routes`."""
        found = np.zeros(len(sessions), np.bool_)
        for rows in self._routed.get(actor, ()):
            found |= np.isin(sessions, rows)
        return found

    def has_route(self, sessions: Table, session: str, actor: str) -> bool:
        """The same of one session; it need not be in the view."""
        if actor not in self._routed or session not in sessions:
            return False
        row = sessions.row(session)
        return any(bool((rows == row).any()) for rows in self._routed[actor])

    def add_routes(self, actor: str, sessions: Rows) -> None:
        """These sessions have their route, as it was."""
        if len(sessions):
            self._routed[actor] = (*self._routed.get(actor, ()), sessions)

    def since(self, before: Claims) -> Self:
        """What has been decided since ``before`` was copied."""
        ranked = {}
        for actor, rows in self._ranked.items():
            known = grown(before._ranked.get(actor, _NONE), len(rows))
            ranked[actor] = rows & ~known[: len(rows)]
        routed = {actor: rows[len(before._routed.get(actor, ())) :] for actor, rows in self._routed.items()}
        return type(self)(self - before, ranked, routed)

    def stand(self, said: Claims, sessions: Table, mark: int) -> None:
        """What was decided earlier counts now, too; not for sessions that have come since.

        Args:
            mark: the highest number in the column ``added`` when it was decided.
        """
        self.update(said)
        same = sessions["added"] <= mark
        for actor, rows in said._ranked.items():
            self.ranked(sessions, actor)[: len(rows)] |= rows & same[: len(rows)]
        for actor, routed in said._routed.items():
            for sessions_of in routed:
                self.add_routes(actor, sessions_of[same[sessions_of]])

    def copy(self) -> Self:
        """The same, to be changed for itself."""
        ranked = {actor: rows.copy() for actor, rows in self._ranked.items()}
        return type(self)(self, ranked, self._routed)
