"""How many requests a host keeps in its engine: as many as the engine batches, and a few for when one ends.

The engine takes any number; what it cannot batch waits there, in its order. It is better off in the mailbox,
where priorities count, policies see it, and other hosts may take it. How many it can batch depends on its
memory, its settings and the lengths of the requests, and changes; so it is found by looking.
"""

from __future__ import annotations

import math

from callboard.actors.models.load import EngineLoad

FIRST = 32
MOST = 1024
"""Requests of one host, where nobody says otherwise."""
_SPARE = 8


class Room:
    """Follows what an engine can batch.

    It doubles while all of it is used and nothing waits in the engine, until something does; from then on it
    grows by an eighth. It shrinks to what the engine batches, when that has not grown since the last look
    although requests wait there. (Additive increase and decrease to what was measured, not by half: the
    engine says how far off it is.)

    Args:
        most: requests at most.

    Attributes:
        size: requests that may be in the engine now.
    """

    def __init__(self, most: int) -> None:
        self.size = min(FIRST, most)
        self._most = most
        self._running = 0
        self._met = False

    def look(self, load: EngineLoad, mine: int) -> int:
        """Go by what the engine tells now; gives the size.

        Args:
            mine: requests that this host has in the engine; others may have some, too.
        """
        spare = spare_of(load.running)
        stands = load.running <= self._running
        self._running = load.running
        if load.waiting > spare and stands:
            self._met = True
            share = min(1.0, mine / (load.running + load.waiting))
            self.size = max(1, min(self.size, mine - math.ceil((load.waiting - spare) * share)))
        elif mine >= self.size and not load.waiting:
            more = max(1, self.size // _SPARE) if self._met else self.size
            self.size = min(self._most, self.size + more)
        return self.size


def spare_of(running: int) -> int:
    """Requests that may wait in an engine that batches so many, so that it has the next when one ends."""
    return max(1, running // _SPARE)
