"""Hosts that policies start and end in a simulation: when they work, and what they cost.

What there is room for, what counts as starting and gone, and what ``min_instances`` asks for, is the code of
the live fleet (``controller/provisioning/roster.py``); which changes are allowed is ``changes.py``, as ever.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping

import msgspec

from callboard.controller.policy import Act
from callboard.controller.provisioning.port import Provided
from callboard.controller.provisioning.room import PLENTY
from callboard.controller.provisioning.roster import Roster
from callboard.controller.simulated_host import Member
from callboard.controller.simulation import Simulation
from callboard.controller.view import View
from callboard.infra.messages.policy import Decision
from callboard.infra.messages.registry import ActorInfo, Pulse

STARTUP = 3.0
"""Seconds until a host that is started takes calls, where no recorded one tells."""
_NAME = "new-"
_NO_LIMIT = 1e12
LOOK_EVERY = 0.1
"""Seconds, as of local processes."""
PLACE = "simulation"
"""The one place at which hosts are started."""


class Scaling(msgspec.Struct, frozen=True):
    """What is known, and allowed, where policies start and end hosts.

    Attributes:
        declared: ``min_instances``, ``max_instances`` and ``resources``, by actor.
        startup: seconds from a decision until its host takes calls.
        most: hosts at one time; 0: no limit.
        capacity: amounts of resources that there are for all hosts together; what is not named has no limit.
    """

    declared: Mapping[str, ActorInfo] = {}
    startup: float = STARTUP
    most: int = 0
    capacity: Mapping[str, float] = {}


class Stay(msgspec.Struct):
    """A host: when it was asked for, when it began to take calls, and when it was gone, in seconds."""

    asked: float
    began: float = math.inf
    ended: float = math.inf


class SimulatedFleet:
    """The hosts of a simulation.

    Those of the beginning may be ended if they run one actor, as those that provisioners start do.

    Args:
        simulation: where they run; view: where policies see them.
        slots: by actor and host, at the beginning.
        scaling: what is allowed.
        begun: told of a host that takes calls now, and its instances.

    Attributes:
        stays: of every host there ever was, by name.
    """

    def __init__(
        self,
        simulation: Simulation,
        view: View,
        slots: Mapping[tuple[str, str], int],
        scaling: Scaling,
        begun: Callable[[str, list[Member]], None],
    ) -> None:
        self._simulation = simulation
        self._clock = simulation.clock
        self._view = view
        self._begun = begun
        self._startup = scaling.startup
        self._slots = _usual(slots)
        actors: dict[str, int] = {}
        for _, host in slots:
            actors[host] = actors.get(host, 0) + 1
        self._kept = {host for host, count in actors.items() if count > 1}
        self.stays = {host: Stay(0.0, 0.0) for host in actors}
        self.places = {actor: [PLACE] for actor in self._slots}
        needs = [info.directives.get("resources", {}) for info in scaling.declared.values()]
        limitless = {name: _NO_LIMIT for one in needs for name in one}
        self.capacity = {PLACE: limitless | dict(scaling.capacity)}
        self.most = scaling.most - len(self._kept) if scaling.most else PLENTY
        self._number = 0
        self._due = 0.0
        self._pids = {host: PLENTY + place for place, host in enumerate(actors)}
        self._roster = Roster(view, self, lambda: self._clock.now)
        self._roster.declared = list(scaling.declared.values())
        self._roster.known = True

    def heard(self, host: str, *, draining: bool = False) -> None:
        """The heartbeat of a host has come."""
        pid, provisioned = self._pids[host], host not in self._kept
        pulse = Pulse(host, self._view.now(), pid=pid, node=PLACE, provisioned=provisioned, draining=draining)
        self._view.pulse(pulse)

    def gone(self, host: str) -> None:
        """Nothing is heard of a host any more."""
        self._roster.hosts = [one for one in self._roster.hosts if _NAME + one.name != host]
        self._view.host_gone(host)

    def keep(self) -> Act:
        """Look at what there is, and decide what ``min_instances`` asks for."""
        if self._clock.now >= self._due:
            self._due = self._clock.now + LOOK_EVERY
            self._roster.show()
        return self._roster.keep()

    def begin(self, decision: Decision) -> None:
        """Carry out a decision."""
        name = self._roster.begin(decision)
        if decision.what == "kill":
            self._roster.hosts = [_ended(one, name) for one in self._roster.hosts]
            self._clock.after(self._simulation.hop, self._simulation.drain, name)
            return
        self._number += 1
        host = _NAME + str(self._number)
        self.stays[host], self._pids[host] = Stay(self._clock.now), self._number
        self._roster.begun[name, decision.where] -= 1
        self._roster.hosts.append(Provided(str(self._number), name, decision.where))
        self._clock.after(self._startup, self._works, self._number, name)

    def _works(self, number: int, actor: str) -> None:
        host = _NAME + str(number)
        self.stays[host].began = self._clock.now
        self._roster.hosts = [
            msgspec.structs.replace(one, node=PLACE, pid=number) if one.name == str(number) else one
            for one in self._roster.hosts
        ]
        self._begun(host, self._simulation.add(host, {actor: self._slots[actor]}))

    def ended(self, host: str) -> None:
        """A host that was to end has done so."""
        self.stays[host].ended = self._clock.now


def _ended(one: Provided, host: str) -> Provided:
    return msgspec.structs.replace(one, ending=True) if _NAME + one.name == host else one


def _usual(slots: Mapping[tuple[str, str], int]) -> dict[str, int]:
    """The slots of an instance, by actor."""
    by_actor: dict[str, list[int]] = {}
    for (actor, _), count in slots.items():
        by_actor.setdefault(actor, []).append(count)
    return {actor: round(statistics.median(counts)) for actor, counts in by_actor.items()}


def host_seconds(stays: Mapping[str, Stay], end: float) -> float:
    """What hosts have cost until a time: each from when it was asked for until it was gone."""
    return sum(max(0.0, min(stay.ended, end) - stay.asked) for stay in stays.values())


def counts(stays: Mapping[str, Stay], end: float) -> tuple[int, int]:
    """The fewest and the most hosts that took calls at one time, until a time."""
    changes = [(stay.began, 1) for stay in stays.values()] + [(stay.ended, -1) for stay in stays.values()]
    there, fewest, most = 0, PLENTY, 0
    due = sorted({at for at, _ in changes if at < end})
    for now in due:
        there += sum(change for at, change in changes if at == now)
        fewest, most = min(fewest, there), max(most, there)
    return min(fewest, most), most
