"""What is remembered of sessions between two rounds, as columns beside the view's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from callboard.controller.table import Rows, Table, grown

if TYPE_CHECKING:
    from callboard.controller.view import View

_FEW = 1024


class Remembered:
    """Columns with a place for each row of a table that has a column ``added``.

    A row that is used again is another one: what was remembered of it is forgotten.

    Args:
        columns: type of each column.
    """

    def __init__(self, **columns: DTypeLike) -> None:
        self._kinds = columns | {"added": np.uint32}
        self._columns: dict[str, NDArray[Any]] = {}
        self._of: Table | None = None

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column, to be changed in place; as long as the table was when it was last followed."""
        return self._columns[name]

    def follow(self, table: Table) -> Rows:
        """Make room for the rows of a table; gives those that are new, of which all columns hold 0."""
        if self._of is not table:
            self._of = table
            self._columns = {name: np.zeros(0, kind) for name, kind in self._kinds.items()}
        size, added = len(table.keys), table["added"]
        self._columns = {name: grown(column, size) for name, column in self._columns.items()}
        fresh = np.flatnonzero(self._columns["added"] != added)
        for column in self._columns.values():
            column[fresh] = 0
        self._columns["added"][fresh] = added[fresh]
        return fresh


class Keys:
    """The key of each call, as a number: its run's; else what is before the first ``/`` of its session."""

    def __init__(self) -> None:
        self._sessions = Remembered(key=np.int32)
        self._keys = Remembered(key=np.int32)
        self._numbers: dict[str, int] = {}

    def of(self, view: View, futures: Rows) -> NDArray[np.int32]:
        """Of these futures, which all have a session; the same number is the same key."""
        fresh, named = self._sessions.follow(view.sessions), self._keys.follow(view.keys)
        if len(self._numbers) > 2 * (len(view.sessions) + len(view.keys)) + _FEW:  # most are there no more
            self._numbers.clear()
            fresh, named = view.sessions.rows, view.keys.rows
        self._number(self._sessions["key"], fresh, view.sessions, lambda name: name.partition("/")[0])
        self._number(self._keys["key"], named, view.keys, str)
        runs = view.futures["run"][futures]
        keys = np.where(runs >= 0, view.runs["key"][runs], 0)
        by_session = self._sessions["key"][view.futures["session"][futures]]
        found: NDArray[np.int32] = np.where(keys > 0, self._keys["key"][keys], by_session)
        return found

    def _number(
        self, column: NDArray[np.int32], rows: Rows, table: Table, key_of: Callable[[str], str]
    ) -> None:
        numbers = self._numbers
        for row in rows.tolist():
            column[row] = numbers.setdefault(key_of(table.keys[row]), len(numbers))


class Returns:
    """How often each session has come to the same method: at how many stages, at the method with the most."""

    def __init__(self) -> None:
        self._sessions = Remembered()
        self._last = np.zeros(0, np.int64)
        self._seen = np.zeros(0, np.int64)

    def of(self, sessions: Table, futures: Table) -> tuple[Rows, NDArray[np.intp]]:
        """Add what is open; gives the sessions of which something was ever seen, and how often each came."""
        over = ~sessions["alive"]
        over[self._sessions.follow(sessions)] = True
        self._seen = self._seen[~over[self._seen >> _SESSION]]
        self._last = grown(self._last, len(futures.keys))
        self._last[over[self._last >> _SESSION]] = 0
        rows = np.flatnonzero(futures["alive"] & (futures["session"] >= 0))
        session, call, stage = (futures[name][rows].astype(np.int64) for name in ("session", "call", "stage"))
        places = session << _SESSION | (call & _CALLS) << _STAGE | stage
        fresh = np.unique(places[places != self._last[rows]])
        self._last[rows] = places
        self._seen = _joined(self._seen, fresh)
        return self._most(len(sessions.keys))

    def _most(self, size: int) -> tuple[Rows, NDArray[np.intp]]:
        methods = self._seen >> _STAGE  # in their order
        first = np.flatnonzero(np.diff(methods, prepend=-1))
        times = np.diff(first, append=len(methods))
        most = np.zeros(size, np.intp)
        np.maximum.at(most, methods[first] >> _SESSION - _STAGE, times)
        rows = np.flatnonzero(most)
        return rows, most[rows]


def _joined(ordered: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers in their order, each once, with more of them."""
    places = np.searchsorted(ordered, more)
    known = np.append(ordered, -1)[places] == more
    return np.insert(ordered, places[~known], more[~known])


_STAGE, _SESSION = 16, 36
"""Bits of a number that has a session, a call and a stage in it: where the call and the session begin."""
_CALLS = (1 << _SESSION - _STAGE) - 1
