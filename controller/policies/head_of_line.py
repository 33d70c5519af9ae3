"""Head-of-line mitigation: a session that waits behind another's call moves to where there is room.

Source: the default migration policy of NALAR. A session whose own call runs stays, since it would have to
wait for that in any case.
"""

from __future__ import annotations

import numpy as np

from callboard.controller.policy import Act, Policy, calls, instances
from callboard.controller.reading import State
from callboard.controller.view import View


class HeadOfLine(Policy):
    """Sessions that wait behind calls of others move to an idle instance."""

    every = 0.0

    def decide(self, view: View, act: Act) -> None:
        """One session for each free slot of an instance in which nothing waits."""
        futures, told = view.futures, view.instances
        waiting, running = calls(view, State.WAITING), calls(view, State.RUNNING)
        for actor, rows in instances(view):
            free = np.where(told["mailbox"][rows] == 0, told["slots"][rows] - told["busy"][rows], 0)
            room = np.repeat(told["host"][rows], np.maximum(free, 0))[::-1]
            at = waiting.get(actor, rows[:0])
            at = at[np.argsort(futures["made"][at], kind="stable")]
            busy = futures["session"][running.get(actor, rows[:0])]
            stuck = ~np.isin(futures["session"][at], busy) & ~np.isin(futures["executor"][at], room)
            _, first = np.unique(futures["session"][at[stuck]], return_index=True)
            for row, host in zip(at[stuck][np.sort(first)].tolist(), room.tolist(), strict=False):
                here, there = view.hosts.keys[futures["executor"][row]], view.hosts.keys[host]
                act.migrate(
                    view.sessions.keys[futures["session"][row]], here, there, reason=f"{here} is busy"
                )
