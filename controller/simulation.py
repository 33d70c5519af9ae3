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
from callboard.actors.priorities import decided
from callboard.actors.routes import choose
from callboard.controller.programs import Play
from callboard.controller.recording import RecordedCall
from callboard.controller.simulated import Clock, Events, Gate, Job, Lane
from callboard.controller.simulated_host import Member, Playing
from callboard.infra import subjects
from callboard.infra.messages.policy import Priority, Route

STEAL_AFTER = 0.025
"""Seconds, as a host has it by default."""
Place = Callable[[str, str, str, Sequence[str]], str]
"""Actor, session and future of a call, and the actor's hosts, to the host that it goes to; ``""``: any."""


class Setting(msgspec.Struct, frozen=True):
    """What to play on.

    Attributes:
        slots: by actor and host.
        place: which host a call goes to.
        hop: seconds between a member and the server, one way.
        steal_after: seconds after which a call in a mailbox is taken by an idle member; 0: never.
        keeps: hosts keep sessions: the calls of one run where its first one did, one at a time.
        fixed: ``place`` knows the hosts of the beginning only.
    """

    slots: Mapping[tuple[str, str], int]
    place: Place
    hop: float
    steal_after: float = STEAL_AFTER
    keeps: bool = False
    fixed: bool = False


class Simulation:
    """Recorded runs on hosts that are not there.

    Attributes:
        on_ended: told of a host that was to end, when nothing runs there any more.
    """

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
        self._every: list[Member] = []  # also of hosts that have ended
        self._ending: dict[str, list[Member]] = {}
        self.on_ended: Callable[[str], None] = lambda _: None
        for (actor, host), slots in sorted(setting.slots.items()):
            self._add(actor, host, slots)
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
        self.rank(job)
        self._store(job)
        if self.events is not None:
            self.events.made.append(job)

    def _store(self, job: Job) -> None:
        call = job.step.call
        host = self._place(call)
        job.lane = host or subjects.ANY
        if host:
            member = self._members[call.actor].get(host) or self._leaving(call.actor, host)
            self.clock.after(self.hop, self._deliver, member, job)
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
        if member.leaving:
            self._end_if_empty(member.host)

    # -- what is decided -----------------------------------------------------------------------------

    @property
    def members(self) -> list[Member]:
        """All that take calls."""
        return [member for one in self._members.values() for member in one.values()]

    def reorder(self, sessions: Collection[str]) -> None:
        """These sessions have got another priority."""
        for member in self.members:
            member.reorder(sessions)

    def migrate(self, actor: str, session: str, source: str, destination: str) -> None:
        """Have a session that a host keeps move, with what waits of it; a call that runs ends first."""
        where, members = (actor, session), self._members.get(actor, {})
        if not self.keeps or self._homes.get(where) != source or not {source, destination} <= members.keys():
            return
        if members[source].has_running(session):
            self._moving[where] = destination
        else:
            self._move(where, members[source], destination)

    def _move(self, where: tuple[str, str], source: Member, destination: str, how: str = "migrated") -> None:
        self.migrations += 1
        members = self._members[where[0]]
        if destination not in members:  # it has ended meanwhile
            destination = self._setting.place(*where, "", self._hosts[where[0]])
        waiting = source.give(lambda job: job.step.call.session == where[1], len(source.mailbox))
        if destination:
            self._homes[where] = destination
            self._hand_over(source, members[destination], waiting, how)
        else:
            self._homes.pop(where, None)
            self.give_back(source, waiting)

    # -- hosts that come and go ----------------------------------------------------------------------

    def add(self, host: str, slots: Mapping[str, int]) -> list[Member]:
        """A host takes calls from now on; gives its instances.

        Args:
            slots: by actor.
        """
        for actor in slots:
            if not self._setting.fixed:
                self._hosts.setdefault(actor, []).append(host)
        return [self._add(actor, host, count) for actor, count in slots.items()]

    def _add(self, actor: str, host: str, slots: int) -> Member:
        member = self._members.setdefault(actor, {})[host] = Member(self, actor, host, slots)
        self._every.append(member)
        return member

    def drain(self, host: str) -> None:
        """A host takes nothing more; what waits there goes to others, what runs ends there, however long."""
        mine = self._ending[host] = [member for member in self.members if member.host == host]
        for member in mine:
            del self._members[member.actor][host]
            self._hosts[member.actor] = [one for one in self._hosts[member.actor] if one != host]
        for member in mine:
            waiting = {job.step.call.session for job in member.mailbox.all()}
            kept = [where for where, home in self._homes.items() if where[0] == member.actor and home == host]
            for where in kept:
                if member.has_running(where[1]):
                    self._moving.setdefault(where, "")
                elif where[1] in waiting:
                    self._move(where, member, "")
                else:  # it is nowhere now
                    del self._homes[where]
            member.leave()
        self._end_if_empty(host)

    def _leaving(self, actor: str, host: str) -> Member:
        """One that drains, and keeps a session until its call has ended."""
        return next(member for member in self._ending[host] if member.actor == actor)

    def _end_if_empty(self, host: str) -> None:
        mine = self._ending[host]
        if not any(member.here for member in mine):
            for member in mine:
                member.ended = self.clock.now
            self.on_ended(host)

    def holds(self, member: Member, job: Job) -> bool:
        """Whether a call has to stay at a host that drains: one of its session runs there."""
        return self.keeps and member.has_running(job.step.call.session)

    def lives_at(self, member: Member, job: Job) -> None:
        """A session that nobody keeps is kept by who has got its call."""
        if self.keeps:
            self._homes.setdefault((member.actor, job.step.call.session), member.host)

    def give_back(self, member: Member, jobs: Sequence[Job]) -> None:
        """Let others have calls of a host that drains: in the shared lane; or where their session is kept."""
        for job in reversed(jobs):
            job.host, job.lane = "", subjects.ANY
            if self.events is not None:
                self.events.moved.append((job, member.host, subjects.ANY, "given_back"))
            if self.keeps:
                self._store(job)
            else:
                self.clock.after(self.hop, self.lane(member.actor, job.band).store_again, job)

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
        end = self.last_end
        there = sum(one.slots * max(0.0, min(one.ended, end) - one.began) for one in self._every)
        return self.busy() / there if there else 0.0

    def busy(self) -> float:
        """Slot-seconds that were used."""
        return sum(member.busy for member in self._every)
