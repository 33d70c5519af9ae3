"""Weighted routing: calls are shared by how many each instance can run at once.

Source: weighted rendezvous hashing, Schindelhauer and Schomaker, "Weighted Distributed Hash Tables" (2005),
by which makers follow it.
"""

from __future__ import annotations

from callboard.controller.policy import Act, Policy, instances
from callboard.controller.view import View


class Weighted(Policy):
    """Instances get calls by the number of their slots."""

    every = 1.0

    def decide(self, view: View, act: Act) -> None:
        """Where there is a choice."""
        for actor, rows in instances(view):
            if len(rows) > 1:
                hosts = [view.hosts.keys[host] for host in view.instances["host"][rows]]
                act.route(actor, hosts, view.instances["slots"][rows].tolist())
