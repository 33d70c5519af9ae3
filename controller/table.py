"""A table of NumPy columns whose rows have keys: added, changed and dropped many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Rows: TypeAlias = NDArray[np.intp]
"""Places of rows."""
T = TypeVar("T", bound=np.generic)

_LEAST = 64


class Table:
    """Columns by name, and rows by key.

    A row keeps its place until it is dropped; places of dropped rows are used again. A column is an attribute
    of ``self.of``'s dictionary, as long as there is room: read it anew after adding rows.

    Args:
        columns: type of each column; ``alive``, which tells the rows that are there, is added. A column that
            is called ``added`` counts the rows as they are added, so that a place used again is seen.
    """

    def __init__(self, **columns: DTypeLike) -> None:
        self._columns: dict[str, NDArray[Any]] = {
            name: np.zeros(_LEAST, kind) for name, kind in (columns | {"alive": np.bool_}).items()
        }
        self.keys: list[str] = [""] * _LEAST
        """The key of each row; of one that is not there, what it had last."""
        self._index: dict[str, int] = {}
        self._added = 0
        self._free: list[int] = list(range(_LEAST - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def __getitem__(self, name: str) -> NDArray[Any]:
        """A column, rows that are not there included."""
        return self._columns[name]

    @property
    def rows(self) -> Rows:
        """All rows that are there."""
        return np.flatnonzero(self._columns["alive"])

    def find(self, keys: Iterable[str]) -> Rows:
        """The row of each key; -1: there is none."""
        get = self._index.get
        return np.array([get(key, -1) for key in keys], np.intp)

    def row(self, key: str) -> int:
        """The row of a key, which is added if it is not there."""
        found = self._index.get(key)
        return self._add([key])[0] if found is None else found

    def add(self, keys: Sequence[str]) -> tuple[Rows, NDArray[np.bool_]]:
        """The row of each key, added where it is not there; and which were added."""
        rows = self.find(keys)
        fresh = rows < 0
        if fresh.any():
            missing = [keys[place] for place in np.flatnonzero(fresh).tolist()]
            self._add(list(dict.fromkeys(missing)))
            rows[fresh] = self.find(missing)
        return rows, fresh

    def _add(self, keys: list[str]) -> list[int]:
        while len(self._free) < len(keys):
            self._grow()
        rows = self._free[-len(keys) :]
        del self._free[-len(keys) :]
        self._index.update(zip(keys, rows, strict=True))
        for row, key in zip(rows, keys, strict=True):
            self.keys[row] = key
        for column in self._columns.values():
            column[rows] = 0
        self._columns["alive"][rows] = True
        if "added" in self._columns:
            self._columns["added"][rows] = np.arange(1, len(rows) + 1) + self._added
            self._added += len(rows)
        return rows

    def _grow(self) -> None:
        size = len(self.keys)
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate([column, np.zeros(size, column.dtype)])
        self.keys += [""] * size
        self._free += range(2 * size - 1, size - 1, -1)

    def set(self, rows: Rows, **columns: Any) -> None:
        """Give columns values, in these rows."""
        for name, values in columns.items():
            self._columns[name][rows] = values

    def drop(self, rows: Rows) -> None:
        """These rows are no more; those that are not there, and -1, are passed over."""
        alive = self._columns["alive"]
        rows = rows[rows >= 0]
        gone = list(dict.fromkeys(rows[alive[rows]].tolist()))
        alive[gone] = False
        for row in gone:
            del self._index[self.keys[row]]
        self._free += gone

    def where(self, **columns: Any) -> Rows:
        """The rows whose columns have these values."""
        chosen = self._columns["alive"].copy()
        for name, value in columns.items():
            chosen &= self._columns[name] == value
        return np.flatnonzero(chosen)

    def count_by(self, name: str, size: int, among: NDArray[np.bool_] | None = None) -> NDArray[np.intp]:
        """How many rows have each value of a column that holds rows of another table.

        Args:
            size: how many values there are; among: which rows count, all that are there by default.
        """
        chosen = self._columns["alive"] if among is None else among & self._columns["alive"]
        values = self._columns[name][chosen]
        return np.bincount(values[values >= 0], minlength=size)


def grown(column: NDArray[T], size: int) -> NDArray[T]:
    """A column that has at least so many places; what is new holds 0."""
    if len(column) >= size:
        return column
    more: NDArray[Any] = np.zeros(size - len(column), column.dtype)
    return np.concatenate([column, more])
