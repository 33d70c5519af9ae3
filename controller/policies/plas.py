"""Program-level attained service: who has been served least goes first (Autellix's PLAS).

Source: Luo et al., "Autellix: An Efficient Serving Engine for LLM Agents as General Programs" (2025), with
its discrete queues: from one to the next the attained service doubles.
"""

from __future__ import annotations

import numpy as np

from callboard.controller.policy import Act, Policy
from callboard.controller.reading import State
from callboard.controller.remembered import Remembered
from callboard.controller.view import View


class Plas(Policy):
    """Sessions that have been served least go first."""

    quantum = 1.0
    """Seconds of service after which a session leaves the first queue."""

    def __init__(self) -> None:
        self._served = Remembered(seconds=np.float64)
        self._at: float | None = None

    def decide(self, view: View, act: Act) -> None:
        """Count the seconds of what runs; each doubling is one step down."""
        now = view.now()
        elapsed, self._at = now - (now if self._at is None else self._at), now
        running = view.futures["state"] == State.RUNNING
        counts = view.futures.count_by("session", len(view.sessions.keys), running)
        self._served.follow(view.sessions)
        served, rows = self._served["seconds"], np.flatnonzero(counts)
        served += elapsed * counts
        levels = np.ceil(np.log2(np.maximum(served[rows], self.quantum) / self.quantum)).astype(np.int64)
        act.set_priorities(
            rows, -levels, reason=lambda value: f"its calls have run for {2**-value * self.quantum:g} s"
        )
