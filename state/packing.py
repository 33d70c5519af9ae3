"""Trees as messages, and back."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from callboard.infra.messages.state import Branch, Change, Commit, Large, Leaf, Ref, Splice
from callboard.state.splicing import with_tail
from callboard.state.tree import Cell, Entry, Node, entry_of, weight

TAIL = 2048
"""A list's last leaf stands in the head up to so many bytes, and a collection that has no more."""
TAIL_KEPT = 1024
"""What stays there when it has grown above that."""

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_commit = msgspec.msgpack.Decoder(Commit).decode
_decode_node = msgspec.msgpack.Decoder(Leaf | Branch).decode
_decode_large = msgspec.msgpack.Decoder(Large).decode


def large_key(digest: bytes) -> str:
    """The rest of the subject of a large value."""
    return f"large.{digest.hex()}"


def part_key(part: str) -> str:
    """The rest of the subject of a part."""
    return f"part.{part}"


class Packer:
    """Collects what has to be stored before the message that refers to it.

    Attributes:
        parts: by name; large: contents of large values, by digest.
    """

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self.large: dict[bytes, bytes | None] = {}
        self._named: list[Node] = []

    def take_back(self) -> None:
        """Nobody knows whether the parts were stored: the nodes in them are to be stored anew."""
        for node in self._named:
            node.part = ""

    def contents(self) -> dict[str, bytes]:
        """What has to be stored, by key; large values that were not read are stored already."""
        found = {part_key(name): body for name, body in self.parts.items()}
        found.update((large_key(digest), raw) for digest, raw in self.large.items() if raw is not None)
        return found

    def items(self, cells: Sequence[Cell]) -> tuple[list[Raw], list[int]]:
        """Items as they travel, and which of them are references."""
        items: list[Raw] = []
        large: list[int] = []
        for place, cell in enumerate(cells):
            if cell.digest:
                self.large[cell.digest] = cell.raw or self.large.get(cell.digest)
                large.append(place)
                items.append(Raw(encode(Large(cell.digest, cell.size))))
            else:
                items.append(Raw(cell.raw or b""))
        return items, large

    def splice(self, start: int, removed: int, cells: Sequence[Cell]) -> Splice:
        """A change of a list as it travels."""
        return Splice(start, removed, *self.items(cells))

    def puts(self, change: Change, entries: Sequence[Entry]) -> None:
        """Add what is put into a dict to a change."""
        change.keys = [Raw(entry.key) for entry in entries]
        change.values, change.large = self.items(entries)

    def root(self, root: Node, *, ordered: bool) -> Ref:
        """The root of a tree for a head: it stands there itself, with a list's last leaf.

        Args:
            ordered: new items come at the end.
        """
        return self._ref(root, on_edge=True, ordered=ordered)

    def _ref(self, node: Node, *, on_edge: bool, ordered: bool) -> Ref:
        inline: Leaf | Branch | None = None
        if not node.part:
            inline = self._node(node, on_edge=on_edge, ordered=ordered)
            if not on_edge or (node.items is not None and weight(node) > TAIL):
                node.part = _new_part("l" if node.nodes is None else "b")
                self.parts[node.part] = encode(inline)
                self._named.append(node)
                inline = None
        return Ref(node.part, node.count, node.size, node.large, node.low, inline)

    def _node(self, node: Node, *, on_edge: bool, ordered: bool) -> Leaf | Branch:
        if node.nodes is not None:
            last = len(node.nodes) - 1
            return Branch(
                [
                    self._ref(inner, on_edge=on_edge and ordered and place == last, ordered=ordered)
                    for place, inner in enumerate(node.nodes)
                ]
            )
        assert node.items is not None
        entries = [item for item in node.items if isinstance(item, Entry)]
        items, large = self.items(node.items)
        return Leaf(items, large, [Raw(e.key) for e in entries], [e.order for e in entries])


def large_of(change: Change) -> set[bytes]:
    """Digests of the large values in a change."""
    lists = [(one.items, one.large) for one in change.splices] + [(change.values, change.large)]
    return {_decode_large(items[place]).digest for items, large in lists for place in large}


def appended(known: Change | None, change: Change) -> bool:
    """Whether a change goes on where the one before it has ended; that one then holds both."""
    if known is None or len(known.splices) != 1 or len(change.splices) != 1:
        return False
    first, second = known.splices[0], change.splices[0]
    if second.removed or second.start != first.start + len(first.items):
        return False
    first.large += [len(first.items) + place for place in second.large]
    first.items += second.items
    return True


def settled(root: Node) -> Node:
    """A list's tree as a head wants it: a small last leaf, everything before it in parts."""
    return with_tail(root, TAIL, TAIL_KEPT)


def tree_of(ref: Ref) -> Node:
    """The node that a reference stands for, unread if a message holds it."""
    node = Node(ref.part, ref.count, ref.size, ref.large, ref.low)
    if ref.node is not None:
        _fill(node, ref.node)
    return node


def fill(node: Node, body: bytes) -> None:
    """Give an unread node what its message holds.

    Raises:
        msgspec.DecodeError: it is no node.
    """
    _fill(node, _decode_node(body))


def _fill(node: Node, content: Leaf | Branch) -> None:
    if isinstance(content, Branch):
        node.nodes = [tree_of(ref) for ref in content.nodes]
        return
    found = cells_of(content.items, content.large)
    if content.keys:
        entries = zip(content.keys, content.orders, found, strict=True)
        node.items = [entry_of(bytes(key), order, cell) for key, order, cell in entries]
    else:
        node.items = found


def cells_of(items: Sequence[Raw], large: Sequence[int]) -> list[Cell]:
    """Items that have travelled."""
    found = [Cell(raw := bytes(item), len(raw), len(raw)) for item in items]
    for place in large:
        reference = _decode_large(items[place])
        found[place] = Cell(None, reference.size, reference.size, reference.digest)
    return found


def _new_part(kind: str) -> str:
    return kind + base64.urlsafe_b64encode(os.urandom(9)).decode()
