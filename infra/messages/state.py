"""The managed state of a session: a log of commits, and the parts that its heads refer to.

All structs but ``Commit``, ``Change``, ``Head`` and ``Attribute`` are arrays, since there are many of them.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw


class Splice(msgspec.Struct, array_like=True):
    """Items put in the place of others, in a list.

    Attributes:
        start: where; removed: how many items go.
        items: what comes; large: which of them are a :class:`Large` in place of the value.
    """

    start: int
    removed: int
    items: list[Raw] = []
    large: list[int] = []


class Change(msgspec.Struct, omit_defaults=True):
    """What a commit does to one attribute.

    Attributes:
        kind: ``list``, ``dict``, ``value`` or ``counter``.
        splices: of anything but a dict, one after the other.
        cleared: everything goes from a dict; removed: or these keys, before anything is put.
        keys, values: what is put into a dict; a key that is there keeps its place.
        large: which values are a :class:`Large`.
    """

    kind: str
    splices: list[Splice] = []
    cleared: bool = False
    removed: list[Raw] = []
    keys: list[Raw] = []
    values: list[Raw] = []
    large: list[int] = []


class Large(msgspec.Struct, array_like=True):
    """A value that lies in messages of its own.

    Attributes:
        digest: SHA-256 of its msgpack; size: bytes.
    """

    digest: bytes
    size: int


class Leaf(msgspec.Struct, array_like=True, tag=0):
    """Items that follow each other.

    Attributes:
        items: the values; large: which of them are a :class:`Large`.
        keys: of a dict's items; orders: where each stands among the items of the dict.
    """

    items: list[Raw]
    large: list[int] = []
    keys: list[Raw] = []
    orders: list[int] = []


class Branch(msgspec.Struct, array_like=True, tag=1):
    """Nodes that follow each other.

    Attributes:
        nodes: each a leaf or a branch of its own.
    """

    nodes: list[Ref]


class Ref(msgspec.Struct, array_like=True):
    """A node, and what is below it.

    Attributes:
        part: the message that holds the node; empty if it stands here.
        count: items; size: their bytes; large: how many of them are a :class:`Large`.
        low: the smallest hash of a key, in a dict.
        node: the node itself, where it stands here.
    """

    part: str
    count: int
    size: int
    large: int = 0
    low: int = 0
    node: Leaf | Branch | None = None


class Attribute(msgspec.Struct, omit_defaults=True):
    """One attribute as a head has it.

    Attributes:
        kind: as in :class:`Change`; root: nothing if it is empty.
        order: of the next item that is put into a dict.
    """

    kind: str
    root: Ref | None = None
    order: int = 0


class Applied(msgspec.Struct, array_like=True):
    """A call that has been applied.

    Attributes:
        digest: first 8 bytes of the BLAKE2b of its id; sequence: of its commit.
    """

    digest: bytes
    sequence: int


class Freed(msgspec.Struct, array_like=True):
    """Messages that no head refers to any more; they go when no commit that needs them is kept.

    Attributes:
        version: of the first commit that did without; keys: the rest of their subjects.
    """

    version: int
    keys: list[str]


class Head(msgspec.Struct, omit_defaults=True):
    """A whole state, what is long by reference.

    Attributes:
        attributes: by name.
        applied: the last calls before this commit.
        large: how many items refer to each large value, by digest.
        freed: what may go soon.
        since: when the oldest message that it refers to was stored, in unix seconds.
        ttl: seconds that the state is kept after its last commit; 0: for ever.
    """

    attributes: dict[str, Attribute] = {}
    applied: list[Applied] = []
    large: dict[bytes, int] = {}
    freed: list[Freed] = []
    since: float = 0.0
    ttl: float = 0.0


class Commit(msgspec.Struct, omit_defaults=True):
    """One step of a session's state at an actor. The newest head and the changes after it are the state.

    Attributes:
        version: counts the commits, from 1.
        epoch: of the holder that wrote it; holder: a host's id.
        base: sequence of the commit whose head the changes build on; 0: on nothing, or it has one itself.
        size: bytes of the state after it.
        call: id of the call that made it; result: what the call gave.
        changes: by attribute; left out where they are too many, then there is a head.
        head: the state after this commit, now and then.
    """

    version: int
    epoch: int = 0
    holder: str = ""
    base: int = 0
    size: int = 0
    call: str = ""
    result: Raw = Raw(b"\xc0")
    changes: dict[str, Change] = {}
    head: Head | None = None
