"""Head-of-line mitigation: a session that waits behind another's call moves to where there is room.

Source: the default migration policy of NALAR. A session whose own call runs stays, since it would have to
wait for that in any case.
"""

from __future__ import annotations

import numpy as np

from callboard.controller.policy import Act, Policy, instances
from callboard.controller.reading import State
from callboard.controller.view import View


class HeadOfLine(Policy):
    """Sessions that wait behind calls of others move to an idle instance."""

    every = 0.0

    def decide(self, view: View, act: Act) -> None:
        """One session for each free slot of an instance in which nothing waits."""
        futures, told = view.futures, view.instances
        for actor, rows in instances(view):
            free = np.where(told["mailbox"][rows] == 0, told["slots"][rows] - told["busy"][rows], 0)
            room = np.repeat(told["host"][rows], np.maximum(free, 0)).tolist()
            waiting = futures.where(actor=view.actors.row(actor), state=State.WAITING)
            running = set(
                futures["session"][futures.where(actor=view.actors.row(actor), state=State.RUNNING)]
            )
            for row in waiting[np.argsort(futures["made"][waiting])].tolist():
                session, host = int(futures["session"][row]), int(futures["executor"][row])
                if room and session not in running and host >= 0 and host not in room:
                    running.add(session)
                    here, there = view.hosts.keys[host], view.hosts.keys[room.pop()]
                    act.migrate(view.sessions.keys[session], here, there, reason=f"{here} is busy")
