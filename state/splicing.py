"""Changing trees: items in the place of others, along new nodes from the root down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from callboard.state.tree import Cell, Node, Read, branch, leaf, weight

T = TypeVar("T")

FAN = 32
"""Nodes in a branch."""
LEAF = 4096
"""Bytes in a leaf, unless one item has more."""
LEAF_ITEMS = 256


def splice(root: Node | None, start: int, stop: int, items: Sequence[Cell], read: Read) -> Node | None:
    """The tree with items in the place of those from start to stop."""
    if root is None or (start == 0 and stop == root.count):
        nodes = _leaves(items, even=False)
    else:
        nodes = _splice(root, start, stop, items, read)
    return _rooted(nodes)


def _rooted(nodes: Sequence[Node]) -> Node | None:
    while len(nodes) > 1:
        nodes = _branches(nodes, even=False)
    root = nodes[0] if nodes else None
    while root is not None and root.nodes is not None and len(root.nodes) == 1:
        root = root.nodes[0]
    return root


def _splice(node: Node, start: int, stop: int, items: Sequence[Cell], read: Read) -> list[Node]:
    if start == 0 and stop == node.count and not items:
        return []
    if node.unread:
        read([node])
    if node.items is not None:
        at_end = start == node.count
        changed = [*node.items, *items] if at_end else [*node.items[:start], *items, *node.items[stop:]]
        if not node.large and 0 < len(changed) <= LEAF_ITEMS and not any(i.digest for i in items):
            size = node.size + sum([i.length for i in items])
            if not at_end:
                size -= sum([i.length for i in node.items[start:stop]])
            if size <= LEAF:
                return [leaf(changed, size)]
        # What grows at its end alone is filled up; elsewhere both halves get room for more.
        return _leaves(changed, even=start < node.count)
    assert node.nodes is not None
    nodes = node.nodes
    first, before_first = _holding(node, nodes, start)
    last, before_last = (first, before_first) if stop <= start else _holding(node, nodes, stop - 1)
    if first == last:
        new = _splice(nodes[first], start - before_first, stop - before_first, items, read)
    else:
        new = _splice(nodes[first], start - before_first, nodes[first].count, items, read)
        new += _splice(nodes[last], 0, stop - before_last, [], read)
    inner = [*nodes[:first], *new, *nodes[last + 1 :]]
    if stop - start > len(items):
        inner = _merged(inner, max(first - 1, 0), first + len(new) + 1)
    if len(inner) <= FAN:
        return [branch(inner)] if inner else []
    return _branches(inner, even=start < node.count)


def _holding(node: Node, nodes: Sequence[Node], index: int) -> tuple[int, int]:
    """Which node of a branch holds the item at an index, or else is the last; how many are before it."""
    offset = node.count - nodes[-1].count
    if index >= offset:  # where most changes are
        return len(nodes) - 1, offset
    offset = 0
    for place, one in enumerate(nodes):
        if index < offset + one.count:
            return place, offset
        offset += one.count
    raise AssertionError("the index is below the count of all but the last")


def _merged(nodes: list[Node], start: int, stop: int) -> list[Node]:
    """The nodes, small ones between start and stop joined with their neighbours as far as these are read."""
    done: list[Node] = nodes[:start]
    for place, node in enumerate(nodes[start:], start):
        last = done[-1] if len(done) > start and place < stop else None
        if last and last.items is not None and node.items is not None:
            both = weight(last), weight(node)
            few = last.count + node.count <= LEAF_ITEMS
            if few and min(both) < LEAF // 4 and sum(both) <= LEAF:
                done[-1] = leaf([*last.items, *node.items])
                continue
        if last and last.nodes is not None and node.nodes is not None:
            both = len(last.nodes), len(node.nodes)
            if min(both) < FAN // 4 and sum(both) <= FAN:
                done[-1] = branch([*last.nodes, *node.nodes])
                continue
        done.append(node)
    return done


def _leaves(items: Sequence[Cell], *, even: bool) -> list[Node]:
    return [leaf(some) for some in _cut(items, [i.weight for i in items], LEAF, LEAF_ITEMS, even=even)]


def _branches(nodes: Sequence[Node], *, even: bool) -> list[Node]:
    return [branch(some) for some in _cut(nodes, [1] * len(nodes), FAN, FAN, even=even)]


def _cut(
    things: Sequence[T], weights: Sequence[int], limit: int, most: int, *, even: bool
) -> Iterator[Sequence[T]]:
    """The things in pieces, each within the limits if it has more than one."""
    total = sum(weights)
    if things and total <= limit and len(things) <= most:
        yield things
        return
    pieces = max(-(-total // limit), -(-len(things) // most))
    target, length = (-(-total // pieces), -(-len(things) // pieces)) if even else (limit, most)
    start = held = 0
    for place, one in enumerate(weights):
        if place > start and (held >= target or held + one > limit or place - start >= length):
            yield things[start:place]
            start, held = place, 0
        held += one
    if start < len(things):
        yield things[start:]


def with_tail(root: Node, most: int, keep: int) -> Node:
    """The same items, the last of them in a leaf of their own if the last leaf has more bytes than most.

    Args:
        keep: bytes that may be in that leaf.
    """
    nodes = _with_tail(root, most, keep)
    return _rooted(nodes) or root


def _with_tail(node: Node, most: int, keep: int) -> list[Node]:
    if node.nodes is not None:
        inner = node.nodes[-1]
        new = _with_tail(inner, most, keep)
        if new[0] is inner:
            return [node]
        return _branches([*node.nodes[:-1], *new], even=False)
    if node.items is None or weight(node) <= most:
        return [node]
    kept = held = 0
    for item in reversed(node.items):
        if held + item.weight > keep:
            break
        held += item.weight
        kept += 1
    if not 0 < kept < node.count:
        return [node]
    return [leaf(node.items[:-kept]), leaf(node.items[-kept:])]
