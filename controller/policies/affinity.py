"""Session affinity with spill: a session stays where it runs, unless more waits there than can run.

Source: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA, 2018), for the
bound above which the next one is taken.
"""

from __future__ import annotations

import numpy as np

from callboard.controller.policy import Act, Policy, calls, instances
from callboard.controller.reading import State
from callboard.controller.view import View


class Affinity(Policy):
    """A session stays with its instance, which has room."""

    def decide(self, view: View, act: Act) -> None:
        """By what runs and waits on each instance of an actor."""
        futures, told, opened = view.futures, view.instances, calls(view, State.WAITING, State.RUNNING)
        for actor, rows in instances(view):
            hosts = told["host"][rows]
            loads = np.full(len(view.hosts.keys), np.nan)
            loads[hosts] = (told["busy"][rows] + told["mailbox"][rows]) / np.maximum(told["slots"][rows], 1)
            spill = hosts[np.lexsort((hosts, loads[hosts]))[0]]
            at = opened.get(actor, rows[:0])
            at = at[np.isfinite(loads[futures["executor"][at]])]
            sessions, first = np.unique(futures["session"][at], return_index=True)
            runs = futures["executor"][at][first]
            full = (loads[runs] >= 2) & (loads[spill] < 1)
            act.set_routes(sessions[~full], actor, runs[~full], reason="it runs there")
            if full.any():
                there = np.full(np.count_nonzero(full), spill)
                act.set_routes(sessions[full], actor, there, reason="where it runs, more waits than can run")
