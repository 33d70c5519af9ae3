"""Admission by predicted wait: as many requests of a workflow are accepted as end in the time allowed.

Source: Little, "A Proof for the Queuing Formula: L = lambda W" (Operations Research, 1961): a run that is
accepted now takes as long as the open runs need at the rate at which runs complete.
"""

from __future__ import annotations

from callboard.controller.policy import Act, Policy
from callboard.controller.view import View


class Admission(Policy):
    """As many requests as end in time."""

    every = 1.0
    allowed = 10.0
    """Seconds that a run may take, from being accepted."""
    least = 20
    """Runs that have to complete before anything is said of their rate."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, int]] = {}

    def decide(self, view: View, act: Act) -> None:
        """Less than completes where that takes too long; more as long as some wait; else no limit."""
        told, now = view.instances, view.now()
        for row in view.actors.where(workflow=True).tolist():
            name, mine = view.actors.keys[row], told.where(actor=row, workflow=True)
            opened, held = int(told["busy"][mine].sum()), int(told["mailbox"][mine].sum())
            done = int(view.actors["done"][row])
            at, before = self._seen.setdefault(name, (now, done))
            if not opened and not held:
                act.admit(name, None)
                self._seen[name] = (now, done)
            elif done - before >= self.least and now > at:
                rate, self._seen[name] = (done - before) / (now - at), (now, done)
                wait = opened / rate
                factor = min(1.5, max(0.5, self.allowed / max(wait, 1e-9)))
                why = f"a run would take {wait:.3g} s, allowed are {self.allowed:g}"
                act.admit(name, round(rate * factor, 3) if held or wait > self.allowed else None, reason=why)
