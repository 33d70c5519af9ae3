"""One attribute of a session as it stands, and what a change makes of it."""

from __future__ import annotations

from collections.abc import Iterator

from callboard.infra.messages.state import Change
from callboard.state import packing
from callboard.state.splicing import splice
from callboard.state.tree import (
    Cell,
    Entry,
    Node,
    Read,
    Unread,
    before,
    entry_of,
    hashed,
    having,
    unread_between,
    unread_of,
)


class Kept:
    """An attribute; never changed, but replaced.

    Attributes:
        kind: ``list``, ``dict``, ``value`` or ``counter``.
        root: its items; None if there are none.
        order: of the next entry that is put into a dict.
        count: items; size: their bytes.
    """

    __slots__ = ("count", "kind", "order", "root", "size")

    def __init__(self, kind: str, root: Node | None = None, order: int = 0) -> None:
        self.kind = kind
        self.root = root
        self.order = order
        self.count = root.count if root else 0
        self.size = root.size if root else 0

    def rooted(self, root: Node | None) -> Kept:
        """With other items."""
        return Kept(self.kind, root, self.order)

    def spliced(self, start: int, stop: int, items: list[Cell], read: Read) -> Kept:
        """With items in the place of those from start to stop."""
        return self.rooted(splice(self.root, start, stop, items, read))

    # -- as a dict ---------------------------------------------------------------------------------

    def find(self, key: bytes, read: Read) -> tuple[int, Entry | None]:
        """Where the entry with a key is or would be in the tree, and the entry."""
        hash_ = hashed(key)
        for place, entry in having(self.root, hash_, read):
            if isinstance(entry, Entry) and entry.key == key:
                return place, entry
        return before(self.root, hash_, read), None

    def put(self, key: bytes, cell: Cell, read: Read) -> tuple[Kept, Entry, Entry | None]:
        """With a cell under a key, at the end if the key is new; the entry, and the one that was there."""
        place, known = self.find(key, read)
        entry = entry_of(key, known.order if known else self.order, cell)
        made = self.spliced(place, place + bool(known), [entry], read)
        return made if known else Kept(made.kind, made.root, self.order + 1), entry, known

    def without(self, key: bytes, read: Read) -> Kept:
        """Without a key, if it is there."""
        place, known = self.find(key, read)
        return self.spliced(place, place + 1, [], read) if known else self


def apply(kept: Kept, change: Change, read: Read) -> Kept:
    """An attribute after a change."""
    for one in change.splices:
        new = packing.cells_of(one.items, one.large)
        kept = kept.spliced(one.start, one.start + one.removed, new, read)
    if change.cleared:
        kept = kept.rooted(None)
    for key in change.removed:
        kept = kept.without(bytes(key), read)
    put = packing.cells_of(change.values, change.large)
    for key, cell in zip(change.keys, put, strict=True):
        kept, _, _ = kept.put(bytes(key), cell, read)
    return kept


def unread_for(kept: Kept, change: Change) -> Iterator[Unread]:
    """What has to be read before a change can be applied, as far as that is known yet."""
    for one in change.splices:
        # Also the neighbours: the item before it says to which leaf it goes, and small leaves are joined.
        last = one.start + one.removed
        yield from unread_between(kept.root, max(one.start - 1, 0), one.start + 1, large=False)
        if last > one.start:
            yield from unread_between(kept.root, max(last - 1, 0), last + 1, large=False)
    for key in () if change.cleared else (*change.removed, *change.keys):
        yield from unread_of(kept.root, hashed(bytes(key)), large=False)
