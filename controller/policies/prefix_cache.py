"""Cache-aware routing of models: a call goes to the engine that holds the beginning of its prompt.

Which one that is, is found where the call is made (:mod:`callboard.actors.prefixes`); this policy says
between which engines. One that does not tell how busy it is, while others of the same model do, is left out:
it has just begun, or it does not answer.

Source: Zheng and others, "SGLang: Efficient Execution of Structured Language Model Programs" (NeurIPS, 2024),
for cache-aware scheduling; Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA,
2018), for when another engine is taken.
"""

from __future__ import annotations

from callboard.controller.policy import Act, Policy, instances
from callboard.controller.view import View


class PrefixCache(Policy):
    """Calls of a model go where the beginning of their prompt was read last, unless too much waits there."""

    def decide(self, view: View, act: Act) -> None:
        """Where there is a choice."""
        told = view.instances
        for actor, rows in instances(view):
            if len(rows) > 1 and view.actors["model"][view.actors.row(actor)]:
                telling = rows[told["engine"][rows]]
                hosts = [view.hosts.keys[host] for host in told["host"][telling if len(telling) else rows]]
                act.route(actor, hosts, [1.0] * len(hosts), by="prefix")
