"""Playing recorded runs on hosts that are not there: lanes, bands, mailboxes and slots, by its own clock.

What decides is the code of the live system: the mailbox (``actors/mailbox.py``), when to pull how much
(``actors/feed.py``), where calls go by which routes (``actors/routes.py``), how urgent they are by which
priorities (``actors/priorities.py``) and how many requests are accepted (``actors/admission.py``). The
server between them, and time, are in ``controller/simulated.py``; policies are at work in
``controller/steering.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from callboard.actors.addressing import band_of
from callboard.actors.feed import Banded, Rate
from callboard.actors.mailbox import Mailbox
from callboard.actors.priorities import decided
from callboard.actors.routes import choose
from callboard.controller.programs import Play, Program
from callboard.controller.recording import RecordedCall
from callboard.controller.simulated import Clock, Events, Gate, Job, Lane, SimulatedPull
from callboard.infra import subjects
from callboard.infra.messages.policy import Priority, Route

STEAL_AFTER = 0.025
"""Seconds, as a host has it by default."""
Place = Callable[[str, str, str, Sequence[str]], str]
"""Actor, session and future of a call, and the actor's hosts, to the host that it goes to; ``""``: any."""


class Member:
    """One actor in one host: its mailbox and slots."""

    def __init__(self, simulation: Simulation, actor: str, host: str, slots: int) -> None:
        self.actor = actor
        self.host = host
        self.slots = self.free = slots
        self.busy = 0.0
        """Slot-seconds in use."""
        self.mailbox: Mailbox[Job] = Mailbox()
        self.here: dict[Job, None] = {}
        """What waits or runs here."""
        self._sessions: dict[str, str] = {}
        """The call that runs of each session, where those of one run one at a time."""
        self._simulation = simulation
        clock = self._clock = simulation.clock
        self._rate = Rate(lambda: clock.now)
        self._changed = clock.now
        self._feeding = False
        pulls = [
            SimulatedPull(clock, simulation.hop, simulation.lane(actor, band), self.accept, self._ended)
            for band in subjects.BANDS
        ]
        self._feed = Banded(pulls, lambda: self.free, self.mailbox.up_to, self._rate.ahead, _nobody)
        self._feed_soon()

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return self.free > 0 and not len(self.mailbox)

    def accept(self, job: Job) -> None:
        """A call has come."""
        job.host = self.host
        self.here[job] = None
        self._simulation.rank(job)
        self.mailbox.push(job)
        self.pump()

    def reorder(self, sessions: Collection[str]) -> None:
        """These sessions have got another priority."""
        rank = self._simulation.rank
        if self.mailbox.reorder(lambda job: job.step.call.session in sessions and rank(job)):
            self.pump()

    def give(self, fits: Callable[[Job], bool], most: int) -> list[Job]:
        """Let calls that wait here go to another member."""
        given = self.mailbox.take(fits, most)
        for job in given:
            del self.here[job]
        return given

    def has_running(self, session: str) -> bool:
        """Whether a call of a session runs here."""
        return any(job.began >= 0 and job.step.call.session == session for job in self.here)

    def _ended(self, pull: SimulatedPull) -> None:
        self._feed.ended(pull)

    def pump(self) -> None:
        """Start what can be started, then ask for more."""
        while self.free > 0 and len(self.mailbox):
            job = self._next()
            if job is None:
                break
            self._start(job)
        self._feed_soon()

    def _next(self) -> Job | None:
        if not self._simulation.keeps:
            return self.mailbox.pop()
        fit = self.mailbox.take(self._may_enter, 1)
        for job in fit:
            self._sessions.setdefault(job.step.call.session, job.step.call.future)
        return fit[0] if fit else None

    def _may_enter(self, job: Job) -> bool:
        """Whether its session is at rest, or waits for this call."""
        call = job.step.call
        holder = self._sessions.get(call.session)
        return holder is None or call.future.startswith(f"{holder}.")

    def _feed_soon(self) -> None:
        if not self._feeding:
            self._feeding = True
            self._clock.after(0.0, self._feed_now)

    def _feed_now(self) -> None:
        self._feeding = False
        self._feed.feed()
        if self.idle:
            self._simulation.steal_for(self)

    def _start(self, job: Job) -> None:
        self.take(1)
        job.began = self._clock.now
        Playing(self._simulation, job.step.program, lambda: self._finish(job), self)

    def _finish(self, job: Job) -> None:
        self.take(-1)
        self._rate.count(1)
        del self.here[job]
        if self._sessions.get(job.step.call.session) == job.step.call.future:
            del self._sessions[job.step.call.session]
        self._simulation.finished(self, job)
        job.ended()
        self.pump()

    def take(self, slots: int) -> None:
        """Slots are taken; with a number below 0 they are given back, or lent."""
        now = self._clock.now
        self.busy += (self.slots - self.free) * (now - self._changed)
        self._changed = now
        self.free -= slots


