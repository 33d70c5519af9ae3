"""How many requests a host keeps in its engine: as many as the engine batches, and a few for when one ends.

The engine takes any number; what it cannot batch waits there, in its order. It is better off in the mailbox,
where priorities count, policies see it, and other hosts may take it. How many it can batch depends on its
memory, its settings and the lengths of the requests, and changes; so it is found by looking.
"""

from __future__ import annotations

from callboard.actors.models.load import EngineLoad

FIRST = 16
MOST = 960
"""Requests of one host, where nobody says otherwise: its client has 1,000 connections."""
_STEP = 8
_SPARE = 4


class Room:
    """Follows what an engine can batch.

    It doubles while all of it is used and nothing waits in the engine, until something does; from then on it
    grows to the batch that the engine had then, and beyond that by an eighth. It shrinks by what is too much,
    when the batch has not grown since the last look although requests wait. (Additive increase, and decrease
    to what was measured instead of by half: the engine says how far off it is.)

    Args:
        most: requests at most.

    Attributes:
        size: requests that may be in the engine now.
    """

    def __init__(self, most: int) -> None:
        self.size = min(FIRST, most)
        self._most = most
        self._running = 0
        self._full = 0
        """The batch when requests waited; 0: none have yet."""

    @property
    def is_sought(self) -> bool:
        """Whether nobody knows yet how much is too much: it doubles."""
        return not self._full and self.size < self._most

    def glance(self, load: EngineLoad, mine: int) -> int:
        """Go by what the engine tells soon after the last time; gives the size.

        It says nothing of what the engine has just been given: so nothing shrinks, and it grows only if all
        that this host has in the engine is in its batch.
        """
        if self.is_sought and self.size <= mine <= load.running and not load.waiting:
            self.size = min(self._most, 2 * self.size)
        return self.size

    def look(self, load: EngineLoad, mine: int) -> int:
        """Go by what the engine tells now; gives the size.

        Args:
            mine: requests that this host has in the engine; others may have some, too.
        """
        spare = spare_of(load.running)
        stands = load.running <= self._running
        self._running = load.running
        if load.waiting > spare and stands:
            self._full = load.running
            share = min(1.0, mine / (load.running + load.waiting))
            excess = int((load.waiting - spare) * share)
            if excess:
                self.size = max(1, min(self.size, mine - excess))
        elif mine >= self.size and not load.waiting:
            found = self._full + spare_of(self._full)
            more = max(found, self.size + max(1, self.size // _STEP)) if self._full else 2 * self.size
            self.size = min(self._most, more)
        return self.size


def spare_of(running: int) -> int:
    """Requests that may wait in an engine that batches so many, so that it has the next when some end.

    A quarter, and four at least: requests of one length end together, and others take a while to come.
    """
    return max(_SPARE, running // _SPARE)
