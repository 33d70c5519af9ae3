"""Policies at work in a simulation: what they see, and what becomes of what they decide.

Hosts and the driver report as often as live ones; from that the view is built, policies decide by the rounds
of the controller, and what they have decided holds a moment later. Hosts that they start work after a while,
those that they end drain first (``simulated_fleet.py``). A policy cannot tell a simulation from a board.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from callboard.controller.decisions import entry_of
from callboard.controller.limited import ROUND, within
from callboard.controller.moves import SETTLES
from callboard.controller.policy import Entry, Held
from callboard.controller.rounds import Rounds, Running
from callboard.controller.simulated import Events
from callboard.controller.simulated_fleet import Scaling, SimulatedFleet
from callboard.controller.simulated_host import Member
from callboard.controller.simulated_reports import EPOCH, DriverSource, HostSource, Source
from callboard.controller.simulation import Simulation
from callboard.controller.view import View
from callboard.infra import subjects
from callboard.infra.errors import PolicyUnusable
from callboard.infra.messages.policy import Admission, Decision, Priority, Route
from callboard.infra.messages.telemetry import Report

EVERY = 0.25
"""Seconds between two reports of a host."""
DECIDED = 0.01
"""Seconds until a controller looks at what it has heard, beside the ways there and back."""
GIVE_UP = 60.0
"""Seconds without anything else to be done after which what still waits is left: nobody accepts it."""
_PRUNE = 1.0
_TERM = 1


class Steering:
    """Policies that steer a simulation.

    Args:
        policies: by name or file; the first goes before the others.
        workflows: those of its runs.
        by_hand: routes that hold whatever policies want.
        scaling: what is known and allowed where they start and end hosts.

    Raises:
        PolicyUnusable: one cannot be loaded; or, while the simulation runs, one raises, or takes longer for a
            round than it may on a board.
    """

    def __init__(
        self,
        simulation: Simulation,
        policies: Sequence[str],
        workflows: Sequence[str],
        by_hand: Sequence[Route],
        scaling: Scaling | None = None,
    ) -> None:
        self._simulation = simulation
        self._clock = simulation.clock
        self._moving: set[str] = set()
        self._held = Held(moving=self._moving)
        self._view = View()
        self._view.now = lambda: EPOCH + self._clock.now
        self._view.on_ended = self._view.learn
        self._rounds = Rounds(self._view, self._held, functools.partial(within, ROUND), _failed)
        self._rounds.load(policies)
        for route in by_hand:
            self._held.put(subjects.route(route.actor), route)
        simulation.events = Events()
        members: dict[str, list[Member]] = {}
        for member in simulation.members:
            members.setdefault(member.host, []).append(member)
        self._driver = DriverSource(simulation, workflows)
        self._hosts = {host: HostSource(simulation, host, mine) for host, mine in members.items()}
        slots = {(member.actor, member.host): member.slots for member in simulation.members}
        self.fleet = SimulatedFleet(simulation, self._view, slots, scaling or Scaling(), self._begun)
        simulation.on_ended = self._ended
        self._pruned = self._epoch = 0.0
        self._idle = 0.0
        self._mine = 0  # of what is to be done, how much is to be done here
        self._deciding = False
        self.decisions = 0
        """How many have been made."""
        sources: list[Source] = [self._driver, *self._hosts.values()]
        for source in sources:  # the controller was there before the load
            self._take(source, source.report())
        for place, source in enumerate(sources):  # they are not in step
            self._after(EVERY * place / len(sources), functools.partial(self._report, source))

    def _after(self, seconds: float, do: Callable[[], None]) -> None:
        def done() -> None:
            self._mine -= 1
            do()

        self._mine += 1
        self._clock.after(seconds, done)

    def _report(self, source: Source) -> None:
        """A source tells what is new, and the policies decide whose turn it is."""
        if source.over:
            return
        self._sort()
        report = source.report()
        self._after(self._simulation.hop, functools.partial(self._hear, source, report))
        if len(self._clock) > self._mine:
            self._idle = self._clock.now
        if self._simulation.left and self._clock.now - self._idle < GIVE_UP:
            self._after(EVERY, functools.partial(self._report, source))

    def _sort(self) -> None:
        """Give what has happened to those who tell of it."""
        events = self._simulation.events
        assert events is not None
        self._simulation.events = Events()
        self._driver.made += events.made
        self._driver.begun += events.runs_begun
        self._driver.runs_ended += events.runs_ended
        for job, at in events.ended:
            self._hosts[job.host].ended.append((job, at))
        for job, here, there, how in events.moved:
            self._hosts[here].moved.append((job, there, how))

    def _take(self, source: Source, report: Report | None) -> None:
        if report is None:
            return
        self._view.take(report)
        if source is not self._driver:
            self.fleet.heard(source.name, draining=report.leaving)

    def _hear(self, source: Source, report: Report | None) -> None:
        self._take(source, report)
        now = self._clock.now
        if now - self._pruned >= _PRUNE:
            self._pruned = now
            self._view.prune(EPOCH + now)
        if not self._deciding:
            self._deciding = True
            self._after(DECIDED, self._decide)

    def _decide(self) -> None:
        kept = self.fleet.keep()
        decisions = self._rounds.decide(self._clock.now, kept.decisions, kept.changes)
        if decisions:
            self._after(2 * self._simulation.hop, functools.partial(self._apply, decisions))
        else:
            self._deciding = False

    # -- what holds then -----------------------------------------------------------------------------

    def _apply(self, decisions: list[Decision]) -> None:
        """What was decided in one round holds from now on."""
        self._deciding = False
        self._epoch += 1
        self.decisions += len(decisions)
        sessions: set[str] = set()
        for decision in decisions:
            entry = entry_of(decision, int(self._epoch), EPOCH + self._clock.now, _TERM)
            if decision.what == "migrate":
                self._migrate(decision)
            elif decision.what in {"kill", "provision"}:
                self.fleet.begin(decision)
            elif entry is not None:
                self._held.put(decision.key, entry)
                self._begin(entry)
                sessions |= {entry.session} if isinstance(entry, Priority) else set()
            elif decision.what == "clear":
                self._end(self._held.entries.get(decision.key))
                self._held.drop(decision.key)
        if sessions:
            self._simulation.reorder(sessions)

    def _begun(self, host: str, members: list[Member]) -> None:
        """A host that was started takes calls."""
        source = self._hosts[host] = HostSource(self._simulation, host, members)
        self._report(source)

    def _ended(self, host: str) -> None:
        """A host that was to end tells so, and is gone."""
        source = self._hosts[host]
        self._sort()
        report, source.over = source.report(), True
        self.fleet.ended(host)
        self._after(self._simulation.hop, functools.partial(self._hear, source, report))
        self._after(self._simulation.hop, functools.partial(self.fleet.gone, host))

    def _begin(self, entry: Entry) -> None:
        simulation = self._simulation
        if isinstance(entry, Route):
            simulation.routes[entry.actor, entry.session] = entry
        elif isinstance(entry, Priority):
            simulation.priorities[entry.session, entry.actor] = entry
        elif isinstance(entry, Admission):
            simulation.limit(entry.workflow, entry.rate)

    def _end(self, entry: Entry | None) -> None:
        simulation = self._simulation
        if isinstance(entry, Route):
            simulation.routes.pop((entry.actor, entry.session), None)
        elif isinstance(entry, Priority):
            simulation.priorities.pop((entry.session, entry.actor), None)
        elif isinstance(entry, Admission):
            simulation.limit(entry.workflow, None)

    def _migrate(self, decision: Decision) -> None:
        actor, token = decision.key.split(".")[2:4]
        (destination,) = decision.hosts
        self._simulation.migrate(actor, subjects.session_of(token), decision.source, destination)
        self._moving.add(decision.key)
        self._after(SETTLES, functools.partial(self._moving.discard, decision.key))


def _failed(one: Running, error: Exception) -> None:
    text = f"policy {one.name} cannot be simulated: {one.problem}"
    raise PolicyUnusable(text, policy=one.name, problem=one.problem) from error