def _nobody(band: int) -> int:
    """Calls that are preempted are not told of, so none is."""
    return 0


class Playing:
    """A program under way: of a run, or of a call in a member, whose slot is free while it waits.

    Args:
        ended: called when it has.
    """

    def __init__(
        self, simulation: Simulation, program: Program, ended: Callable[[], None], member: Member | None
    ) -> None:
        self._simulation = simulation
        self._program = program
        self._ended = ended
        self._member = member
        self._left = len(program.steps)
        self._out = 0
        self._followed: dict[int, list[int]] = {}  # by place: barriers that it is part of
        self._barriers: list[tuple[list[int], int]] = []  # steps that wait, and for how many ends
        self._waiting: list[int] = []
        known: dict[int, int] = {}
        for place, step in enumerate(program.steps):
            if not step.after:
                simulation.clock.after(step.think, self._make, place)
                continue
            barrier = known.get(id(step.after))
            if barrier is None:
                barrier = known[id(step.after)] = len(self._waiting)
                self._waiting.append(len(step.after))
                self._barriers.append(([], barrier))
                for other in step.after:
                    self._followed.setdefault(other, []).append(barrier)
            self._barriers[barrier][0].append(place)
        if not self._left:
            simulation.clock.after(program.tail, ended)

    def _make(self, place: int) -> None:
        step = self._program.steps[place]
        self._out += 1
        if self._member is not None and self._out == 1:
            self._member.take(-1)
            self._member.pump()
        self._simulation.send(Job(step, self._simulation.clock.now, lambda: self._over(place)))

    def _over(self, place: int) -> None:
        self._out -= 1
        self._left -= 1
        if self._member is not None and self._out == 0:
            self._member.take(1)
        clock, steps = self._simulation.clock, self._program.steps
        for barrier in self._followed.get(place, ()):
            self._waiting[barrier] -= 1
            if not self._waiting[barrier]:
                for follower in self._barriers[barrier][0]:
                    clock.after(steps[follower].think, self._make, follower)
        if not self._left:
            clock.after(self._program.tail, self._ended)


class Setting(msgspec.Struct, frozen=True):
    """What to play on.

    Attributes:
        slots: by actor and host.
        place: which host a call goes to.
        hop: seconds between a member and the server, one way.
        steal_after: seconds after which a call in a mailbox is taken by an idle member; 0: never.
        keeps: hosts keep sessions: the calls of one run where its first one did, one at a time.
    """

    slots: Mapping[tuple[str, str], int]
    place: Place
    hop: float
    steal_after: float = STEAL_AFTER
    keeps: bool = False


