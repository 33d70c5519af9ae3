"""What would have been: recorded runs on other hosts, with other routes or policies, under another load."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from callboard.actors.routes import spread
from callboard.actors.routing import BY_HAND
from callboard.controller.load import latency_of
from callboard.controller.programs import Program, programs
from callboard.controller.recording import Recorded, RecordedCall
from callboard.controller.simulated_fleet import STARTUP, Scaling, Stay, counts, host_seconds
from callboard.controller.simulation import Place, Setting, Simulation
from callboard.controller.steering import Steering
from callboard.infra.messages.policy import Route

_HOP = 0.001
"""Seconds to the server where no recorded call tells."""
_CAME = 2.0
"""Seconds after which a host that is not heard of is not there: each tells of itself once a second."""


def _late(actor: str, session: str, future: str, hosts: Sequence[str]) -> str:
    return ""


def _spread(actor: str, session: str, future: str, hosts: Sequence[str]) -> str:
    return spread(dict.fromkeys(hosts, 1.0), future)


def _sticky(actor: str, session: str, future: str, hosts: Sequence[str]) -> str:
    return spread(dict.fromkeys(hosts, 1.0), session)


KEPT = "kept"
ROUTINGS: Mapping[str, Place] = {"late": _late, "spread": _spread, "sticky": _sticky, KEPT: _sticky}
"""Where calls go, by name: to the shared lane; by a route with equal weights; each session to one host; the
same, and the host keeps the session, as those of agents with managed state do."""
NO_POLICY = "none"


class Scenario(msgspec.Struct, frozen=True):
    """What is to be tried.

    Attributes:
        routing: one of :data:`ROUTINGS`.
        policies: by name or file; the first goes before the others.
        hosts: how many, at the beginning; 0: those that were recorded.
        instances: how many hosts of an actor, where they are to be others than that.
        slots: of an actor in each host, where they are to be others than recorded.
        load: how many times as often runs begin.
        startup: seconds until a host that a policy starts takes calls; below 0: as recorded.
        most: hosts at one time; 0: no limit.
        capacity: amounts of resources that all hosts have together; what is not named has no limit.
    """

    routing: str = "late"
    hosts: int = 0
    instances: Mapping[str, int] = {}
    slots: Mapping[str, int] = {}
    load: float = 1.0
    startup: float = -1.0
    most: int = 0
    capacity: Mapping[str, float] = {}
    policies: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How long runs took, in seconds, from request to outcome.

    Attributes:
        name: for people; hosts: that had slots, at the beginning.
        fewest, most: hosts that took calls at one time.
        host_seconds: what hosts have cost: each from when it was asked for until it was gone.
        started, ended: hosts, by policies or ``min_instances``.
        makespan: from the first run's beginning to the last one's end.
        used: share of the slots' time in which handlers ran, and did not wait for calls of their own.
        migrations: sessions, as often as each has moved.
        decisions: of policies.
        left: runs that have never ended: they were not accepted, or nobody was there for their calls.
    """

    name: str
    hosts: int
    runs: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float
    makespan: float
    used: float = 0.0
    migrations: int = 0
    decisions: int = 0
    left: int = 0
    fewest: int = 0
    most: int = 0
    host_seconds: float = 0.0
    started: int = 0
    ended: int = 0


