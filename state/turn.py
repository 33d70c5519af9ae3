"""A call's view of its session: it sees its own changes, and nobody else does until it is committed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from callboard.infra.errors import NoSession, StateIncompatible, StateUnset
from callboard.infra.messages.state import Change
from callboard.state.items import Codec, default_of, shown
from callboard.state.kept import Kept
from callboard.state.packing import Packer
from callboard.state.tree import Cell, Entry, Node, Read, at, cell_of, unread_between

if TYPE_CHECKING:
    from callboard.state.session import Session


_NOTHING = Kept("")
_NEAR = 32
_LOOKED_AT = 1 << 20
"""Bytes up to which an item is read for no other reason than to see whether it fits."""


class _Fetched(NamedTuple):
    """An item that the handler holds and may have changed.

    Attributes:
        place: its index or, in a dict, its key.
    """

    name: str
    value: Any
    codec: Codec
    place: int | bytes


class _Done:
    """What a turn has done to one attribute.

    Attributes:
        splices: start, how many items went, what came.
        cleared: all entries of a dict went, before anything else.
        touched: keys of a dict with the entries that were there before.
    """

    __slots__ = ("cleared", "splices", "touched")

    def __init__(self) -> None:
        self.cleared = False
        self.splices: list[tuple[int, int, list[Cell]]] = []
        self.touched: dict[bytes, Entry | None] = {}


class Turn:
    """One call's changes to a session's state.

    Args:
        session: of the call.
        beside: other calls are served by the same run of the handler, which is not to fail them all.

    Attributes:
        unseen: large items of attributes that :meth:`look` is to see, with their annotation.
    """

    def __init__(self, session: Session, *, beside: bool = False) -> None:
        self.session = session
        self._beside = beside
        self._unfit: dict[str, StateIncompatible] = {}
        self.unseen: dict[str, tuple[Codec, Cell]] = {}
        self.read = session.read_now
        self.kept = dict(session.kept)
        self.open = True
        self._done: dict[str, _Done] = {}
        self._fetched: dict[Cell, _Fetched] = {}
        self._defaults: dict[str, tuple[Codec, bytes, Any]] = {}
        self._collections: dict[str, Any] = {}
        self._anew: set[str] = set()

    def attribute(self, name: str, kind: str) -> Kept:
        """An attribute as this call sees it.

        Raises:
            NoSession: the call has ended.
        """
        if not self.open:
            raise NoSession(
                f"{self._where(name)} belongs to a call that has ended: take what you need from it before",
                attribute=name,
            )
        return self.kept.get(name) or Kept(kind)

    # -- items -------------------------------------------------------------------------------------

    def cell(self, name: str, codec: Codec, value: Any, place: int | bytes) -> Cell:
        """A new item.

        Raises:
            ItemInvalid: it does not fit.
        """
        raw, value = codec.encode(value)
        cell = cell_of(raw, self.session.inline_limit)
        if codec.mutable(value):
            self._fetched[cell] = _Fetched(name, value, codec, place)
        return cell

    def fetch(self, name: str, codec: Codec, cell: Cell, place: int | bytes) -> Any:
        """The value of an item: within a call always the same object.

        Raises:
            StateIncompatible: it does not fit the annotation any more.
        """
        known = self._fetched.get(cell)
        if known is not None:
            return known.value
        if cell.raw is None:
            self.read([cell])
        assert cell.raw is not None
        value = self.decoded(name, codec, cell.raw)
        if codec.mutable(value):
            self._fetched[cell] = _Fetched(name, value, codec, place)
        return value

    def decoded(self, name: str, codec: Codec, raw: bytes) -> Any:
        """A stored item or key as the annotation has it.

        Raises:
            StateIncompatible: it does not fit the annotation any more.
        """
        try:
            return codec.decode(raw)
        except (ValueError, TypeError, RecursionError) as error:
            raise StateIncompatible(
                f"{self._where(name)}: what is stored does not fit the annotation any more ({error}): give "
                "new fields defaults, or change the stored state by export and import",
                actor=self.session.actor,
                session=self.session.id,
                attribute=name,
            ) from error

    def only(self, name: str, kind: str, codec: Codec) -> Any:
        """The item of an attribute that has one.

        Raises:
            StateIncompatible: it does not fit the annotation any more.
        """
        root = self.attribute(name, kind).root
        assert root is not None
        return self.fetch(name, codec, at(root, 0, self.read), 0)

    def fits(self, name: str, codec: Codec) -> bool:
        """Whether what is stored fits the annotation, as far as :meth:`fit` has seen."""
        return self.session.fitting.get(name) is codec or name in self._anew or name in self.unseen

    def fit(self, name: str, codec: Codec, place: int, keys: Codec | None = None) -> None:
        """See by one item whether what is stored fits the annotation; once, while the session is open.

        Else what is put beside it would be lost to code with the old annotation, and the rest to code with
        this one. It is told by the commit in a batch, and where all items near are large: of those one of
        up to 1 MiB is read.

        Args:
            place: where something is to change; the item is near to it, since there it is read anyhow.
            keys: of a dict.

        Raises:
            StateIncompatible: it does not fit the annotation any more.
        """
        if self.fits(name, codec):
            return
        kept = self.session.kept.get(name)
        if kept is None or kept.root is None:
            return
        cell = _sample(kept.root, max(min(place, kept.count - 1), 0), self.read)
        if keys is not None and not self._fitting_key(name, keys, cell):
            return
        if cell.raw is None:  # the commit can wait for it
            self.unseen[name] = codec, cell
        elif self._fitting(name, codec, cell.raw):
            self.session.fitting[name] = codec

    def fit_key(self, name: str, codec: Codec, place: int) -> None:
        """The same for keys of a dict alone; nothing is read for it that looking for one has not read.

        Raises:
            StateIncompatible: they do not fit the annotation any more.
        """
        keys, kept = f"{name}:", self.session.kept.get(name)
        if self.fits(keys, codec) or name in self._anew or kept is None or kept.root is None:
            return
        if self._fitting_key(name, codec, at(kept.root, max(min(place, kept.count - 1), 0), self.read)):
            self.session.fitting[keys] = codec

    def _fitting_key(self, name: str, codec: Codec, cell: Cell) -> bool:
        return not isinstance(cell, Entry) or self._fitting(name, codec, cell.key)

    def _fitting(self, name: str, codec: Codec, raw: bytes) -> bool:
        try:
            self.decoded(name, codec, raw)
        except StateIncompatible as error:
            if not self._beside:
                raise
            self._unfit[name.removesuffix(":")] = error
            return False
        return True

    def collection(self, name: str, make: Callable[[], Any]) -> Any:
        """A collection, always the same object in this turn."""
        if name not in self._collections:
            self._collections[name] = make()
        return self._collections[name]

    def default(self, name: str, codec: Codec) -> Any:
        """What an unset value is; it is set if the handler changes it.

        Raises:
            StateUnset: its type has no default.
        """
        if name not in self._defaults:
            try:
                raw, value = codec.encode(default_of(codec.annotation))
            except TypeError as error:
                raise StateUnset(
                    f"{self._where(name)} is not set, and {shown(codec.annotation)} has no default: assign "
                    "it first, or allow None",
                    attribute=name,
                ) from error
            self._defaults[name] = codec, raw, value
        return self._defaults[name][2]

    # -- changes -----------------------------------------------------------------------------------

    def splice(self, name: str, kind: str, start: int, stop: int, items: list[Cell]) -> None:
        """Put items of a list in the place of others."""
        kept = self.attribute(name, kind)
        self.kept[name] = kept.spliced(start, stop, items, self.read)
        splices = self._of(name).splices
        if splices and start == stop == splices[-1][0] + len(splices[-1][2]):
            splices[-1][2].extend(items)
        else:
            splices.append((start, stop - start, list(items)))

    def replace(self, name: str, kind: str, items: list[Cell], *, moved: bool = False) -> None:
        """Put items in the place of all others; what was done before does not matter any more.

        Args:
            moved: they are those that are there, in another order.
        """
        before = self.session.kept.get(name) or Kept(kind)
        kept = self.attribute(name, kind)
        self._defaults.pop(name, None)
        self.kept[name] = kept.spliced(0, kept.count, items, self.read)
        self._of(name).splices = [(0, before.count, list(items))]
        if not moved:
            self._replaced(name)

    def put(self, name: str, key: bytes, cell: Cell) -> None:
        """Put an item into a dict."""
        self.kept[name], entry, known = self.attribute(name, "dict").put(key, cell, self.read)
        self._of(name).touched.setdefault(key, known)
        if cell in self._fetched:
            self._fetched[entry] = self._fetched.pop(cell)

    def remove(self, name: str, key: bytes) -> None:
        """Take a key out of a dict."""
        kept = self.attribute(name, "dict")
        self._of(name).touched.setdefault(key, kept.find(key, self.read)[1])
        self.kept[name] = kept.without(key, self.read)

    def clear(self, name: str) -> None:
        """Empty a dict."""
        self.kept[name] = self.attribute(name, "dict").rooted(None)
        done = self._of(name)
        done.cleared = True
        done.touched = {}
        self._replaced(name)

    def _replaced(self, name: str) -> None:
        """Nothing of what is stored is left: it need not fit."""
        self._anew.add(name)
        self._unfit.pop(name, None)
        self.unseen.pop(name, None)

    def _of(self, name: str) -> _Done:
        return self._done.setdefault(name, _Done())

    # -- the end -----------------------------------------------------------------------------------

    async def look(self) -> None:
        """Read what :meth:`fit` could not look at without waiting.

        Raises:
            StateIncompatible: it does not fit the annotation any more.
            StateDamaged: it is not there.
        """
        unseen, self.unseen = self.unseen, {}
        for name, (codec, cell) in unseen.items():
            if cell.raw is None and cell.size <= _LOOKED_AT:
                await self.session.read([cell])
            if cell.raw is None or self._fitting(name, codec, cell.raw):
                self.session.fitting[name] = codec

    def settle(self) -> None:
        """Put items back that were fetched and changed.

        Raises:
            ItemInvalid: one does not fit any more.
            StateIncompatible: something was put beside what does not fit.
        """
        for unfit in self._unfit.values():
            raise unfit
        for name, (codec, raw, value) in list(self._defaults.items()):
            now = codec.encoded_again(value)
            if now != raw and not (self.kept.get(name) or _NOTHING).count:
                self.replace(name, "value", [cell_of(now, self.session.inline_limit)])
        changed: dict[Cell, Cell] = {}
        for cell, fetched in self._fetched.items():
            raw = fetched.codec.encoded_again(fetched.value)
            assert cell.raw is not None
            if fetched.codec.is_changed(cell.raw, raw):
                new = cell_of(raw, self.session.inline_limit)
                if isinstance(fetched.place, bytes):
                    self._put_back(fetched.name, fetched.place, cell, new)
                else:
                    changed[cell] = new
        if changed:
            self._splice_back(changed)
        self._fetched, self._defaults = {}, {}

    def _put_back(self, name: str, key: bytes, cell: Cell, new: Cell) -> None:
        entry = self.kept[name].find(key, self.read)[1] if name in self.kept else None
        if entry is cell:
            self.put(name, key, new)

    def _splice_back(self, changed: dict[Cell, Cell]) -> None:
        """Where an item came in this turn, it comes as it is now; else it is put in its own place."""
        moved: dict[str, set[Cell]] = {}
        for cell in changed:
            moved.setdefault(self._fetched[cell].name, set()).add(cell)
        for name, searched in moved.items():
            done = self._of(name)
            came = {cell for _, _, items in done.splices for cell in items}
            for _, _, items in done.splices:
                items[:] = [changed.get(cell, cell) for cell in items]
            for cell, index in self._places(name, searched):
                kept = self.kept[name]
                self.kept[name] = kept.spliced(index, index + 1, [changed[cell]], self.read)
                if cell not in came:
                    done.splices.append((index, 1, [changed[cell]]))

    def _places(self, name: str, searched: set[Cell]) -> list[tuple[Cell, int]]:
        """Where items are that may have moved since they were fetched; none for those that are gone."""
        kept = self.kept[name]
        found: list[tuple[Cell, int]] = []
        for cell in searched:
            hint = self._fetched[cell].place
            assert isinstance(hint, int)
            unread = unread_between(kept.root, hint, hint + 1, large=False)
            if (
                kept.root is None
                or hint >= kept.count
                or unread
                or at(kept.root, hint, self.read) is not cell
            ):
                return _scanned(kept.root, searched)
            found.append((cell, hint))
        return found

    def changes(self, packer: Packer) -> dict[str, Change]:
        """What this turn has done, as it travels."""
        made: dict[str, Change] = {}
        for name, done in self._done.items():
            change = Change(self.kept[name].kind, cleared=done.cleared)
            change.splices = [packer.splice(*one) for one in done.splices]
            if done.touched:
                self._touched(name, done.touched, change, packer)
            if change.splices or change.cleared or change.removed or change.keys:
                made[name] = change
        return made

    def _touched(
        self, name: str, touched: Mapping[bytes, Entry | None], change: Change, packer: Packer
    ) -> None:
        """Add to a change what has become of keys of a dict."""
        put: list[Entry] = []
        for key, before in touched.items():
            now = self.kept[name].find(key, self.read)[1]
            if before is not None and (now is None or now.order != before.order):
                change.removed.append(msgspec.Raw(key))
            if now is not None and now is not before:
                put.append(now)
        packer.puts(change, sorted(put, key=lambda entry: entry.order))

    def _where(self, name: str) -> str:
        return f"{self.session.actor}.{name} of session {self.session.id}"


def _sample(root: Node, place: int, read: Read) -> Cell:
    """An item at a place or shortly before it: a small one, if there is one that is read."""
    cell = at(root, place, read)
    for near in range(place, max(place - _NEAR, -1), -1):
        if unread_between(root, near, near + 1, large=False):
            break
        if (one := at(root, near, read)).raw is not None:
            return one
    return cell


def _scanned(root: Node | None, searched: set[Cell]) -> list[tuple[Cell, int]]:
    """The places of items in a tree; nodes that are unread hold none of them."""
    found: list[tuple[Cell, int]] = []
    waiting: list[tuple[Node, int]] = [(root, 0)] if root else []
    while waiting:
        node, offset = waiting.pop()
        for place, cell in enumerate(node.items or ()):
            if cell in searched:
                found.append((cell, offset + place))
        for inner in node.nodes or ():
            waiting.append((inner, offset))
            offset += inner.count
    return found
