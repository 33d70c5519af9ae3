"""Fair share per key: whoever has more running than its share has to wait.

Source: Demers, Keshav and Shenker, "Analysis and Simulation of a Fair Queueing Algorithm" (SIGCOMM, 1989), in
coarse steps. The key is what stands before the first ``/`` of a session's id: ``acme/chat-7`` is acme's.
"""

from __future__ import annotations

import numpy as np

from callboard.controller.policy import Act, Policy
from callboard.controller.reading import State
from callboard.controller.remembered import Keys
from callboard.controller.view import View


class FairShare(Policy):
    """Keys with more running than their share wait."""

    def __init__(self) -> None:
        self._keys = Keys()

    def decide(self, view: View, act: Act) -> None:
        """One step down for each time that a key has its share once more."""
        size, state = len(view.sessions.keys), view.futures["state"]
        running = view.futures.count_by("session", size, state == State.RUNNING)
        rows = np.flatnonzero(view.futures.count_by("session", size))
        keys = self._keys.of(view.sessions)[rows]
        taken = np.bincount(keys, running[rows])
        share = max(1.0, taken.sum() / max(1, np.count_nonzero(np.bincount(keys))))
        above = (np.maximum(0.0, taken - share) / share).astype(np.int64)
        act.set_priorities(rows, -above[keys], reason=_why)


def _why(value: int) -> str:
    return f"its key has {1 - value} times its share running" if value else "its key has its share"
