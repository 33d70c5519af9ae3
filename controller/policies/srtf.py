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
        rows = futures.rows[futures["session"][futures.rows] >= 0]
        deepest = np.zeros(len(view.sessions.keys), int)
        np.maximum.at(deepest, futures["session"][rows], futures["stage"][rows])
        reasons = [f"it has come to stage {stage}" for stage in range(deepest.max(initial=0) + 1)]
        for session, stage in enumerate(deepest.tolist()):
            if stage:
                act.set_priority(view.sessions.keys[session], stage - 1, reason=reasons[stage])
