"""What a collection holds, as a tree of nodes that are never changed: a sequence of any length.

Changing it (`splicing.py`) makes new nodes along the way from the root to what is changed, and shares
all others with the tree as it was. So what a change costs follows the change, undoing it is keeping the
old root, and nodes that are stored already are stored. A node may be unread; whoever meets one calls
``read``. Nodes and items are structs that the garbage collector passes over: they make no cycles.

A list is a tree of its items in order. A dict is a tree of its entries in the order of their keys'
hashes; each entry knows its place in the dict. (The structure is a B+ tree with counts in place of
keys, path-copying as in Driscoll et al., "Making data structures persistent", 1989.)
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b, sha256

import msgspec

_REFERENCE = 48
"""About the bytes of a reference to a large item."""


class Cell(msgspec.Struct, eq=False, gc=False):
    """One item.

    Attributes:
        raw: its msgpack; None while it is large and unread.
        size: bytes of the value; length: of the value and its key.
        digest: SHA-256 of the value if it is large, else empty.
        low: the hash of its key, 0 in a list.
    """

    raw: bytes | None
    size: int
    length: int
    digest: bytes = b""
    low: int = 0

    @property
    def weight(self) -> int:
        """Bytes that it takes in its leaf."""
        return self.length - self.size + _REFERENCE if self.digest else self.length


class Entry(Cell, eq=False, gc=False, kw_only=True):
    """An item of a dict.

    Attributes:
        key: its msgpack; order: grows from entry to entry in the order of the dict.
    """

    key: bytes
    order: int


def cell_of(raw: bytes, inline_limit: int) -> Cell:
    """A new item."""
    size = len(raw)
    return Cell(raw, size, size, sha256(raw).digest() if size > inline_limit else b"")


def entry_of(key: bytes, order: int, cell: Cell) -> Entry:
    """The same item under a key."""
    length = cell.size + len(key)
    return Entry(cell.raw, cell.size, length, cell.digest, hashed(key), key=key, order=order)


def hashed(key: bytes) -> int:
    """Where a key stands in the tree of a dict."""
    return int.from_bytes(blake2b(key, digest_size=4).digest(), "big")


class Node(msgspec.Struct, eq=False, gc=False):
    """A leaf, a branch, or one that is not read yet.

    Attributes:
        part: the message that holds it; empty while there is none. A branch's begins with ``b``.
        count, size, large: items below it, their bytes, and how many of them are large.
        low: the smallest hash below it.
        items: of a leaf; nodes: of a branch; both None while unread.
    """

    part: str
    count: int
    size: int
    large: int
    low: int
    items: Sequence[Cell] | None = None
    nodes: Sequence[Node] | None = None
    _lows: list[int] | None = None

    @property
    def unread(self) -> bool:
        """Whether its message has to be read first."""
        return self.items is None and self.nodes is None

    @property
    def lows(self) -> list[int]:
        """Of a dict's node: the hashes of its items, or the smallest hash in each of its nodes."""
        if self._lows is None:
            self._lows = [one.low for one in self.items or self.nodes or ()]
        return self._lows


Unread = Node | Cell
Read = Callable[[Sequence[Unread]], None]
"""Fills nodes and large items that are unread."""


def leaf(items: Sequence[Cell], size: int | None = None) -> Node:
    """A new leaf; there must be items.

    Args:
        size: of the items, if that is known and none of them is large.
    """
    large = 0
    if size is None:
        size = sum([i.length for i in items])
        large = sum([bool(i.digest) for i in items])
    return Node("", len(items), size, large, items[0].low, items)


def branch(nodes: Sequence[Node]) -> Node:
    """A new branch; there must be nodes."""
    count = size = large = 0
    for one in nodes:
        count += one.count
        size += one.size
        large += one.large
    return Node("", count, size, large, nodes[0].low, None, nodes)


def weight(node: Node) -> int:
    """Bytes of a leaf that is read."""
    return sum([i.weight for i in node.items or ()]) if node.large else node.size


# -- looking ---------------------------------------------------------------------------------------


def at(root: Node, index: int, read: Read) -> Cell:
    """The item at an index from 0."""
    node = _read(root, read)
    while node.nodes is not None:
        for inner in node.nodes:
            if index < inner.count:
                node = _read(inner, read)
                break
            index -= inner.count
    assert node.items is not None
    return node.items[index]


