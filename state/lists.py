"""``ManagedList``: a list whose items outlive the call."""

from __future__ import annotations

import copy
import operator
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, MutableSequence
from typing import Any, Self, SupportsIndex, TypeVar, overload

from callboard.state.items import Codec
from callboard.state.kept import Kept
from callboard.state.tree import Cell, at, cells, unread_between
from callboard.state.turn import Turn

T = TypeVar("T")
_AHEAD = 256


class ManagedList(MutableSequence[T]):
    """A list of the session of the current call. Declare it on an agent: ``history: ManagedList[Message]``.

    It does what a ``list`` does. An item that is fetched is the same object throughout the call, and what
    is done to it is stored with the call. Slices, ``copy()`` and sums are plain lists. What an append
    costs does not depend on the length.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, turn: Turn, name: str, codec: Codec) -> None:
        self._turn = turn
        self._name = name
        self._codec = codec

    # How type checkers see the attribute of an agent; `managed.py` puts another descriptor in place.

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        """The list itself."""
        return self

    def __set__(self, instance: object, value: Iterable[T]) -> None:
        """Replace all items."""
        self.replace(value)

    @property
    def _kept(self) -> Kept:
        return self._turn.attribute(self._name, "list")

    # -- looking -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._kept.count

    def __iter__(self) -> Iterator[T]:
        index = 0
        while (kept := self._kept).root is not None and index < kept.count:
            for cell in cells(kept.root, self._turn.read, index):
                yield self._fetch(cell, index)
                index += 1
                if self._kept.root is not kept.root:
                    break  # as a list's iterator: it goes on by index

    def __reversed__(self) -> Iterator[T]:
        index = len(self) - 1
        while index >= 0:
            for item in reversed(self[max(index - _AHEAD + 1, 0) : index + 1]):
                yield item
                index -= 1

    @overload
    def __getitem__(self, index: SupportsIndex) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> T | list[T]:
        kept = self._kept
        if not isinstance(index, slice):
            place = self._place(index, "list index out of range")
            assert kept.root is not None
            return self._fetch(at(kept.root, place, self._turn.read), place)
        chosen = range(*index.indices(kept.count))
        if not chosen:
            return []
        first = min(chosen[0], chosen[-1])
        found = list(cells(kept.root, self._turn.read, first, max(chosen[0], chosen[-1]) + 1))
        return [self._fetch(found[place - first], place) for place in chosen]

    def _fetch(self, cell: Cell, index: int) -> T:
        value: T = self._turn.fetch(self._name, self._codec, cell, index)
        return value

    def _place(self, index: SupportsIndex, problem: str) -> int:
        place = operator.index(index)
        count = self._kept.count
        if not -count <= place < count:
            raise IndexError(problem)
        return place % count

    def __contains__(self, value: object) -> bool:
        return any(item is value or item == value for item in self)

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """As ``list.index``."""
        first, last, _ = slice(start, stop).indices(len(self))
        for place in range(first, last):
            if self[place] == value:
                return place
        raise ValueError(f"{value!r} is not in list")

    def copy(self) -> list[T]:
        """A plain list of the items; it is what travels where the list is passed on or returned."""
        return list(self)

    __copy__ = __travelling__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> list[T]:
        return copy.deepcopy(self.copy(), memo)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list | ManagedList):
            return NotImplemented
        return len(self) == len(other) and all(a is b or a == b for a, b in zip(self, other, strict=True))

    def __lt__(self, other: Iterable[T]) -> bool:
        return list(self) < list(other)

    def __le__(self, other: Iterable[T]) -> bool:
        return list(self) <= list(other)

    def __gt__(self, other: Iterable[T]) -> bool:
        return list(self) > list(other)

    def __ge__(self, other: Iterable[T]) -> bool:
        return list(self) >= list(other)

    def __add__(self, other: Iterable[T]) -> list[T]:
        return [*self, *other]

    def __radd__(self, other: Iterable[T]) -> list[T]:
        return [*other, *self]

    def __mul__(self, times: SupportsIndex) -> list[T]:
        return list(self) * times

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return repr(list(self))

    # -- changing ----------------------------------------------------------------------------------

    @overload
    def __setitem__(self, index: SupportsIndex, value: T) -> None: ...
    @overload
    def __setitem__(self, index: slice, value: Iterable[T]) -> None: ...
    def __setitem__(self, index: SupportsIndex | slice, value: Any) -> None:
        if not isinstance(index, slice):
            place = self._place(index, "list assignment index out of range")
            self._splice(place, place + 1, [value])
            return
        start, stop, step = index.indices(len(self))
        values = list(value)
        if step == 1:
            self._splice(start, max(start, stop), values)
            return
        chosen = range(start, stop, step)
        if len(values) != len(chosen):
            raise ValueError(
                f"attempt to assign sequence of size {len(values)} to extended slice of size {len(chosen)}"
            )
        self._turn.fit(self._name, self._codec, start)
        made = self._cells(values, 0)
        for place, cell in zip(chosen, made, strict=True):
            self._turn.splice(self._name, "list", place, place + 1, [cell])

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        if not isinstance(index, slice):
            place = self._place(index, "list assignment index out of range")
            self._splice(place, place + 1, [])
            return
        start, stop, step = index.indices(len(self))
        if step == 1:
            self._splice(start, max(start, stop), [])
            return
        for place in sorted(range(start, stop, step), reverse=True):
            self._splice(place, place + 1, [])

    def insert(self, index: SupportsIndex, value: T) -> None:
        """As ``list.insert``."""
        place, count = operator.index(index), len(self)
        place = max(place + count, 0) if place < 0 else min(place, count)
        self._splice(place, place, [value])

    def append(self, value: T) -> None:
        """As ``list.append``."""
        turn, name, place = self._turn, self._name, self._kept.count
        turn.fit(name, self._codec, place)
        turn.splice(name, "list", place, place, [turn.cell(name, self._codec, value, place)])

    def extend(self, values: Iterable[T]) -> None:
        """As ``list.extend``."""
        new, count = list(values), len(self)
        self._splice(count, count, new)

    def pop(self, index: SupportsIndex = -1) -> T:
        """As ``list.pop``."""
        if not len(self):
            raise IndexError("pop from empty list")
        place = self._place(index, "pop index out of range")
        item: T = self[place]
        self._splice(place, place + 1, [])
        return item

    def clear(self) -> None:
        """As ``list.clear``; nothing is read for it."""
        self._turn.replace(self._name, "list", [])

    def sort(self, *, key: Callable[[T], Any] | None = None, reverse: bool = False) -> None:
        """As ``list.sort``. All items are stored anew."""
        by: Callable[[Any], Any] = key or (lambda item: item)
        found = sorted(self._pairs(), key=lambda pair: by(pair[1]), reverse=reverse)
        self._turn.replace(self._name, "list", [cell for cell, _ in found])

    def reverse(self) -> None:
        """As ``list.reverse``. All items are stored anew."""
        self._turn.fit(self._name, self._codec, 0)
        turned = list(cells(self._kept.root, self._turn.read))[::-1]
        self._turn.replace(self._name, "list", turned, moved=True)

    def replace(self, values: Iterable[T]) -> None:
        """Put other items in the place of all: what assigning to the attribute does."""
        if values is not self:
            self._turn.replace(self._name, "list", self._cells(list(values), 0))

    def __iadd__(self, values: Iterable[T]) -> Self:
        self.extend(values)
        return self

    def __imul__(self, times: SupportsIndex) -> Self:
        self[:] = list(self) * times
        return self

    def _pairs(self) -> list[tuple[Cell, T]]:
        found = cells(self._kept.root, self._turn.read)
        return [(cell, self._fetch(cell, place)) for place, cell in enumerate(found)]

    def _splice(self, start: int, stop: int, values: list[T]) -> None:
        if stop - start == len(self) > 0:
            self.replace(values)
        elif values or stop > start:
            self._turn.fit(self._name, self._codec, start)
            made = self._cells(values, start)
            self._turn.splice(self._name, "list", start, stop, made)

    def _cells(self, values: list[T], start: int) -> list[Cell]:
        self._turn.attribute(self._name, "list")
        return [
            self._turn.cell(self._name, self._codec, one, place) for place, one in enumerate(values, start)
        ]

    # -- reading ahead -----------------------------------------------------------------------------

    async def load(self, start: int = 0, stop: int | None = None) -> None:
        """Read items, so that touching them does not wait.

        Args:
            start, stop: as in a slice; all by default.
        """
        first, last, _ = slice(start, stop).indices(len(self))
        while missing := unread_between(self._kept.root, first, last):
            await self._turn.session.read(missing)

    async def __aiter__(self) -> AsyncIterator[T]:
        index = 0
        while index < len(self):
            await self.load(index, index + _AHEAD)
            for item in self[index : index + _AHEAD]:
                yield item
                index += 1
