"""Earliest deadline first: whoever has least time left goes first.

Source: Liu and Layland, "Scheduling Algorithms for Multiprogramming in a Hard-Real-Time Environment" (JACM,
1973), in coarse steps: each doubling of the time that is left is one step down.
"""

from __future__ import annotations

import numpy as np

from callboard.controller.policy import MOST_PRIORITY, Act, Policy
from callboard.controller.view import View


class Edf(Policy):
    """Sessions whose deadline is near go first."""

    def decide(self, view: View, act: Act) -> None:
        """By the nearest deadline of a session's open runs; one that has passed is as near as can be."""
        runs, now = view.runs, view.now()
        rows = np.flatnonzero(runs["alive"] & (runs["deadline"] > 0) & (runs["session"] >= 0))
        nearest = np.full(len(view.sessions.keys), np.inf)
        np.minimum.at(nearest, runs["session"][rows], runs["deadline"][rows])
        rows = np.flatnonzero(np.isfinite(nearest))
        steps = np.floor(np.log2(1 + np.maximum(0.0, nearest[rows] - now))).astype(np.int64)
        act.set_priorities(rows, np.maximum(0, MOST_PRIORITY - steps), reason=_why)


def _why(value: int) -> str:
    return f"its deadline comes within {2 ** (MOST_PRIORITY - value + 1) - 1} s" if value else "there is time"
