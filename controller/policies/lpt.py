"""Longest processing time first, for jobs that re-enter (NALAR's LPT for software engineering).

Source: Graham, "Bounds on Multiprocessing Timing Anomalies" (SIAM J. Appl. Math., 1969). A session that comes
back to a method at a later stage has failed a check, and is long: it must not wait behind fresh ones as well.
"""

from __future__ import annotations

from callboard.controller.policy import Act, Policy
from callboard.controller.remembered import Returns
from callboard.controller.view import View


class Lpt(Policy):
    """Sessions that go round again go first."""

    def __init__(self) -> None:
        self._returns = Returns()

    def decide(self, view: View, act: Act) -> None:
        """One step for each time that a session has come back to a method."""
        sessions, times = self._returns.of(view.sessions, view.futures)
        act.set_priorities(
            sessions, times - 1, reason=lambda value: f"it comes to the same method for time {value + 1}"
        )
