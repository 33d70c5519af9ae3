"""``ManagedDict``: a dict whose items outlive the call."""

from __future__ import annotations

import copy
from collections.abc import (
    AsyncIterator,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from typing import Any, Self, TypeVar, overload

from callboard.infra.errors import ItemInvalid
from callboard.state.items import Codec
from callboard.state.kept import Kept
from callboard.state.tree import Entry, Node, cells, hashed, unread_between, unread_of
from callboard.state.turn import Turn

K = TypeVar("K")
V = TypeVar("V")
_MISSING: Any = object()


class ManagedDict(MutableMapping[K, V]):
    """A dict of the session of the current call. Declare it on an agent: ``notes: ManagedDict[str, Note]``.

    It does what a ``dict`` does, the order of insertion included. A value that is fetched is the same
    object throughout the call, and what is done to it is stored with the call. Keys are equal if they are
    stored alike. What setting a key costs hardly depends on how many there are; iterating reads all.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, turn: Turn, name: str, keys: Codec, values: Codec) -> None:
        self._turn = turn
        self._name = name
        self._key_codec = keys
        self._codec = values
        self._ordered: tuple[Node | None, list[Entry]] = (None, [])

    # How type checkers see the attribute of an agent; `managed.py` puts another descriptor in place.

    def __get__(self, instance: object, owner: type | None = None) -> Self:
        """The dict itself."""
        return self

    def __set__(self, instance: object, value: Mapping[K, V]) -> None:
        """Replace all items."""
        self.replace(value)

    @property
    def _kept(self) -> Kept:
        return self._turn.attribute(self._name, "dict")

    # -- looking -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._kept.count

    def __contains__(self, key: object) -> bool:
        return self._find(key) is not None

    def __getitem__(self, key: K) -> V:
        entry = self._find(key)
        if entry is None:
            raise KeyError(key)
        return self._fetch(entry)

    def _find(self, key: object) -> Entry | None:
        kept = self._kept
        hash(key)
        try:
            raw = self._key(key)
        except ItemInvalid:
            return None  # a key that cannot be put in is not there
        place, entry = kept.find(raw, self._turn.read)
        if entry is None:  # else there is one that fits
            self._turn.fit_key(self._name, self._key_codec, place)
        return entry

    def _key(self, key: object) -> bytes:
        """A key as it is stored.

        Raises:
            ItemInvalid: it does not fit the annotation.
            TypeError: it cannot be a key.
        """
        raw, value = self._key_codec.encode(key)
        hash(value)
        return raw

    def _fetch(self, entry: Entry) -> V:
        value: V = self._turn.fetch(self._name, self._codec, entry, entry.key)
        return value

    def _decoded(self, entry: Entry) -> K:
        key: K = self._turn.decoded(self._name, self._key_codec, entry.key)
        return key

    def _entries(self) -> list[Entry]:
        """All entries in their order."""
        root = self._kept.root
        if self._ordered[0] is not root:
            found = [one for one in cells(root, self._turn.read) if isinstance(one, Entry)]
            self._ordered = root, sorted(found, key=lambda entry: entry.order)
        return self._ordered[1]

    def _unchanged(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        count = len(self)
        for entry in entries:
            yield entry
            if len(self) != count:
                raise RuntimeError("dictionary changed size during iteration")

    def __iter__(self) -> Iterator[K]:
        return (self._decoded(entry) for entry in self._unchanged(self._entries() if len(self) else []))

    def __reversed__(self) -> Iterator[K]:
        return (
            self._decoded(entry) for entry in self._unchanged(reversed(self._entries() if len(self) else []))
        )

    def items(self) -> ItemsView[K, V]:
        """As ``dict.items``."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """As ``dict.values``."""
        return _Values(self)

    def keys(self) -> KeysView[K]:
        """As ``dict.keys``."""
        return _Keys(self)

    def pairs(self, *, backwards: bool = False) -> Iterator[tuple[K, V]]:
        """Keys and values in order, or the last one first."""
        root = self._kept.root
        entries = self._entries() if root else []
        for entry in self._unchanged(reversed(entries) if backwards else entries):
            now = None if self._kept.root is root else self._kept.find(entry.key, self._turn.read)[1]
            yield self._decoded(entry), self._fetch(now or entry)

    def copy(self) -> dict[K, V]:
        """A plain dict of the items; it is what travels where the dict is passed on or returned."""
        return dict(self.pairs())

    __copy__ = __travelling__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[K, V]:
        return copy.deepcopy(self.copy(), memo)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return len(self) == len(other) and self.copy() == dict(other)

    def __or__(self, other: Mapping[K, V]) -> dict[K, V]:
        return self.copy() | dict(other)

    def __ror__(self, other: Mapping[K, V]) -> dict[K, V]:
        return dict(other) | self.copy()

    def __repr__(self) -> str:
        return repr(self.copy())

    # -- changing ----------------------------------------------------------------------------------

    def __setitem__(self, key: K, value: V) -> None:
        self._turn.attribute(self._name, "dict")
        raw = self._key(key)
        self._key_codec.check_key(raw, self._turn.session.inline_limit)
        self._fit(raw)
        self._turn.put(self._name, raw, self._turn.cell(self._name, self._codec, value, raw))

    def __delitem__(self, key: K) -> None:
        entry = self._find(key)
        if entry is None:
            raise KeyError(key)
        self._fit(entry.key)
        self._turn.remove(self._name, entry.key)

    def _fit(self, key: bytes) -> None:
        """Before what is under a key changes: see that what is stored fits the annotation."""
        if not self._turn.fits(self._name, self._codec):
            place, _ = self._kept.find(key, self._turn.read)
            self._turn.fit(self._name, self._codec, place, self._key_codec)

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V) -> V: ...
    @overload
    def pop(self, key: K, default: Any) -> Any: ...
    def pop(self, key: K, default: Any = _MISSING) -> Any:
        """As ``dict.pop``."""
        entry = self._find(key)
        if entry is None:
            if default is _MISSING:
                raise KeyError(key)
            return default
        value = self._fetch(entry)
        self._turn.remove(self._name, entry.key)
        return value

    def popitem(self) -> tuple[K, V]:
        """As ``dict.popitem``: what was put in last. All items are read for it."""
        if not len(self):
            raise KeyError("popitem(): dictionary is empty")
        entry = self._entries()[-1]
        found = self._decoded(entry), self._fetch(entry)
        self._turn.remove(self._name, entry.key)
        return found

    def clear(self) -> None:
        """As ``dict.clear``; nothing is read for it."""
        self._turn.clear(self._name)

    def replace(self, other: Mapping[K, V]) -> None:
        """Put other items in the place of all: what assigning to the attribute does."""
        if other is not self:
            new = dict(other)
            self.clear()
            self.update(new)

    def __ior__(self, other: Mapping[K, V] | Iterable[tuple[K, V]]) -> Self:
        self.update(other)
        return self

    # -- reading ahead -----------------------------------------------------------------------------

    async def load(self, *keys: K) -> None:
        """Read values, so that touching them does not wait.

        Args:
            keys: all by default.
        """
        hashes = [hashed(self._key(key)) for key in keys]
        while True:
            root = self._kept.root
            missing = [one for hash_ in hashes for one in unread_of(root, hash_)]
            if not keys:
                missing = unread_between(root, 0, len(self))
            if not missing:
                return
            await self._turn.session.read(list(dict.fromkeys(missing)))

    async def __aiter__(self) -> AsyncIterator[K]:
        await self.load()
        for key in self:
            yield key


class _Keys(KeysView[K]):
    def __init__(self, of: ManagedDict[K, Any]) -> None:
        super().__init__(of)
        self._of = of

    def __reversed__(self) -> Iterator[K]:
        return reversed(self._of)


class _Items(ItemsView[K, V]):
    def __init__(self, of: ManagedDict[K, V]) -> None:
        super().__init__(of)
        self._of = of

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return self._of.pairs()

    def __reversed__(self) -> Iterator[tuple[K, V]]:
        return self._of.pairs(backwards=True)


class _Values(ValuesView[V]):
    def __init__(self, of: ManagedDict[Any, V]) -> None:
        super().__init__(of)
        self._of = of

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._of.pairs())

    def __reversed__(self) -> Iterator[V]:
        return (value for _, value in self._of.pairs(backwards=True))