class WhatIf:
    """Recorded runs, to be played again and again.

    Args:
        recorded: what was told.
    """

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self.plays = programs(recorded)
        self.left_out = len({run.run for run in recorded.runs}) - len(self.plays)
        self.slots = _slots(recorded)
        self.hop = _hop(recorded, self.slots)
        starts = recorded.startups.values()
        self.startup = round(statistics.median(starts), 3) if starts else STARTUP
        """Seconds until a host that is started takes calls."""

    def measured(self) -> Outcome:
        """What was, as the hosts have told."""
        makespan = max((play.at + play.took for play in self.plays), default=0.0)
        hosts = len({host for _, host in self.slots})
        stays = self._stays()
        used = self._used(stays, makespan)
        found = _outcome("measured", hosts, [play.took for play in self.plays], makespan, used, stays)
        return msgspec.structs.replace(found, migrations=self._recorded.moved)

    def _used(self, stays: Mapping[str, Stay], makespan: float) -> float:
        """Share of the slots' time that handlers ran; what they did before the first run is left out."""
        there = sum(
            slots * max(0.0, min(stays[host].ended, makespan) - stays[host].began)
            for (_, host), slots in self.slots.items()
        )
        return sum(_worked(play.program) for play in self.plays) / there if there > 0 else 0.0

    def play(self, scenario: Scenario) -> Outcome:
        """What would have been.

        Raises:
            PolicyUnusable: a policy cannot be loaded, or raises, or does not end.
        """
        slots = self._scaled(scenario)
        plays = self.plays
        if scenario.load != 1.0:
            plays = [msgspec.structs.replace(play, at=play.at / scenario.load) for play in plays]
        keeps = scenario.routing == KEPT
        fixed = scenario.routing == "spread"
        setting = Setting(slots, ROUTINGS[scenario.routing], self.hop, keeps=keeps, fixed=fixed)
        simulation, steering = Simulation(plays, setting), None
        if scenario.policies:
            workflows = sorted({play.workflow for play in plays})
            by_hand = list(_by_hand(slots)) if scenario.routing == "spread" else []
            startup = scenario.startup if scenario.startup >= 0 else self.startup
            scaling = Scaling(self._recorded.declared, startup, scenario.most, scenario.capacity)
            steering = Steering(simulation, scenario.policies, workflows, by_hand, scaling)
        simulation.run()
        there = {host: Stay(0.0, 0.0) for _, host in slots}
        outcome = _outcome(
            _named(scenario),
            len({host for _, host in slots}),
            simulation.latencies,
            simulation.last_end,
            simulation.used(),
            there if steering is None else steering.fleet.stays,
        )
        return msgspec.structs.replace(
            outcome,
            migrations=simulation.migrations,
            decisions=steering.decisions if steering is not None else 0,
            left=simulation.left,
        )

    def _stays(self) -> dict[str, Stay]:
        """The hosts that were, from the first run on."""
        recorded, stays = self._recorded, {}
        first = min((call.stored for call in recorded.calls), default=0.0)
        for host in {host for _, host in self.slots}:
            heard, last = recorded.heard.get(host, (first, recorded.ended))
            came, left = heard - first > _CAME, recorded.ended - last > _CAME
            asked = heard - first - recorded.startups.get(host, 0.0)
            began = heard - first if came else 0.0
            stays[host] = Stay(max(0.0, asked) if came else 0.0, began, last - first if left else math.inf)
        return stays

    def _scaled(self, scenario: Scenario) -> dict[tuple[str, str], int]:
        slots = dict(self.slots)
        if scenario.hosts or scenario.instances:
            by_actor: dict[str, dict[str, int]] = {}
            for (actor, host), count in self.slots.items():
                by_actor.setdefault(actor, {})[host] = count
            slots = {
                (actor, f"h{number}"): round(statistics.median(counts.values()))
                for actor, counts in by_actor.items()
                for number in range(
                    scenario.instances.get(actor) or scenario.hosts or self._at_one_time(list(counts))
                )
            }
        there = self._that_serve(slots)
        return {key: scenario.slots.get(key[0], slots[key]) for key in there}

    def _that_serve(self, slots: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
        """Those of ``max_instances``: the others stand by. Those that have had the most calls go first."""
        calls = Counter((call.actor, call.host) for call in self._recorded.calls)
        by_actor: dict[str, list[str]] = {}
        for actor, host in sorted(slots, key=lambda key: (-calls[key], key)):
            by_actor.setdefault(actor, []).append(host)
        declared = self._recorded.declared
        most = {actor: info.directives.get("max_instances") for actor, info in declared.items()}
        return [
            (actor, host)
            for actor, hosts in by_actor.items()
            for host in hosts[: self._at_one_time(hosts)][: most.get(actor)]
        ]

    def _at_one_time(self, hosts: Sequence[str]) -> int:
        """How many of these hosts were there at one time, at most: one that was started again counts once."""
        heard = self._recorded.heard
        told = [heard[host] for host in hosts if host in heard]
        most = max((sum(first <= at <= last for first, last in told) for at, _ in told), default=0)
        return len(hosts) - len(told) + most


def _named(scenario: Scenario) -> str:
    name = ", ".join((scenario.routing, *(f"{actor}={count}" for actor, count in scenario.instances.items())))
    if scenario.policies:
        name += f", {'+'.join(scenario.policies)}"
    return name if scenario.load == 1.0 else f"{name}, load x{scenario.load:g}"


def _by_hand(slots: Mapping[tuple[str, str], int]) -> Iterator[Route]:
    """The routes by which calls are spread, as they would stand on a board."""
    for actor in sorted({actor for actor, _ in slots}):
        yield Route(actor, {host: 1.0 for one, host in slots if one == actor}, policy=BY_HAND)


def _outcome(
    name: str, hosts: int, took: list[float], makespan: float, used: float, stays: Mapping[str, Stay]
) -> Outcome:
    latency = msgspec.structs.asdict(latency_of(took))
    fewest, most = counts(stays, makespan)
    return Outcome(
        name=name,
        hosts=hosts,
        runs=len(took),
        makespan=makespan,
        used=used,
        fewest=fewest,
        most=most,
        host_seconds=round(host_seconds(stays, makespan), 3),
        started=sum(0 < stay.asked < makespan for stay in stays.values()),
        ended=sum(stay.ended < makespan for stay in stays.values()),
        **latency,
    )


def _worked(program: Program) -> float:
    """Seconds in which handlers ran of all the calls that a program makes, and of those that these make."""
    return sum(_alone(step.call, step.program) + _worked(step.program) for step in program.steps)


def _alone(call: RecordedCall, program: Program) -> float:
    """Seconds of a call in which it did not wait for calls of its own: its slot is lent meanwhile."""
    alone, over = call.ended - call.started, call.started
    for made in sorted((step.call for step in program.steps), key=lambda one: one.stored):
        alone -= max(0.0, min(made.ended, call.ended) - max(made.stored, over))
        over = max(over, made.ended)
    return max(0.0, alone)


def _slots(recorded: Recorded) -> dict[tuple[str, str], int]:
    """The slots that were told; of an actor of which none were, as many as it used at once."""
    told = {actor for actor, _ in recorded.slots}
    untold: dict[tuple[str, str], list[RecordedCall]] = {}
    for call in recorded.calls:
        if call.actor not in told:
            untold.setdefault((call.actor, call.host), []).append(call)
    return recorded.slots | {key: _at_once(calls) for key, calls in untold.items()}


def _at_once(calls: list[RecordedCall]) -> int:
    ends = sorted(call.ended for call in calls)
    over, most = 0, 1
    for begun, start in enumerate(sorted(call.started for call in calls), 1):
        while ends[over] <= start:
            over += 1
        most = max(most, begun - over)
    return most


def _hop(recorded: Recorded, slots: Mapping[tuple[str, str], int]) -> float:
    """Seconds from the server to a handler: what calls waited for which there were free slots.

    Of calls that were stored before the recording began nobody knows what they have waited for.
    """
    by_actor: dict[str, list[RecordedCall]] = {}
    for call in recorded.calls:
        by_actor.setdefault(call.actor, []).append(call)
    waited: list[float] = []
    for actor, calls in by_actor.items():
        hosts = [(count, recorded.heard.get(host)) for (one, host), count in slots.items() if one == actor]
        ends, over = sorted(call.ended for call in calls), 0
        for before, call in enumerate(sorted(calls, key=lambda call: call.stored)):
            while ends[over] <= call.stored:
                over += 1
            at = call.stored
            there = sum(count for count, told in hosts if told is None or told[0] <= at <= told[1])
            if before - over < there and at >= recorded.began:
                waited.append(call.started - at)
    return max(0.0, statistics.median(waited)) if waited else _HOP
