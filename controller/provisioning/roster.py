"""A provisioner's hosts as policies see them, and what ``min_instances`` asks for; live and in a simulation.

Nothing here starts or ends anything: a fleet does (``fleet.py``, ``controller/simulated_fleet.py``), and says
what there is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from callboard.controller.changes import running
from callboard.controller.policy import Act
from callboard.controller.provisioning.room import room

if TYPE_CHECKING:
    from callboard.controller.provisioning.port import Provided
    from callboard.controller.view import View
    from callboard.infra.messages.policy import Decision
    from callboard.infra.messages.registry import ActorInfo

KEEPER = "callboard"
"""The policy of what is started because of ``min_instances``."""
KEEP_EVERY = 0.1
"""Seconds after which it is seen that there are too few."""
SILENT = 10.0
"""Seconds after which a process that was heard, and is not any more, is ended: it hangs, or is cut off."""
SETTLES = 30.0
"""Seconds for which a host that is told to end counts as gone, although it does not say that it drains."""


class Places(Protocol):
    """Where instances can be started, as a provisioner says it (``port.py``)."""

    places: dict[str, list[str]]
    capacity: dict[str, dict[str, float]]
    most: int


class Roster:
    """What runs, starts and ends, put into the view.

    Args:
        view: where policies see it; where: what can be started.
        clock: seconds that never go back.

    Attributes:
        declared: what is known of the actors beside what the registry says.
        hosts: those of the provisioner; by_host: which of them are heard, by their names on the board.
        known: whether ``hosts`` is true now.
        begun: starts that are under way and are not in ``hosts`` yet, by actor and place.
        lacking: instances below ``min_instances`` that cannot be started, by actor; empty: nobody looked.
    """

    def __init__(self, view: View, where: Places, clock: Callable[[], float] = time.monotonic) -> None:
        self._view = view
        self._where = where
        self._clock = clock
        self.declared: Sequence[ActorInfo] = []
        self.hosts: list[Provided] = []
        self.by_host: dict[str, Provided] = {}
        self.known = False
        self.begun: Counter[tuple[str, str]] = Counter()
        self.lacking: dict[str, int] = {}
        self._were_mine: set[str] = set()
        self._heard: dict[tuple[str, int], float] = {}  # when last, by name and process
        self._due = 0.0
        self._killed: dict[str, float] = {}
        self._refused: dict[str, float] = {}

    # -- looking -------------------------------------------------------------------------------------

    def show(self) -> None:
        """Put what is known into the view."""
        view, hosts = self._view, self._view.hosts
        view.announce(self.declared)
        self._match()
        mine = hosts.find(self.by_host)
        # One that was mine and is not has ended, heard or not; the others are those of who led before.
        self._were_mine = {host for host in self._were_mine if host in hosts} | self.by_host.keys()
        hosts["provided"][:] = hosts["provisioned"]
        hosts["provided"][hosts.find(self._were_mine)] = False
        hosts["provided"][mine] = True
        now = self._clock()
        self._killed = {host: until for host, until in self._killed.items() if host in hosts and until > now}
        hosts["killed"][:] = False
        hosts["killed"][hosts.find(self._killed)] = True
        starting = Counter(one.actor for one in self._unheard() if (one.name, one.pid) not in self._heard)
        starting.update(actor for actor, _ in self.begun.elements())
        rows = [view.actors.row(actor) for actor in self._where.places]
        view.actors["starting"][:] = 0
        for row in rows:
            view.actors["starting"][row] = starting[view.actors.keys[row]]
        view.room = self._room()

    def _match(self) -> None:
        """Which of the hosts that are heard are those of the provisioner."""
        processes = self._view.processes
        known = {process: host for host, process in processes.items()}
        nodes = {node: host for host, (node, _) in processes.items()}
        found = {}
        for one in self.hosts:
            host = known.get((one.node, one.pid)) if one.pid else nodes.get(one.node)
            if host is not None and one.node and host in self._view.hosts:
                found[host] = one
        self.by_host = found

    def _unheard(self) -> list[Provided]:
        """Those that are there, and from which nothing is heard."""
        now, matched = self._clock(), set(self.by_host.values())
        there = {(one.name, one.pid) for one in self.hosts}
        self._heard = {key: at for key, at in self._heard.items() if key in there}
        # One of several processes in a container may be a new one: of those nobody knows which is silent.
        self._heard |= {(one.name, one.pid): now for one in matched if one.pid}
        return [one for one in self.hosts if not one.ending and one not in matched]

    def silent(self) -> list[Provided]:
        """Those that were heard, are there still, and have told nothing for too long."""
        late = self._clock() - SILENT
        return [one for one in self._unheard() if self._heard.get((one.name, one.pid), late) < late]

    def _room(self) -> dict[str, dict[str, int]]:
        where, now = self._where, self._clock()
        needs = {info.name: info.directives.get("resources", {}) for info in self.declared}
        used = [(one.actor, one.where) for one in self.hosts]
        used += self.begun.elements()
        count = len({one.name for one in self.hosts}) + self.begun.total()
        others = self._others()
        count += sum(bool(self._view.hosts["provisioned"][host]) for host in others)
        used += [one for instances in others.values() for one in instances]
        found = room(where.places, where.capacity, needs, used, where.most - count)
        self._refused = {actor: until for actor, until in self._refused.items() if until > now}
        return {actor: {} if actor in self._refused else places for actor, places in found.items()}

    def _others(self) -> dict[int, list[tuple[str, str]]]:
        """By host, actor and machine of the instances that others have started where there are places."""
        view = self._view
        elsewhere = [host for host in view.processes if host not in self.by_host and host in view.hosts]
        found = {}
        for host in elsewhere:
            node, row = view.processes[host][0], view.hosts.row(host)
            if node in self._where.capacity:
                here = view.instances["actor"][view.instances.where(host=row)]
                found[row] = [(view.actors.keys[actor], node) for actor in here.tolist()]
        return found

    # -- deciding ------------------------------------------------------------------------------------

    def keep(self) -> Act:
        """Decide what ``min_instances`` asks for."""
        view = self._view
        act = Act(view, KEEPER)
        now, self.lacking = self._clock(), {}
        if not self.known or now < self._due:
            return act
        self._due = now + KEEP_EVERY
        wanted, lacking = [], dict[str, int]()
        for actor in self._where.places:
            row = view.actors.row(actor)
            least = int(view.actors["least"][row])
            have = running(view, row) + int(view.actors["starting"][row])
            lacking[actor] = least - have
            reason = f"min_instances is {least}, and there are {have}"
            wanted += [(number, actor, reason) for number in range(have, least)]
        for _, actor, reason in sorted(wanted):  # each has one before any has two
            act.provision(actor, reason=reason)
        begun = Counter(one.key.rpartition(".")[2] for one in act.decisions)
        self.lacking = {actor: count - begun[actor] for actor, count in lacking.items()}
        return act

    def begin(self, decision: Decision) -> str:
        """A start or an end is carried out from now on; gives the actor, or the host."""
        name = decision.key.rpartition(".")[2]
        if decision.what == "kill":
            self._killed[name] = self._clock() + SETTLES
        else:
            self.begun[name, decision.where] += 1
        self.show()
        return name

    def refused(self, actor: str, seconds: float) -> None:
        """It could not be started; it is not tried again for so long."""
        self._refused[actor] = self._clock() + seconds

    def not_killed(self, host: str, seconds: float) -> None:
        """It could not be ended; it counts as gone for so long."""
        self._killed[host] = self._clock() + seconds
