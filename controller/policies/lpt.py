"""Longest processing time first, for jobs that re-enter (NALAR's LPT for software engineering).

Source: Graham, "Bounds on Multiprocessing Timing Anomalies" (SIAM J. Appl. Math., 1969). A session that comes
back to a method at a later stage has failed a check, and is long: it must not wait behind fresh ones as well.
"""

from __future__ import annotations

from callboard.controller.policy import Act, Policy
from callboard.controller.view import View


class Lpt(Policy):
    """Sessions that go round again go first."""

    def __init__(self) -> None:
        self._stages: dict[str, dict[int, set[int]]] = {}

    def decide(self, view: View, act: Act) -> None:
        """One step for each time that a session has come back to a method."""
        futures, alive = view.futures, view.sessions
        self._stages = {name: seen for name, seen in self._stages.items() if name in alive}
        rows = futures.rows[futures["session"][futures.rows] >= 0]
        columns = (futures[name][rows].tolist() for name in ("session", "call", "stage"))
        for session, call, stage in set(zip(*columns, strict=True)):
            self._stages.setdefault(alive.keys[session], {}).setdefault(call, set()).add(stage)
        for name, seen in self._stages.items():
            rounds = max(map(len, seen.values()))
            act.set_priority(name, rounds - 1, reason=f"it comes to the same method for time {rounds}")
