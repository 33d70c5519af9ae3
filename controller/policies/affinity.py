"""Session affinity with spill: a session stays where it runs, unless more waits there than can run.

Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA, 2018), for the
bound above which the next one is taken.
"""

from __future__ import annotations

import numpy as np

from callboard.controller.policy import Act, Policy, instances
from callboard.controller.view import View


class Affinity(Policy):
    """A session stays with its instance, which has room."""

    def decide(self, view: View, act: Act) -> None:
        """By what runs and waits on each instance of an actor."""
        futures, told = view.futures, view.instances
        for actor, rows in instances(view):
            load = (told["busy"][rows] + told["mailbox"][rows]) / np.maximum(told["slots"][rows], 1)
            loads = dict(zip(told["host"][rows].tolist(), load.tolist(), strict=True))
            spill = min(loads, key=lambda host: (loads[host], host))
            at = futures.where(actor=view.actors.row(actor))
            at = at[(futures["executor"][at] >= 0) & (futures["session"][at] >= 0)]
            places = zip(futures["executor"][at].tolist(), futures["session"][at].tolist(), strict=True)
            for host, session in dict.fromkeys(places):
                if host in loads:
                    full = loads[host] >= 2 and loads[spill] < 1
                    why = "where it runs, more waits than can run" if full else "it runs there"
                    chosen = view.hosts.keys[spill if full else host]
                    act.route(view.sessions.keys[session], actor, chosen, reason=why)
