"""Fair share per key: whoever has more running than its share has to wait.

Source: Demers, Keshav and Shenker, "Analysis and Simulation of a Fair Queueing Algorithm" (SIGCOMM, 1989), in
coarse steps. The key is the run's (``Client.submit(key=)``); of a run that has none what stands before the
first ``/`` of the session's id: ``acme/chat-7`` is acme's.
"""

from __future__ import annotations

import numpy as np

from callboard.controller.policy import Act, Policy
from callboard.controller.reading import State
from callboard.controller.remembered import Keys
from callboard.controller.view import View

_NONE = np.iinfo(np.int64).max


class FairShare(Policy):
    """Keys with more running than their share wait."""

    def __init__(self) -> None:
        self._keys = Keys()

    def decide(self, view: View, act: Act) -> None:
        """One step down for each time that a key has its share once more.

        A session with calls of several keys waits as those of them do that wait least.
        """
        futures = view.futures
        rows = np.flatnonzero(futures["alive"] & (futures["session"] >= 0))
        keys = self._keys.of(view, rows)
        taken = np.bincount(keys, futures["state"][rows] == State.RUNNING)
        share = max(1.0, taken.sum() / max(1, np.count_nonzero(np.bincount(keys))))
        above = (np.maximum(0.0, taken - share) / share).astype(np.int64)
        steps = np.full(len(view.sessions.keys), _NONE)
        np.minimum.at(steps, futures["session"][rows], above[keys])
        sessions = np.flatnonzero(steps < _NONE)
        act.set_priorities(sessions, -steps[sessions], reason=_why)


def _why(value: int) -> str:
    return f"its key has {1 - value} times its share running" if value else "its key has its share"
