"""What the controller sees: columns of what is open now, kept by the reports of hosts and drivers.

A future is dropped when it has its outcome, a run when it is over, a session when nothing of it has been open
for a while; what is said of actors stays. Nothing is collected: a report costs what has changed. What a lost
report would have said comes with the next whole state of its source.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec
import numpy as np

from callboard.controller.reading import Calls, Reading, State
from callboard.controller.table import Rows, Table
from callboard.infra import subjects
from callboard.infra.messages.registry import ActorInfo, Pulse
from callboard.infra.messages.telemetry import Report
from callboard.state.runtimes import Runtimes

SESSION_IDLE = 60.0
"""Seconds after which a session of which nothing is open is dropped."""
_MOST_INSTANCES = 1_000_000
_decode = msgspec.msgpack.Decoder(Report).decode


class View:
    """Columns of everything that is open, and of those who work on it.

    A column that names a row of another table holds its place there, or -1. ``told`` and ``held`` count whole
    states of a host, see :meth:`take`.

    Attributes:
        futures: state (:class:`State`); call: a row of ``names``; actor, session, run, lane: rows; creator,
            executor: rows of hosts; band, priority, stage, attempt; made, began: unix seconds; policy:
            epoch of the decision that chose the lane, or 0.
        sessions: at: unix seconds, when something was last heard of it; added: counts them; key: of the
            run in it that was told of last and has one.
        runs: workflow: a row of actors; session; driver: a row of hosts; began, deadline: unix seconds,
            0: none; priority; key: that it is charged to.
        keys: that runs are charged to; row 0 is "none", so that what is not told has none.
        hosts: cpu: cores in use; memory: bytes; late: seconds; heard: unix seconds; draining; sequence: of
            its last report; provided: this controller may end it; provisioned: another one, or this one,
            minds its process; killed: it is being ended.
        instances: actor, host: rows; busy, slots, mailbox, standby, workflow; version: a row of ``names``;
            done: attempts that have ended there; down: its engine does not answer. Of a model's engine, 0
            unless ``engine``: in_batch, in_queue, preempted: requests; kv: share of its cache, 0 to 1;
            queried, hit, prompt and generated: tokens.
        actors: done, failed, retried: attempts that have ended; tokens: that models have made in them;
            waited, took: seconds, lately; workflow, model: what it is; least, most: ``min_instances`` and
            ``max_instances``, 0: no limit; starting: instances that are being started.
        lanes: actor: a row; host: a row, -1 for the shared lane; band; waiting: of the shared lane as its
            hosts heard last, of a host's own what is in the mailbox there, into which it is emptied.
        names: calls, and versions of code.
        processes: of each host: name of its machine or container, and process id.
        runtimes: how long calls take, as far as whoever keeps this view has learnt it: the controller that
            leads, or a simulation so far.
        room: by actor and place: how many more instances of it can be started there; the first place is the
            default. Empty: nothing can be started.
    """

    def __init__(self) -> None:
        self.futures = Table(
            state=np.uint8, call=np.int32, actor=np.int32, session=np.int32, run=np.int32, lane=np.int32,
            creator=np.int32, executor=np.int32, band=np.uint8, priority=np.int16, stage=np.uint16,
            attempt=np.uint16, made=np.float64, began=np.float64, policy=np.uint32, told=np.uint32,
            held=np.uint32,
        )  # fmt: skip
        self.sessions = Table(at=np.float64, added=np.uint32, key=np.int32)
        self.runs = Table(
            workflow=np.int32, session=np.int32, driver=np.int32, began=np.float64, priority=np.int16,
            told=np.uint32, deadline=np.float64, key=np.int32,
        )  # fmt: skip
        self.keys = Table(added=np.uint32)
        self.keys.row("")
        self.hosts = Table(
            cpu=np.float32, memory=np.int64, late=np.float32, heard=np.float64, draining=np.bool_,
            sequence=np.int64, generation=np.uint32, provided=np.bool_, killed=np.bool_,
            provisioned=np.bool_,
        )  # fmt: skip
        self.instances = Table(
            actor=np.int32, host=np.int32, busy=np.int64, slots=np.int64, mailbox=np.int64, standby=np.bool_,
            workflow=np.bool_, version=np.int32, done=np.int64, told=np.uint32, engine=np.bool_,
            down=np.bool_, in_batch=np.int64, in_queue=np.int64, kv=np.float32, queried=np.int64,
            hit=np.int64, prompt=np.int64, generated=np.int64, preempted=np.int64,
        )  # fmt: skip
        self.actors = Table(
            done=np.int64, failed=np.int64, retried=np.int64, tokens=np.int64, waited=np.float64,
            took=np.float64,
            workflow=np.bool_, least=np.int32, most=np.int32, starting=np.int32, model=np.bool_,
        )  # fmt: skip
        self.lanes = Table(actor=np.int32, host=np.int32, band=np.uint8, waiting=np.int64)
        self.names = Table()
        self.now: Callable[[], float] = time.time
        """Unix seconds, or those of a simulation: what policies are to go by."""
        self.processes: dict[str, tuple[str, int]] = {}
        self.runtimes = Runtimes()
        self.room: dict[str, dict[str, int]] = {}
        self.on_ended: Callable[[Calls], None] | None = None
        """Told of the attempts that have ended, such as :meth:`learn`."""

    # -- reports -------------------------------------------------------------------------------------

    def read(self, source: str, body: bytes) -> tuple[Report | None, bool]:
        """Take a report as it came; None: it is none of this source. And whether one was missed before it."""
        try:
            report = _decode(body)
        except (msgspec.DecodeError, RecursionError):
            return None, False  # anybody can publish there
        if report.source != source or not subjects.is_token(source):
            return None, False
        before = self._last_of(source)
        if report.sequence <= before:
            return None, False
        missed = report.sequence != before + 1
        try:
            self.take(report)
        except (ValueError, IndexError):  # columns that do not fit: as if it had been lost
            return None, True
        return report, missed

    def learn(self, calls: Calls) -> None:
        """Let what has ended count for the runtime table."""
        worked = calls.how == 0  # how long an error takes says little
        names = [name for name, one in zip(calls.call, worked.tolist(), strict=True) if one]
        self.runtimes.learn(names, calls.size[worked], calls.took[worked])

    def _last_of(self, source: str) -> int:
        row = self.hosts.row(source)  # before its column is looked at, which may grow
        return int(self.hosts["sequence"][row])

    def take(self, report: Report) -> None:
        """Take a report.

        Each whole state of a source has a number; it marks what it tells again, and so do the reports after
        it. What is not marked when it is complete is no more.

        Raises:
            ValueError, IndexError: its columns do not fit together.
        """
        hosts, host = self.hosts, self.hosts.row(report.source)
        hosts["sequence"][host] = report.sequence
        hosts["heard"][host] = report.at
        hosts["draining"][host] = report.leaving
        if report.part == 1:
            hosts["generation"][host] += 1
        Reading(self, report, host).all()
        if report.last:
            self._forget_old(host)

    def _forget_old(self, host: int) -> None:
        """What a source has not told again with its whole state is no more."""
        generation = self.hosts["generation"][host]
        futures, runs, instances = self.futures, self.runs, self.instances
        mine = futures.where(executor=host)
        self.release(mine[futures["held"][mine] != generation])
        mine = futures.where(creator=host)
        self._disown(mine[futures["told"][mine] != generation])
        mine = runs.where(driver=host)
        runs.set(mine[runs["told"][mine] != generation], driver=-1)
        mine = instances.where(host=host)
        gone = mine[instances["told"][mine] != generation]
        for actor in instances["actor"][gone].tolist():
            self.lanes.set(self.lanes.where(host=host, actor=actor), waiting=0)
        instances.drop(gone)

    def release(self, rows: Rows) -> None:
        """These calls are on no host any more; those that nobody waits for are forgotten."""
        futures = self.futures
        futures.set(rows, executor=-1, began=0.0, state=State.SENT)
        futures.drop(rows[futures["creator"][rows] < 0])

    def _disown(self, rows: Rows) -> None:
        """Nobody is known to wait for these futures; those that are on no host are forgotten."""
        futures = self.futures
        futures.set(rows, creator=-1)
        futures.drop(rows[futures["executor"][rows] < 0])

    def end_runs(self, rows: Rows) -> None:
        """These runs are over, and with them all of their calls."""
        if len(rows):
            futures = self.futures
            left = futures["alive"] & np.isin(futures["run"], rows)
            futures.drop(np.flatnonzero(left))
            self.runs.drop(rows)

    def lane(self, lane: str, actor: int, band: int) -> int:
        """The row of a lane of an actor."""
        key = f"{self.actors.keys[actor]}.{lane}.{band}"
        if key in self.lanes:
            return self.lanes.row(key)
        row = self.lanes.row(key)
        host = -1 if lane == subjects.ANY else self.hosts.row(lane)
        self.lanes.set(np.array([row], np.intp), actor=actor, host=host, band=band)
        return row

    def wait(self, lane: str, actor: int, band: int, count: int) -> None:
        """So many calls wait in a lane; one in which none ever waited need not be there."""
        if count or f"{self.actors.keys[actor]}.{lane}.{band}" in self.lanes:
            row = self.lane(lane, actor, band)  # before its column is looked at, which may grow
            self.lanes["waiting"][row] = count

    def instance(self, actor: int, host: int) -> int:
        """The row of an actor in a host."""
        key = f"{self.actors.keys[actor]}@{self.hosts.keys[host]}"
        if key in self.instances:
            return self.instances.row(key)
        row = self.instances.row(key)
        told = self.hosts["generation"][host]
        self.instances.set(np.array([row], np.intp), actor=actor, host=host, version=-1, told=told)
        return row

    # -- the registry --------------------------------------------------------------------------------

    def announce(self, actors: Iterable[ActorInfo]) -> None:
        """There are these actors, whether or not a host runs them."""
        for actor in actors:
            row = self.actors.row(actor.name)  # before its columns are looked at, which may grow
            self.actors["workflow"][row] = actor.kind == "workflow"
            self.actors["model"][row] = actor.kind == "model"
            self.actors["least"][row] = _count(actor.directives.get("min_instances"))
            self.actors["most"][row] = _count(actor.directives.get("max_instances"))

    def pulse(self, pulse: Pulse) -> None:
        """A host lives; of an instance of which no report has told this is all that is known.

        So are those of a host whose event loop is blocked, to a controller that has come since.
        """
        host = self.hosts.row(pulse.host)
        self.processes[pulse.host] = (pulse.node, pulse.pid)
        self.hosts["heard"][host] = max(self.hosts["heard"][host], pulse.at)
        self.hosts["draining"][host] = pulse.draining
        self.hosts["provisioned"][host] = pulse.provisioned
        reports = bool(self.hosts["sequence"][host])
        if not reports:
            self.hosts["late"][host] = pulse.late
        for name, info in pulse.instances.items():
            if reports and f"{name}@{pulse.host}" in self.instances:
                continue
            row = self.instance(self.actors.row(name), host)
            self.instances.set(
                np.array([row], np.intp),
                busy=info.busy,
                slots=info.slots,
                mailbox=info.mailbox,
                workflow=info.workflow,
                version=self.names.row(info.version),
            )

    def host_gone(self, name: str) -> None:
        """A host has left, or is dead: its calls are on no host, its futures and runs have another maker."""
        self.processes.pop(name, None)
        if name not in self.hosts:
            return
        host = self.hosts.row(name)
        self.release(self.futures.where(executor=host))
        self._disown(self.futures.where(creator=host))
        self.runs.set(self.runs.where(driver=host), driver=-1)
        self.instances.drop(self.instances.where(host=host))
        lanes = self.lanes.where(host=host)
        left = self.futures["alive"] & np.isin(self.futures["lane"], lanes)
        self.futures["lane"][left] = -1
        self.lanes.drop(lanes)
        self.hosts.drop(np.array([host], np.intp))

    def prune(self, now: float) -> None:
        """Called now and then: drop sessions, runs and keys of which nothing is left."""
        open_runs = self.futures.count_by("run", len(self.runs.keys))
        runs = self.runs.where(driver=-1)
        self.runs.drop(runs[open_runs[runs] == 0])
        size = len(self.sessions.keys)
        used = self.futures.count_by("session", size) + self.runs.count_by("session", size)
        rows = self.sessions.rows
        idle = (used[rows] == 0) & (self.sessions["at"][rows] < now - SESSION_IDLE)
        self.sessions.drop(rows[idle])
        unused = self.keys["alive"].copy()
        for table in (self.runs, self.sessions):
            unused[table["key"][table.rows]] = False
        unused[0] = False
        self.keys.drop(np.flatnonzero(unused))


def _count(told: object) -> int:
    """A number of instances, as anybody may have told it."""
    return min(told, _MOST_INSTANCES) if isinstance(told, int) and told > 0 else 0
