"""Which points an engine loses when it removes a block of its cache.

A point is a place in a text, a block so many tokens. How many tokens stand before a place is reckoned: as
large a part of all that the engine has counted as the characters before it are of all characters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from callboard.actors.models.cache import BlockId, CacheEvent, Cleared, Read, Removed, Stored
from callboard.actors.prefixes.chain import Chain, of_request

_REQUESTS: Final = 2048
"""Requests of which is remembered which blocks are theirs."""


class _Asked:
    """A request: its last block; its prompt and the tokens of that, once the engine has read it."""

    __slots__ = ("chain", "last", "tokens")

    def __init__(self) -> None:
        self.last: BlockId | None = None
        self.chain: Chain | None = None
        self.tokens = 0


class Blocks:
    """The blocks of one engine's cache, and the points that end in them.

    Args:
        dropped: told of points that the engine holds no more; cleared: told that it holds none.
    """

    def __init__(self, dropped: Callable[[Iterable[int]], None], cleared: Callable[[], None]) -> None:
        self._dropped = dropped
        self._cleared = cleared
        self._size = 1
        self._asked: OrderedDict[str, _Asked] = OrderedDict()
        self._parents: dict[BlockId, BlockId | None] = {}
        self._points: dict[BlockId, set[int]] = {}
        self._block: dict[int, BlockId] = {}

    def __len__(self) -> int:
        return len(self._parents)

    def take(self, event: CacheEvent) -> None:
        """Something has happened in the cache."""
        match event:
            case Read():
                asked = self._of(event.id)
                asked.chain, asked.tokens = of_request(event.request), event.tokens
                self._map(asked)
            case Stored():
                self._store(event)
            case Removed():
                self._remove(event.blocks)
            case Cleared():
                self._asked.clear()
                self._parents.clear()
                self._points.clear()
                self._block.clear()
                self._cleared()

    def _of(self, request: str) -> _Asked:
        asked = self._asked.setdefault(request, _Asked())
        self._asked.move_to_end(request)
        if len(self._asked) > _REQUESTS:
            self._asked.popitem(last=False)
        return asked

    def _store(self, event: Stored) -> None:
        self._size = event.size
        parent = event.parent
        for block in event.blocks:
            self._parents[block] = parent
            parent = block
        if event.id:
            asked = self._of(event.id)
            asked.last = parent
            if asked.chain is not None:  # it was told later than the answer came
                self._map(asked)

    def _map(self, asked: _Asked) -> None:
        """Note in which block each point of a prompt ends.

        One that ends in none that is known is held to end where the point before it does.
        """
        assert asked.chain is not None
        path = self._path(asked.last)
        before: BlockId | None = None
        for point, size in zip(asked.chain.points, asked.chain.sizes, strict=True):
            full = int(asked.tokens * size / max(1, asked.chain.whole)) // self._size
            block = path[min(full, len(path)) - 1] if path and full else self._block.get(point, before)
            if block is not None:
                self._put(point, block)
            before = block

    def _path(self, last: BlockId | None) -> list[BlockId]:
        """The blocks up to one, the first first; none where one before it is not known."""
        path: list[BlockId] = []
        while last is not None:
            if last not in self._parents:
                return []
            path.append(last)
            last = self._parents[last]
        return path[::-1]

    def _put(self, point: int, block: BlockId) -> None:
        known = self._block.get(point)
        if known is not None and known != block:
            self._points[known].discard(point)
        self._block[point] = block
        self._points.setdefault(block, set()).add(point)

    def _remove(self, blocks: Iterable[BlockId]) -> None:
        gone: list[int] = []
        for block in blocks:
            self._parents.pop(block, None)
            gone += self._points.pop(block, ())
        for point in gone:
            self._block.pop(point, None)
        if gone:
            self._dropped(gone)
