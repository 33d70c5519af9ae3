"""What would have been: recorded runs on other hosts, with other routes or policies, under another load."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from callboard.actors.routes import spread
from callboard.actors.routing import BY_HAND
from callboard.controller.load import latency_of
from callboard.controller.programs import programs
from callboard.controller.recording import Recorded, RecordedCall
from callboard.controller.simulation import Place, Setting, Simulation
from callboard.controller.steering import Steering
from callboard.infra.messages.policy import Route

_HOP = 0.001
"""Seconds to the server where no recorded call tells."""


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
        hosts: how many; 0: those that were recorded.
        slots: of an actor in each host, where they are to be others than recorded.
        load: how many times as often runs begin.
    """

    routing: str = "late"
    hosts: int = 0
    slots: Mapping[str, int] = {}
    load: float = 1.0
    policies: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How long runs took, in seconds, from request to outcome.

    Attributes:
        name: for people; hosts: that had slots.
        makespan: from the first run's beginning to the last one's end.
        used: share of the slots' time; None if it is not known.
        migrations: sessions that have moved; None if it is not known.
        decisions: of policies; left: runs that were never accepted.
        unplayed: policies that wanted to start or end instances, which is not simulated.
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
    used: float | None = None
    migrations: int | None = None
    decisions: int = 0
    left: int = 0
    unplayed: list[str] = []


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

    def measured(self) -> Outcome:
        """What was, as the hosts have told."""
        makespan = max((play.at + play.took for play in self.plays), default=0.0)
        hosts = len({host for _, host in self.slots})
        return _outcome("measured", hosts, [play.took for play in self.plays], makespan, None)

    def play(self, scenario: Scenario) -> Outcome:
        """What would have been.

        Raises:
            PolicyUnusable: a policy cannot be loaded, or raises.
        """
        slots = self._scaled(scenario)
        plays = self.plays
        if scenario.load != 1.0:
            plays = [msgspec.structs.replace(play, at=play.at / scenario.load) for play in plays]
        keeps = scenario.routing == KEPT
        setting = Setting(slots, ROUTINGS[scenario.routing], self.hop, keeps=keeps)
        simulation, steering = Simulation(plays, setting), None
        if scenario.policies:
            workflows = sorted({play.workflow for play in plays})
            by_hand = list(_by_hand(slots)) if scenario.routing == "spread" else []
            steering = Steering(simulation, scenario.policies, workflows, by_hand)
        simulation.run()
        outcome = _outcome(
            _named(scenario),
            len({host for _, host in slots}),
            simulation.latencies,
            simulation.last_end,
            simulation.used(),
        )
        return msgspec.structs.replace(
            outcome,
            migrations=simulation.migrations,
            decisions=steering.decisions if steering is not None else 0,
            left=simulation.left,
            unplayed=sorted(steering.unplayed) if steering is not None else [],
        )

    def _scaled(self, scenario: Scenario) -> dict[tuple[str, str], int]:
        slots = dict(self.slots)
        if scenario.hosts:
            by_actor: dict[str, list[int]] = {}
            for (actor, _), count in self.slots.items():
                by_actor.setdefault(actor, []).append(count)
            slots = {
                (actor, f"h{number}"): round(statistics.median(counts))
                for actor, counts in by_actor.items()
                for number in range(scenario.hosts)
            }
        return {key: scenario.slots.get(key[0], count) for key, count in slots.items()}


def _named(scenario: Scenario) -> str:
    name = scenario.routing
    if scenario.policies:
        name += f", {'+'.join(scenario.policies)}"
    return name if scenario.load == 1.0 else f"{name}, load x{scenario.load:g}"


def _by_hand(slots: Mapping[tuple[str, str], int]) -> Iterator[Route]:
    """The routes by which calls are spread, as they would stand on a board."""
    for actor in sorted({actor for actor, _ in slots}):
        yield Route(actor, {host: 1.0 for one, host in slots if one == actor}, policy=BY_HAND)


def _outcome(name: str, hosts: int, took: list[float], makespan: float, used: float | None) -> Outcome:
    latency = msgspec.structs.asdict(latency_of(took))
    return Outcome(name=name, hosts=hosts, runs=len(took), makespan=makespan, used=used, **latency)


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
    """Seconds from the server to a handler: what calls waited for which there were free slots."""
    by_actor: dict[str, list[RecordedCall]] = {}
    for call in recorded.calls:
        by_actor.setdefault(call.actor, []).append(call)
    waited: list[float] = []
    for actor, calls in by_actor.items():
        there = sum(count for (one, _), count in slots.items() if one == actor)
        ends, over = sorted(call.ended for call in calls), 0
        for before, call in enumerate(sorted(calls, key=lambda call: call.stored)):
            while ends[over] <= call.stored:
                over += 1
            if before - over < there:
                waited.append(call.started - call.stored)
    return max(0.0, statistics.median(waited)) if waited else _HOP