class Simulation:
    """Recorded runs on hosts that are not there."""

    def __init__(self, plays: Sequence[Play], setting: Setting) -> None:
        self.clock = Clock()
        self.hop = setting.hop
        self.keeps = setting.keeps
        self.latencies: list[float] = []
        self.last_end = 0.0
        self.migrations = 0
        self.left = len(plays)
        """Runs that have not ended."""
        self.routes: dict[tuple[str, str], Route] = {}
        self.priorities: dict[tuple[str, str], Priority] = {}
        self.events: Events | None = None
        """What has happened, for whoever takes it from here."""
        self._setting = setting
        self._homes: dict[tuple[str, str], str] = {}
        self._moving: dict[tuple[str, str], str] = {}
        self._gates: dict[str, Gate] = {}
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._members: dict[str, dict[str, Member]] = {}
        for (actor, host), slots in sorted(setting.slots.items()):
            self._members.setdefault(actor, {})[host] = Member(self, actor, host, slots)
        self._hosts = {actor: list(members) for actor, members in self._members.items()}
        for play in plays:
            self.clock.after(play.at, self._arrive, play)

    def run(self) -> None:
        """From the first run to the end of the last."""
        self.clock.run()

    def lane(self, actor: str, band: int) -> Lane:
        """The shared lane of an actor and band."""
        key = (actor, band)
        if key not in self._lanes:
            self._lanes[key] = Lane(self.clock, self.hop)
        return self._lanes[key]

    def send(self, job: Job) -> None:
        """A call is stored: in the shared lane, or in a host's own."""
        call = job.step.call
        host = self._place(call)
        self.rank(job)
        job.lane = host or subjects.ANY
        if self.events is not None:
            self.events.made.append(job)
        if host:
            self.clock.after(self.hop, self._deliver, self._members[call.actor][host], job)
        else:
            self.lane(call.actor, job.band).store(job)

    def _place(self, call: RecordedCall) -> str:
        """Who keeps the session has its calls, whatever a route says; then routes count."""
        home = self._homes.get((call.actor, call.session))
        if home is not None:
            return home
        hosts = self._members.get(call.actor, {})
        key = call.session if self.keeps else call.future
        host, _ = choose(
            self.routes,
            call.actor,
            call.session,
            key,
            serves=lambda host, _: host in hosts,
            now=self.clock.now,
        )
        if not host:
            host = self._setting.place(call.actor, call.session, call.future, self._hosts.get(call.actor, []))
        if self.keeps and host:
            self._homes[call.actor, call.session] = host
        return host

    def rank(self, job: Job) -> bool:
        """Give a call the priority that was decided for its session; whether it is another one."""
        found = decided(self.priorities, job.step.call.actor, job.step.call.session)
        if found is None or job.priority == found.value:
            return False
        job.priority, job.band = found.value, band_of(found.value)
        return True

    def _deliver(self, member: Member, job: Job) -> None:
        member.accept(job)
        if self._setting.steal_after and job.began < 0:
            self.clock.after(self._setting.steal_after, self._overdue, member, job)

    def _overdue(self, member: Member, job: Job) -> None:
        if job.began >= 0:
            return
        idle = [one for one in self._members[member.actor].values() if one.idle]
        if idle:
            self.steal_for(idle[0])

    def steal_for(self, member: Member) -> None:
        """Give an idle member calls that have waited too long in the mailbox of another."""
        patience = self._setting.steal_after
        if not patience:
            return
        due = self.clock.now - patience
        others = [one for one in self._members[member.actor].values() if one is not member and one.free <= 0]
        victim = max(others, key=lambda one: len(one.mailbox), default=None)
        if victim is None:
            return
        if self.keeps:
            self._steal_session(member.actor, victim, member.host, due)
        else:
            self._hand_over(victim, member, victim.give(lambda job: job.since <= due, member.free), "stolen")

    def _steal_session(self, actor: str, victim: Member, thief: str, due: float) -> None:
        """The session that has waited longest goes, if it is at rest and no route keeps it there."""

        def may_go(job: Job) -> bool:
            session = job.step.call.session
            return (
                job.since <= due and (actor, session) not in self.routes and not victim.has_running(session)
            )

        job = victim.mailbox.first(may_go)
        if job is not None:
            self._move((actor, job.step.call.session), victim, thief, "stolen")

    def _hand_over(self, source: Member, member: Member, jobs: list[Job], how: str) -> None:
        for job in jobs:
            job.host = ""
            if self.events is not None:
                self.events.moved.append((job, source.host, member.host, how))
            self.clock.after(2 * self.hop, member.accept, job)

    def finished(self, member: Member, job: Job) -> None:
        """A call has ended; a session that was to move does so now."""
        job.over = True
        if self.events is not None:
            self.events.ended.append((job, self.clock.now))
        where = (member.actor, job.step.call.session)
        if where in self._moving and not member.has_running(where[1]):
            self._move(where, member, self._moving.pop(where))

    # -- what is decided -----------------------------------------------------------------------------

    @property
    def members(self) -> list[Member]:
        """All of them."""
        return [member for one in self._members.values() for member in one.values()]

    def reorder(self, sessions: Collection[str]) -> None:
        """These sessions have got another priority."""
        for member in self.members:
            member.reorder(sessions)

    def migrate(self, actor: str, session: str, source: str, destination: str) -> None:
        """Have a session that a host keeps move, with what waits of it; a call that runs ends first."""
        where, members = (actor, session), self._members.get(actor, {})
        if not self.keeps or self._homes.get(where) != source or destination not in members:
            return
        if members[source].has_running(session):
            self._moving[where] = destination
        else:
            self._move(where, members[source], destination)

    def _move(self, where: tuple[str, str], source: Member, destination: str, how: str = "migrated") -> None:
        self.migrations += 1
        self._homes[where] = destination
        waiting = source.give(lambda job: job.step.call.session == where[1], len(source.mailbox))
        self._hand_over(source, self._members[where[0]][destination], waiting, how)

    def limit(self, workflow: str, rate: float | None) -> None:
        """So many requests of a workflow are accepted a second; None: all."""
        self._gate(workflow).limit(rate)

    def waiting(self, workflow: str) -> int:
        """How many requests wait to be accepted."""
        return len(self._gate(workflow))

    def _gate(self, workflow: str) -> Gate:
        return self._gates.setdefault(workflow, Gate(self.clock))

    # -- runs ----------------------------------------------------------------------------------------

    def _arrive(self, play: Play) -> None:
        arrived = self.clock.now
        self._gate(play.workflow).accept(lambda: self._begin(play, arrived))

    def _begin(self, play: Play, arrived: float) -> None:
        def ended() -> None:
            self.latencies.append(self.clock.now - arrived)
            self.last_end = self.clock.now
            self.left -= 1
            if self.events is not None:
                self.events.runs_ended.append((play, self.clock.now - arrived))

        if self.events is not None:
            self.events.runs_begun.append((play, arrived))
        Playing(self, play.program, ended, None)

    def used(self) -> float:
        """Share of the slots' time that was used, from the first run to the end of the last."""
        there = sum(member.slots for member in self.members) * self.last_end
        return sum(member.busy for member in self.members) / there if there else 0.0
