"""Heads: a session's whole state in one message, what is long by reference; and what may go."""

from __future__ import annotations

import base64
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from callboard.infra.messages.state import Applied, Attribute, Freed, Head
from callboard.state import packing
from callboard.state.kept import Kept
from callboard.state.packing import Packer, large_key, part_key
from callboard.state.shelf import Place, Shelf
from callboard.state.tree import Cell, Node, Unread, branch, gone, leaf, on_top

FREED = "part.f"
"""How the key of a part begins that lists what is not needed any more."""
_LISTED = 64


class Base:
    """What the newest head says, beside the attributes as they stand.

    Attributes:
        sequence: of its commit, 0 if there is none yet.
        kept: the attributes as it has them.
        large: how many items refer to each large value.
        fresh: large values that came after it.
        freed: what it does not refer to any more.
        since: when the oldest message that it refers to was stored, in unix seconds.
        ttl: seconds that the state is kept after its last commit; 0: for ever.
        anew: all that it refers to was stored with it.
    """

    __slots__ = ("anew", "freed", "fresh", "kept", "large", "sequence", "since", "ttl")

    def __init__(self, sequence: int = 0, head: Head | None = None) -> None:
        head = head or Head()
        self.sequence = sequence
        self.kept = kept_of(head)
        self.large = head.large
        self.fresh: set[bytes] = set()
        self.freed = head.freed
        self.since = head.since or time.time()
        self.ttl = head.ttl
        self.anew = False

    def has(self, key: str) -> bool:
        """Whether a key is that of a large value that is stored and needed."""
        kind, _, digest = key.partition(".")
        return kind == "large" and (
            bytes.fromhex(digest) in self.large or bytes.fromhex(digest) in self.fresh
        )


def kept_of(head: Head) -> dict[str, Kept]:
    """The attributes that a head has."""
    return {
        name: Kept(one.kind, packing.tree_of(one.root) if one.root else None, one.order)
        for name, one in head.attributes.items()
    }


def settled(kept: Mapping[str, Kept]) -> dict[str, Kept]:
    """The attributes as a head wants them."""
    return {
        name: one if one.root is None or one.kind == "dict" else one.rooted(packing.settled(one.root))
        for name, one in kept.items()
    }


def anew(kept: Mapping[str, Kept]) -> dict[str, Kept]:
    """The same attributes, all of them read, as if none of their parts were stored."""
    return {name: one.rooted(_copied(one.root) if one.root else None) for name, one in kept.items()}


def _copied(node: Node) -> Node:
    if node.nodes is not None:
        return branch([_copied(inner) for inner in node.nodes])
    assert node.items is not None
    return leaf(node.items)


class Fold:
    """A new head.

    Args:
        base: the head before it.
        kept: the attributes, :func:`settled`.
    """

    def __init__(self, base: Base, kept: Mapping[str, Kept]) -> None:
        self._base = base
        self._kept = kept
        self._new = [node for one in kept.values() for node in on_top(one.root)]
        self._ids = {id(node) for node in self._new}

    def unread(self) -> list[Unread]:
        """What has to be read first: old branches, and old leaves with large values, that may go."""
        return [n for n in self._gone() if n.unread and (n.large or n.part.startswith("b"))]

    def _gone(self) -> Iterable[Node]:
        return (node for one in self._base.kept.values() for node in gone(one.root, self._ids))

    def head(self, packer: Packer, version: int, applied: list[Applied], due: set[int]) -> Head:
        """The head; what it refers to is in the packer afterwards.

        Args:
            version: of its commit; applied: the calls before it.
            due: versions whose freed messages have been removed meanwhile.
        """
        left = list(self._gone())
        large = self._counted(left)
        unused = [d for d in (*self._base.large, *self._base.fresh, *packer.large) if d not in large]
        keys = [part_key(n.part) for n in left if n.part] + [large_key(d) for d in dict.fromkeys(unused)]
        freed = [one for one in self._base.freed if one.version not in due]
        attributes = {
            name: Attribute(
                one.kind,
                packer.root(one.root, ordered=one.kind != "dict") if one.root else None,
                one.order,
            )
            for name, one in self._kept.items()
        }
        if keys:
            freed.append(Freed(version, _listed(keys, packer)))
        return Head(attributes, applied, large, freed)

    def _counted(self, left: Iterable[Node]) -> dict[bytes, int]:
        counts = Counter(self._base.large)
        before = {id(node) for one in self._base.kept.values() for node in on_top(one.root)}
        counts.update(
            cell.digest for n in self._new if not n.part and id(n) not in before for cell in _large(n)
        )
        counts.subtract(cell.digest for node in left for cell in _large(node))
        return {digest: count for digest, count in counts.items() if count > 0}


async def listed_in(shelf: Shelf, place: Place, key: str) -> list[str]:
    """The keys that such a part lists; none if it has gone already."""
    found = await shelf.load(place, [key])
    return msgspec.msgpack.decode(found[key], type=list[str]) if key in found else []


def _large(node: Node) -> Iterable[Cell]:
    return (item for item in node.items or () if item.digest) if node.large else ()


def _listed(keys: list[str], packer: Packer) -> list[str]:
    """The keys, or, if they are many, that of a part which lists them."""
    if len(keys) <= _LISTED:
        return keys
    name = "f" + base64.urlsafe_b64encode(os.urandom(9)).decode()
    packer.parts[name] = packing.encode(keys)
    return [part_key(name)]
