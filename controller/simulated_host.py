"""A host of a simulation: actors with their mailboxes and slots, and the programs that run in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from callboard.actors.feed import Banded, Rate
from callboard.actors.mailbox import Mailbox
from callboard.controller.simulated import Job, SimulatedPull
from callboard.infra import subjects

if TYPE_CHECKING:
    from callboard.controller.programs import Program
    from callboard.controller.simulation import Simulation


class Member:
    """One actor in one host: its mailbox and slots.

    Attributes:
        began, ended: seconds at which it has begun to take calls, and at which its host was gone.
        leaving: its host drains.
    """

    def __init__(self, simulation: Simulation, actor: str, host: str, slots: int) -> None:
        self.actor = actor
        self.host = host
        self.slots = self.free = slots
        self.busy = 0.0
        """Slot-seconds in use."""
        self.leaving = False
        self.mailbox: Mailbox[Job] = Mailbox()
        self.here: dict[Job, None] = {}
        """What waits or runs here."""
        self._sessions: dict[str, str] = {}
        """The call that runs of each session, where those of one run one at a time."""
        self._simulation = simulation
        clock = self._clock = simulation.clock
        self.began, self.ended = clock.now, math.inf
        self._rate = Rate(lambda: clock.now)
        self._changed = clock.now
        self._feeding = False
        self._pulls = [
            SimulatedPull(clock, simulation.hop, simulation.lane(actor, band), self.accept, self._ended)
            for band in subjects.BANDS
        ]
        self._feed = Banded(self._pulls, lambda: self.free, self.mailbox.up_to, self._rate.ahead, _nobody)
        self._feed_soon()

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return self.free > 0 and not len(self.mailbox)

    def accept(self, job: Job) -> None:
        """A call has come."""
        if self.leaving and not self._simulation.holds(self, job):
            self._simulation.give_back(self, [job])
            return
        self._simulation.lives_at(self, job)
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

    def leave(self) -> None:
        """Take nothing more, end what runs; others have what waits, unless its session is busy here."""
        self.leaving = True
        for pull in self._pulls:
            pull.withdraw()
        given = self.give(lambda job: not self._simulation.holds(self, job), len(self.mailbox))
        self._simulation.give_back(self, given)

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
        if self.leaving:  # nobody waits for a slot here but what a running call waits for
            fit = self.mailbox.take(self._is_of_running, 1)
            return fit[0] if fit else None
        if not self._simulation.keeps:
            return self.mailbox.pop()
        fit = self.mailbox.take(self._may_enter, 1)
        for job in fit:
            self._sessions.setdefault(job.step.call.session, job.step.call.future)
        return fit[0] if fit else None

    def _may_enter(self, job: Job) -> bool:
        """Whether its session is at rest, or waits for this call."""
        return job.step.call.session not in self._sessions or self._is_of_running(job)

    def _is_of_running(self, job: Job) -> bool:
        """Whether the call that has its session has made it."""
        call = job.step.call
        return call.future.startswith(f"{self._sessions.get(call.session)}.")

    def _feed_soon(self) -> None:
        if not self._feeding and not self.leaving:
            self._feeding = True
            self._clock.after(0.0, self._feed_now)

    def _feed_now(self) -> None:
        self._feeding = False
        if self.leaving:
            return
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
