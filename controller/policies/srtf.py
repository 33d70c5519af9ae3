"""Shortest remaining time first, by stage: what has come far has least before it (NALAR's SRTF)."""

from __future__ import annotations

import numpy as np

from callboard.controller.policy import Act, Policy
from callboard.controller.view import View


class Srtf(Policy):
    """Sessions that have come farthest go first."""

    def decide(self, view: View, act: Act) -> None:
        """One step of priority for each stage behind the deepest open call of a session."""
        futures = view.futures
        rows = np.flatnonzero(futures["alive"] & (futures["session"] >= 0))
        deepest = np.zeros(len(view.sessions.keys), futures["stage"].dtype)
        np.maximum.at(deepest, futures["session"][rows], futures["stage"][rows])
        sessions = np.flatnonzero(deepest)
        act.set_priorities(
            sessions, deepest[sessions] - 1, reason=lambda value: f"it has come to stage {value + 1}"
        )
