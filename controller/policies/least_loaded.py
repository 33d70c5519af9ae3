"""Least-loaded routing: calls go where there is room (NALAR's default routing, by weights).

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (IEEE TPDS, 2001), for why
a coarse look at the load is enough: weights change by quarters of what an instance can run. Calls that are
expected to take long count more than short ones.
"""

from __future__ import annotations

import numpy as np

from callboard.controller.backlog import heaviness
from callboard.controller.policy import Act, Policy, instances
from callboard.controller.view import View


class LeastLoaded(Policy):
    """Instances get calls by the room that they have."""

    def decide(self, view: View, act: Act) -> None:
        """Weights by free slots; what is full gets next to nothing."""
        heavy = heaviness(view)
        for actor, rows in instances(view):
            if len(rows) > 1:
                slots = np.maximum(view.instances["slots"][rows], 1)
                calls = view.instances["busy"][rows] + view.instances["mailbox"][rows]
                load = calls * heavy[rows] / slots
                room = np.ceil(4 * np.clip(1 - load, 0.01, 1)) * slots
                hosts = [view.hosts.keys[host] for host in view.instances["host"][rows]]
                act.route(actor, hosts, room.tolist())
