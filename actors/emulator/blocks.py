"""The KV cache as blocks: which are in use, which still hold a prefix that may come again.

As vLLM does it (its design document "Automatic Prefix Caching"): a full block is known by the hash of all
tokens up to its end; what nobody uses any more stays until its room is needed, the longest unused first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class Blocks:
    """A pool of so many blocks.

    Attributes:
        size: how many there are.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._fresh = size
        self._used: dict[int, int] = {}
        self._unused: OrderedDict[int, None] = OrderedDict()
        self._private = 0

    @property
    def free(self) -> int:
        """Blocks that can be had, those that hold a prefix nobody uses included."""
        return self._fresh + len(self._unused)

    @property
    def usage(self) -> float:
        """Share of the blocks that are in use, 0 to 1."""
        return (self.size - self.free) / self.size

    def held(self, hashes: Sequence[int]) -> int:
        """How many of these blocks, from the first on, are there."""
        for place, one in enumerate(hashes):
            if one not in self._used and one not in self._unused:
                return place
        return len(hashes)

    def use(self, hashes: Sequence[int]) -> None:
        """Take blocks that are there into use."""
        for one in hashes:
            self._unused.pop(one, None)
            self._used[one] = self._used.get(one, 0) + 1

    def take(self, count: int) -> bool:
        """Take so many empty blocks into use; False, and none, if there are not so many."""
        if count > self.free:
            return False
        for _ in range(count - self._fresh):
            self._unused.popitem(last=False)
        self._fresh -= min(count, self._fresh)
        self._private += count
        return True

    def full(self, one: int) -> None:
        """A block that was taken empty is full, and has this hash from now on."""
        self._private -= 1
        if one in self._used or one in self._unused:  # somebody has computed the same: one of the two is kept
            self._fresh += 1
            self._unused.pop(one, None)
        self._used[one] = self._used.get(one, 0) + 1

    def give_back(self, hashes: Sequence[int], private: int) -> None:
        """Use no more: full blocks, of which the end of a text goes first, and blocks that are not full."""
        for one in reversed(hashes):
            left = self._used[one] - 1
            if left:
                self._used[one] = left
            else:
                del self._used[one]
                self._unused[one] = None
        self._private -= private
        self._fresh += private
