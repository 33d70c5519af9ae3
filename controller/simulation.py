"""Playing recorded runs on hosts that are not there: lanes, bands, mailboxes and slots, by its own clock.

What decides is the code of the live system: the mailbox (``actors/mailbox.py``), when to pull how much
(``actors/feed.py``) and the spreading of calls over hosts (``spread`` in ``actors/routes.py``). What is here
is the server between them, and time.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from callboard.actors.feed import Banded, Rate
from callboard.actors.mailbox import Mailbox
from callboard.controller.programs import Play, Program, Step
from callboard.infra import subjects

Place = Callable[[str, str, str, Sequence[str]], str]
"""Actor, session and future of a call, and the actor's hosts, to the host that it goes to; ``""``: any."""


class Clock:
    """What happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._entries: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def after(self, seconds: float, do: Callable[..., None], *arguments: Any) -> None:
        """Have something done later; what is due at the same time is done in the order of asking."""
        self._number += 1
        heapq.heappush(self._entries, (self.now + seconds, self._number, do, arguments))

    def run(self) -> None:
        """Let time pass until nothing is left to be done."""
        while self._entries:
            self.now, _, do, arguments = heapq.heappop(self._entries)
            do(*arguments)


class Job:
    """A call that is played; for the mailbox, too.

    Attributes:
        band, priority, since: see :class:`callboard.actors.mailbox.Waiting`.
        step: what it is; ended: called when it has.
    """

    __slots__ = ("band", "began", "ended", "priority", "since", "step")

    def __init__(self, step: Step, since: float, ended: Callable[[], None]) -> None:
        self.band = step.call.band
        self.priority = step.call.priority
        self.since = since
        self.began = -1.0
        self.step = step
        self.ended = ended


class Lane:
    """The calls of one actor and band that nobody has pulled, and who has asked for some: a consumer."""

    def __init__(self, clock: Clock, hop: float) -> None:
        self._clock = clock
        self._hop = hop
        self._jobs: deque[Job] = deque()
        self._asked: deque[list[Any]] = deque()  # pull, its generation, how many are still to come

    def store(self, job: Job) -> None:
        """A call has come."""
        self._jobs.append(job)
        self._serve()

    def ask(self, pull: SimulatedPull, generation: int, count: int, *, wait: bool) -> None:
        """Somebody asks for calls: for those that are there, or for those that are yet to come, too."""
        if wait:
            self._asked.append([pull, generation, count])
            self._serve()
            return
        for _ in range(min(count, len(self._jobs))):
            self._clock.after(self._hop, pull.came, generation, self._jobs.popleft())
            count -= 1
        if count:
            self._clock.after(self._hop, pull.over, generation, count)

    def _serve(self) -> None:
        """One call for each who has asked, in turn, as the server does."""
        while self._jobs and self._asked:
            asked = self._asked.popleft()
            pull, generation, _ = asked
            if generation != pull.generation:
                continue
            self._clock.after(self._hop, pull.came, generation, self._jobs.popleft())
            asked[2] -= 1
            if asked[2]:
                self._asked.append(asked)


class SimulatedPull:
    """What :class:`callboard.infra.pull.Pull` is to a live instance."""

    def __init__(
        self, clock: Clock, hop: float, lane: Lane, accept: Callable[[Job], None], over: Callable[..., None]
    ) -> None:
        self._clock = clock
        self._hop = hop
        self._lane = lane
        self._accept = accept
        self._over = over
        self.asked = 0
        self.generation = 0

    def ask(self, count: int, *, wait: bool) -> None:
        """Ask for calls."""
        if count > 0:
            self.asked += count
            self._clock.after(self._hop, self._arrive, self.generation, count, wait)

    def _arrive(self, generation: int, count: int, wait: bool) -> None:  # noqa: FBT001 - by the clock
        if generation == self.generation:
            self._lane.ask(self, generation, count, wait=wait)

    def withdraw(self) -> None:
        """Take back what was asked for; calls that are on their way still come."""
        if self.asked:
            self.generation += 1
            self.asked = 0

    def came(self, generation: int, job: Job) -> None:
        """A call has come."""
        if generation == self.generation:
            self.asked -= 1
        self._accept(job)

    def over(self, generation: int, count: int) -> None:
        """There is nothing more for a request that does not wait."""
        if generation == self.generation:
            self.asked -= count
            self._over(self)


class Member:
    """One actor in one host: its mailbox and slots."""

    def __init__(self, simulation: Simulation, actor: str, host: str, slots: int) -> None:
        self.actor = actor
        self.host = host
        self.slots = self.free = slots
        self.busy = 0.0
        """Slot-seconds in use."""
        self.mailbox: Mailbox[Job] = Mailbox()
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
        self.mailbox.push(job)
        self.pump()

    def _ended(self, pull: SimulatedPull) -> None:
        self._feed.ended(pull)

    def pump(self) -> None:
        """Start what can be started, then ask for more."""
        while self.free > 0 and len(self.mailbox):
            self._start(self.mailbox.pop())
        self._feed_soon()

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
    """

    slots: Mapping[tuple[str, str], int]
    place: Place
    hop: float
    steal_after: float = 0.025


class Simulation:
    """Recorded runs on hosts that are not there."""

    def __init__(self, plays: Sequence[Play], setting: Setting) -> None:
        self.clock = Clock()
        self.hop = setting.hop
        self.latencies: list[float] = []
        self.last_end = 0.0
        self._setting = setting
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._members: dict[str, dict[str, Member]] = {}
        for (actor, host), slots in sorted(setting.slots.items()):
            self._members.setdefault(actor, {})[host] = Member(self, actor, host, slots)
        self._hosts = {actor: list(members) for actor, members in self._members.items()}
        for play in plays:
            self.clock.after(play.at, self._begin, play)

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
        hosts = self._hosts.get(call.actor, [])
        host = self._setting.place(call.actor, call.session, call.future, hosts)
        if host:
            self.clock.after(self.hop, self._deliver, self._members[call.actor][host], job)
        else:
            self.lane(call.actor, job.band).store(job)

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
        if victim is not None:
            for job in victim.mailbox.take(lambda job: job.since <= due, member.free):
                self.clock.after(2 * self.hop, member.accept, job)

    def _begin(self, play: Play) -> None:
        began = self.clock.now

        def ended() -> None:
            self.latencies.append(self.clock.now - began)
            self.last_end = self.clock.now

        Playing(self, play.program, ended, None)

    def used(self) -> float:
        """Share of the slots' time that was used, from the first run to the end of the last."""
        members = [member for one in self._members.values() for member in one.values()]
        there = sum(member.slots for member in members) * self.last_end
        return sum(member.busy for member in members) / there if there else 0.0
