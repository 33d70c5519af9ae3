"""Fair share per key: whoever has more running than its share has to wait.

Source: Demers, Keshav and Shenker, "Analysis and Simulation of a Fair Queueing Algorithm" (SIGCOMM, 1989), in
coarse steps. The key is what stands before the first ``/`` of a session's id: ``acme/chat-7`` is acme's.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from callboard.controller.policy import Act, Policy
from callboard.controller.reading import State
from callboard.controller.view import View


class FairShare(Policy):
    """Keys with more running than their share wait."""

    def decide(self, view: View, act: Act) -> None:
        """One step down for each time that a key has its share once more."""
        size, state = len(view.sessions.keys), view.futures["state"]
        running = view.futures.count_by("session", size, state == State.RUNNING)
        opened = np.flatnonzero(view.futures.count_by("session", size)).tolist()
        names = [view.sessions.keys[row] for row in opened]
        keys = [name.partition("/")[0] for name in names]
        taken: Counter[str] = Counter(dict.fromkeys(keys, 0))
        for key, runs in zip(keys, running[opened].tolist(), strict=True):
            taken[key] += runs
        share = max(1.0, sum(taken.values()) / max(1, len(taken)))
        for name, key in zip(names, keys, strict=True):
            above = int(max(0.0, taken[key] - share) / share)
            act.set_priority(name, -above, reason=f"{key} has {taken[key]} running")
