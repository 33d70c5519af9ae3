"""Scaling: as many instances as what runs and waits needs.

Source: the Horizontal Pod Autoscaler of Kubernetes, "Algorithm details" and "Stabilization window": more when
all of the last looks ask for more, at most twice as many; fewer when none of the last 300 asked for all.
The load is the number of calls in the system: their rate times the time for which they wait and run (Little,
"A Proof for the Queuing Formula L = λW", 1961). The two shares, with room between them, are Schmitt's
trigger: nothing is taken away without which the others would soon be full.
"""

from __future__ import annotations

from collections import deque
from math import ceil

from callboard.controller.loads import loads
from callboard.controller.policy import Act, Policy
from callboard.controller.view import View


class Scale(Policy):
    """There are as many instances as the load needs."""

    every = 1.0
    full, idle = 0.8, 0.5
    """Shares of the slots: above the one there are to be more instances, below the other fewer."""
    rise, calm = 3, 300
    """Looks that have to agree before there are more, and fewer; a change begins a new count."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[float]] = {}

    def decide(self, view: View, act: Act) -> None:
        """Between what the last looks needed at least, and what the last five minutes needed at most."""
        for one in loads(view):
            seen = self._seen.setdefault(one.actor, deque(maxlen=self.calm))
            seen.append(one.calls / one.slots)
            least = ceil(min([*seen][-self.rise :], default=0) / self.full) if len(seen) >= self.rise else 0
            most = max(1, ceil(max(seen) / self.idle)) if len(seen) == self.calm else one.have
            for _ in range(min(least, 2 * max(1, one.have)) - one.have):
                act.provision(one.actor, reason=f"{one.calls} calls need {least} instances")
            if most < one.have:
                act.kill(one.idlest, reason=f"{most} instances of {one.actor} were enough for a while")
            if one.starting or least > one.have or most < one.have:
                seen.clear()
