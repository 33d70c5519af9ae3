"""What hosts and drivers of a simulation tell of themselves, in reports like those of live ones.

So a policy sees in a simulation what it sees on a board, as late, and by the same code
(``controller/view.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from callboard.actors.columns import Names, pack, within
from callboard.actors.driver import SLOTS
from callboard.infra import subjects
from callboard.infra.messages.telemetry import (
    MOVED,
    Ended,
    Made,
    MovedCalls,
    Queues,
    Report,
    Running,
    RunsBegun,
    RunsEnded,
)

if TYPE_CHECKING:
    from callboard.controller.programs import Play
    from callboard.controller.simulated import Job
    from callboard.controller.simulated_host import Member
    from callboard.controller.simulation import Simulation

DRIVER = "driver"
"""The one driver of all runs."""
EPOCH = 1_000_000_000.0
"""Unix seconds at which a simulation begins."""
_SLOW = 1.0
"""Seconds after which a source reports, whether or not anything has changed, as live ones do."""
_SMALL = 2**15 - 1


class Source:
    """One that reports: a host of a simulation, or its driver.

    Args:
        name: of the host.

    Attributes:
        over: it tells nothing more.
    """

    def __init__(self, simulation: Simulation, name: str) -> None:
        self.name = name
        self.over = False
        self._simulation = simulation
        self._sequence = 0
        self._due = 0.0
        self._queues_told: tuple[list[str], Queues | None] = [], None

    def report(self) -> Report | None:
        """What is new since the last report; None: nothing, and that was told less than a second ago."""
        self._sequence += 1
        report = Report(self.name, self._sequence, EPOCH + self._simulation.clock.now, leaving=self.leaving)
        names = Names()
        self._fill(report, names)
        report.names = list(names)
        now, body = self._simulation.clock.now, (report.names, report.queues)
        if report.queues is not None and body == self._queues_told:
            report.queues = None
        self._queues_told = body
        rows = (report.made, report.running, report.ended, report.moved, report.runs_begun, report.runs_ended)
        if not any((*rows, report.queues, report.leaving)) and now < self._due:
            self._sequence -= 1
            return None
        self._due = now + _SLOW
        return report

    @property
    def leaving(self) -> bool:
        """Whether it takes nothing new."""
        return False

    def _fill(self, report: Report, names: Names) -> None:
        raise NotImplementedError

    def _ago(self, times: Iterable[float]) -> bytes:
        now = self._simulation.clock.now
        return pack("f", (max(0.0, now - at) for at in times))


class HostSource(Source):
    """A host: what runs and waits there, what has ended and left.

    Args:
        members: of this host.
    """

    def __init__(self, simulation: Simulation, name: str, members: Sequence[Member]) -> None:
        super().__init__(simulation, name)
        self._members = members
        self._told: dict[Job, float] = {}
        self.ended: list[tuple[Job, float]] = []
        self.moved: list[tuple[Job, str, str]] = []

    @property
    def leaving(self) -> bool:
        """Whether it takes nothing new."""
        return any(member.leaving for member in self._members)

    def _fill(self, report: Report, names: Names) -> None:
        here = {job: job.began for member in self._members for job in member.here}
        fresh = [job for job, began in here.items() if self._told.get(job) != began]
        self._told = here
        if fresh:
            report.running = self._running(fresh, names)
        if self.ended:
            report.ended = self._ended(self.ended, names)
        if self.moved:
            jobs, lanes, hows = zip(*self.moved, strict=True)
            futures = [job.step.call.future for job in jobs]
            report.moved = MovedCalls(futures, names.column(lanes), pack("B", map(MOVED.index, hows)))
        report.queues = self._queues(names)
        self.ended, self.moved = [], []

    def _running(self, jobs: list[Job], names: Names) -> Running:
        now, calls = self._simulation.clock.now, [job.step.call for job in jobs]
        return Running(
            future=[call.future for call in calls],
            began=pack("f", (now - job.began if job.began >= 0 else -1.0 for job in jobs)),
            waited=pack("f", ((job.began if job.began >= 0 else now) - job.since for job in jobs)),
            call=names.column(call.call or call.actor for call in calls),
            session=names.column(call.session for call in calls),
            workflow=names.column("" for _ in calls),
            band=pack("B", (job.band for job in jobs)),
            priority=pack("h", within((job.priority for job in jobs), -_SMALL, _SMALL)),
            stage=pack("H", (call.stage for call in calls)),
            attempt=pack("H", (1 for _ in calls)),
        )

    def _ended(self, ended: list[tuple[Job, float]], names: Names) -> Ended:
        jobs = [job for job, _ in ended]
        calls = [job.step.call for job in jobs]
        return Ended(
            future=[call.future for call in calls],
            kind=pack("I", range(len(calls))),
            ago=self._ago(at for _, at in ended),
            waited=pack("f", (job.began - job.since for job in jobs)),
            took=pack("f", (at - job.began for job, at in ended)),
            size=pack("I", (0 for _ in calls)),
            call=names.column(call.call or call.actor for call in calls),
            session=names.column(call.session for call in calls),
            how=bytes(len(calls)),
        )

    def _queues(self, names: Names) -> Queues:
        members, lane = self._members, self._simulation.lane
        low, middle, high = ([len(lane(one.actor, band)) for one in members] for band in subjects.BANDS)
        mine = [pack("I", (one.mailbox.by_band[band] for one in members)) for band in subjects.BANDS]
        return Queues(
            actor=names.column(one.actor for one in members),
            version=names.column("" for _ in members),
            busy=pack("I", (max(0, one.slots - one.free) for one in members)),
            slots=pack("I", (one.slots for one in members)),
            mailbox=pack("I", (len(one.mailbox) for one in members)),
            band_0=pack("I", low),
            band_1=pack("I", middle),
            band_2=pack("I", high),
            mailbox_0=mine[0],
            mailbox_1=mine[1],
            mailbox_2=mine[2],
        )


class DriverSource(Source):
    """The driver: the calls that it has made, and its runs.

    Args:
        workflows: that it drives.
    """

    def __init__(self, simulation: Simulation, workflows: Sequence[str]) -> None:
        super().__init__(simulation, DRIVER)
        self._workflows = workflows
        self._open = dict.fromkeys(workflows, 0)
        self.made: list[Job] = []
        self.begun: list[tuple[Play, float]] = []
        self.runs_ended: list[tuple[Play, float]] = []

    def _fill(self, report: Report, names: Names) -> None:
        made = [job for job in self.made if not job.over]
        if made:
            report.made = self._made(made, names)
        for play, _ in self.begun:
            self._open[play.workflow] += 1
        for play, _ in self.runs_ended:
            self._open[play.workflow] -= 1
        over = {play.run for play, _ in self.runs_ended}
        begun = [(play, at) for play, at in self.begun if play.run not in over]
        if begun:
            report.runs_begun = self._begun(begun, names)
        if self.runs_ended:
            report.runs_ended = self._over(self.runs_ended, names)
        report.queues = self._queues(names)
        self.made, self.begun, self.runs_ended = [], [], []

    def _made(self, jobs: list[Job], names: Names) -> Made:
        calls = [job.step.call for job in jobs]
        return Made(
            future=[call.future for call in calls],
            sent=self._ago(job.since for job in jobs),
            call=names.column(call.call or call.actor for call in calls),
            session=names.column(call.session for call in calls),
            workflow=names.column("" for _ in calls),
            lane=names.column(job.lane for job in jobs),
            band=pack("B", (job.band for job in jobs)),
            priority=pack("h", within((job.priority for job in jobs), -_SMALL, _SMALL)),
            stage=pack("H", (call.stage for call in calls)),
        )

    def _begun(self, begun: list[tuple[Play, float]], names: Names) -> RunsBegun:
        return RunsBegun(
            run=[play.run for play, _ in begun],
            ago=self._ago(at for _, at in begun),
            workflow=names.column(play.workflow for play, _ in begun),
            session=names.column(play.session for play, _ in begun),
            priority=pack("h", (0 for _ in begun)),
            key=names.column(play.key for play, _ in begun) if any(play.key for play, _ in begun) else b"",
        )

    def _over(self, ended: list[tuple[Play, float]], names: Names) -> RunsEnded:
        return RunsEnded(
            run=[play.run for play, _ in ended],
            took=pack("f", (took for _, took in ended)),
            calls=pack("I", (len(play.program.steps) for play, _ in ended)),
            workflow=names.column(play.workflow for play, _ in ended),
            status=names.column("completed" for _ in ended),
        )

    def _queues(self, names: Names) -> Queues:
        workflows, none = self._workflows, bytes(4 * len(self._workflows))
        return Queues(
            actor=names.column(workflows),
            version=names.column("" for _ in workflows),
            busy=pack("I", (self._open[one] for one in workflows)),
            slots=pack("I", (SLOTS for _ in workflows)),
            mailbox=pack("I", (self._simulation.waiting(one) for one in workflows)),
            band_0=none,
            band_1=none,
            band_2=none,
            workflow=bytes([1] * len(workflows)),
        )
