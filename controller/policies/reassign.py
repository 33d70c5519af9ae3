"""Resource reassignment between agents: from whoever has been idle for long to whoever has a queue.

Source: the default policy of NALAR that moves resources from lightly to heavily loaded agents. What has been
taken is owed: nobody loses a second instance to a queue before the first has been put to use.
"""

from __future__ import annotations

from collections import Counter

from callboard.controller.loads import loads
from callboard.controller.policy import Act, Policy
from callboard.controller.view import View


class Reassign(Policy):
    """Instances go from idle actors to those with a queue."""

    every = 1.0
    idle = 0.5
    """Share of the slots of all instances but one; below it an actor is idle."""
    rise, calm = 3, 60
    """Looks for which there has to be a queue, and for which who gives must have been idle."""

    def __init__(self) -> None:
        self._queued: Counter[str] = Counter()
        self._idle: Counter[str] = Counter()
        self._owed: set[str] = set()

    def decide(self, view: View, act: Act) -> None:
        """An instance where there is room; where there is none, the end of an idle one."""
        found = list(loads(view))
        for one in found:
            queue = one.calls > one.slots * one.have and not one.starting and one.room >= 0
            idle = one.have > 1 and one.calls <= self.idle * one.slots * (one.have - 1)
            self._queued[one.actor] = self._queued[one.actor] + 1 if queue else 0
            self._idle[one.actor] = self._idle[one.actor] + 1 if idle else 0
        for one in [one for one in found if self._queued[one.actor] >= self.rise]:
            givers = [giver for giver in found if self._idle[giver.actor] >= self.calm]
            if one.room:
                act.provision(one.actor, reason=f"{one.calls} calls wait or run at {one.have} instances")
            elif givers and one.actor not in self._owed:
                act.kill(givers[0].idlest, reason=f"{givers[0].actor} is idle, and {one.actor} has a queue")
                self._idle[givers[0].actor] = 0
                self._owed.add(one.actor)
        self._owed -= {one.actor for one in found if one.room or not self._queued[one.actor]}