def cells(root: Node | None, read: Read, start: int = 0, stop: int | None = None) -> Iterator[Cell]:
    """The items from start to stop; nodes are read some ahead."""
    stop = root.count if root and stop is None else stop or 0
    if root is None or start >= stop:
        return
    _read(root, read)
    if root.items is not None:
        yield from root.items[start:stop]
        return
    inside = list(_inside(root, start, stop))
    missing = [node for node, _, _ in inside if node.unread]
    if missing:
        read(missing)
    for node, first, last in inside:
        yield from cells(node, read, first, last)


def _inside(node: Node, start: int, stop: int) -> Iterator[tuple[Node, int, int]]:
    """The nodes of a branch that hold items from start to stop, each with the part of it that is meant."""
    offset = 0
    for inner in node.nodes or ():
        end = offset + inner.count
        if end > start:
            if offset >= stop:
                return
            yield inner, max(start - offset, 0), min(stop, end) - offset
        offset = end


def before(root: Node | None, hash_: int, read: Read) -> int:
    """How many entries of a dict have smaller hashes."""
    found = 0
    node = root
    while node is not None:
        _read(node, read)
        if node.items is not None:
            return found + bisect_left(node.lows, hash_)
        assert node.nodes is not None
        chosen = max(bisect_left(node.lows, hash_) - 1, 0)
        found += sum([n.count for n in node.nodes[:chosen]])
        node = node.nodes[chosen]
    return found


def unread_between(root: Node | None, start: int, stop: int, *, large: bool = True) -> list[Unread]:
    """What has to be read before the items from start to stop can be, as far as that is known yet."""
    if root is None or start >= stop:
        return []
    if root.unread:
        return [root]
    if root.items is not None:
        return [i for i in root.items[start:stop] if i.raw is None] if large else []
    found: list[Unread] = []
    for node, first, last in _inside(root, start, stop):
        found += unread_between(node, first, last, large=large)
    return found


def having(root: Node | None, hash_: int, read: Read, offset: int = 0) -> Iterator[tuple[int, Cell]]:
    """The entries of a dict that have a hash, with their places in the tree."""
    if root is None:
        return
    _read(root, read)
    if root.items is not None:
        for place in range(bisect_left(root.lows, hash_), bisect_right(root.lows, hash_)):
            yield offset + place, root.items[place]
    if root.nodes is not None:
        first, last = _may_have(root, hash_)
        offset += sum([n.count for n in root.nodes[:first]])
        for node in root.nodes[first:last]:
            yield from having(node, hash_, read, offset)
            offset += node.count


def unread_of(root: Node | None, hash_: int, *, large: bool = True) -> list[Unread]:
    """What has to be read before the entries with a hash can be, as far as that is known yet."""
    if root is None:
        return []
    if root.unread:
        return [root]
    if root.items is not None:
        return [i for i in root.items if i.low == hash_ and i.raw is None] if large else []
    assert root.nodes is not None
    first, last = _may_have(root, hash_)
    return [one for node in root.nodes[first:last] for one in unread_of(node, hash_, large=large)]


def _may_have(node: Node, hash_: int) -> tuple[int, int]:
    """From which to which of a branch's nodes entries with a hash may be."""
    first = max(bisect_left(node.lows, hash_) - 1, 0)
    return first, max(bisect_right(node.lows, hash_), first + 1)


def _read(node: Node, read: Read) -> Node:
    if node.unread:
        read([node])
    return node


# -- comparing -------------------------------------------------------------------------------------


def on_top(root: Node | None) -> Iterator[Node]:
    """The nodes from the root down to those, and with those, that a message holds."""
    if root is not None:
        yield root
        if not root.part:
            for node in root.nodes or ():
                yield from on_top(node)


def gone(old: Node | None, kept: set[int]) -> Iterator[Node]:
    """The nodes of an old tree that are not in a new one, branches before what is below them.

    Args:
        kept: ``id`` of the nodes on top of the new one.
    """
    if old is not None and id(old) not in kept:
        yield old
        for node in old.nodes or ():
            yield from gone(node, kept)
