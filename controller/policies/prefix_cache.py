"""Cache-aware routing of models: a call goes to the engine that holds the beginning of its prompt.

Which one that is, is found where the call is made (:mod:`callboard.actors.prefixes`); this policy says
between which engines. One that has told nothing of itself for a while, though others of the same model have,
is left out: it has just begun, or it does not answer.

Source: Zheng and others, "SGLang: Efficient Execution of Structured Language Model Programs" (NeurIPS, 2024),
for cache-aware scheduling; Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (SODA,
2018), for when another engine is taken.
"""

from __future__ import annotations

from callboard.controller.policy import Act, Policy, instances
from callboard.controller.view import View


class PrefixCache(Policy):
    """Calls of a model go where the beginning of their prompt was read last, unless too much waits there."""

    patience = 5.0
    """Seconds that an engine may be silent: a busy one misses a look at times, and a change costs reading."""

    def __init__(self) -> None:
        self._heard: dict[str, float] = {}

    def decide(self, view: View, act: Act) -> None:
        """Where there is a choice."""
        told, now = view.instances, view.now()
        self._heard = {key: at for key, at in self._heard.items() if now - at <= self.patience}
        self._heard |= {told.keys[row]: now for row in told.where(engine=True).tolist()}
        for actor, rows in instances(view):
            if len(rows) > 1 and view.actors["model"][view.actors.row(actor)]:
                telling = [row for row in rows.tolist() if told.keys[row] in self._heard]
                hosts = [view.hosts.keys[host] for host in told["host"][telling or rows]]
                act.route(actor, hosts, [1.0] * len(hosts), by="prefix")
