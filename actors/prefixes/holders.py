"""Who holds which prefixes: what is known of the caches of an actor's engines."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

MOST: Final = 50_000
"""Points that are remembered of one actor, some 10 MB; those that nobody has used for longest go first."""


class Holders:
    """The hosts whose engines hold a prefix, by the point at which it ends.

    Args:
        most: points that are remembered.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._hosts: OrderedDict[int, tuple[str, ...]] = OrderedDict()
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._hosts)

    def count(self, host: str) -> int:
        """How many points a host holds."""
        return self._counts[host]

    def add(self, points: Sequence[int], host: str) -> None:
        """A host holds these from now on, links of one chain: of them the last is forgotten first."""
        for point in reversed(points):
            known = self._hosts.get(point, ())
            if host not in known:
                known = (*known, host)
                self._counts[host] += 1
            self._hosts[point] = known
            self._hosts.move_to_end(point)
        while len(self._hosts) > self._most:
            _, hosts = self._hosts.popitem(last=False)
            self._counts.subtract(hosts)

    def drop(self, points: Iterable[int], host: str) -> None:
        """A host holds these no more."""
        for point in points:
            known = self._hosts.get(point, ())
            if host in known:
                self._counts[host] -= 1
                left = tuple(one for one in known if one != host)
                if left:
                    self._hosts[point] = left
                else:
                    del self._hosts[point]

    def forget(self, host: str) -> None:
        """A host holds nothing."""
        if self._counts[host]:
            self.drop([point for point, known in self._hosts.items() if host in known], host)
        del self._counts[host]

    def depths(self, points: Sequence[int]) -> dict[str, int]:
        """How many links of a chain each host holds; those that hold none are left out."""
        found: dict[str, int] = {}
        for depth in range(len(points), 0, -1):
            for host in self._hosts.get(points[depth - 1], ()):
                found.setdefault(host, depth)
        return found
