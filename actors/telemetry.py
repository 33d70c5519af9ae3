"""Telemetry of a host: what goes on there is gathered cheaply, and told a few times a second.

A call costs one record, made when it ends; what runs, what waits and what is open is seen by looking when
a report is due. So a call that comes and goes between two reports is told of once. Reports may be lost: each
has a number, and whoever misses one asks for the whole state (``Tell``).
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from callboard.actors import reports
from callboard.actors.driver import Driver
from callboard.actors.instance import Instance
from callboard.actors.maker import CallMaker
from callboard.actors.reports import EngineRow, QueueRow, Rows, RunEndedRow
from callboard.infra import log, subjects
from callboard.infra.messages.telemetry import ENDED, MOVED, Machine, Report

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.actors.host import Host
    from callboard.actors.inbound import Call
    from callboard.actors.run import Run
    from callboard.infra.messages.run import Done, Result

_CHUNK = 2_000
"""Rows of one report: some milliseconds of encoding."""
_MANY = 500
"""Calls that a report tells of as soon as it finds them; of more, those that the next one finds, too."""
_BETWEEN = 0.005
_SOON = 0.05
_SLOW = 1.0
_SELDOM = 5.0
_COMPLETED, _FAILED, _RETRIED = range(len(ENDED))


class Telemetry:
    """What a host tells of itself.

    Args:
        host: whose it is; with ``telemetry_every`` at 0 it tells nothing.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._node = host.node
        self.every = host.node.settings.telemetry_every
        self._sequence = 0
        self._next = 0.0
        self._ended: list[Any] = []
        """As `reports.gathered` takes it: an object for each would wake the garbage collector."""
        self._moved: list[tuple[str, str, int]] = []
        self._sessions_moved: list[tuple[str, str, str, int]] = []
        self._runs_ended: list[RunEndedRow] = []
        self._made: list[Future[Any]] = []
        self._young: list[Future[Any]] = []
        self._open: dict[str, Future[Any]] = {}
        self._running: dict[tuple[str, int], float] = {}
        self._seen: set[tuple[str, int]] = set()
        self._runs: dict[str, Run] = {}
        self._over: set[str] = set()
        self._queues: dict[str, QueueRow] = {}
        self._engines: dict[str, EngineRow] = {}
        self._whole: list[Rows] = []
        self._part = 0
        self._hurrying = self._left = False
        self._flushed = self._looked = self._ticked = time.monotonic()
        self._cpu = time.process_time()
        self._memory = 0
        self._measured = -_SELDOM
        self._late = 0.0
        self._log = log.get("telemetry").bind(host=host.id)
        if self.on:
            host.caller.made = self._made

    @property
    def on(self) -> bool:
        """Whether anything is told."""
        return self.every > 0

    # -- what is told of as it happens ---------------------------------------------------------------

    def ended(self, call: Call, result: Result, retry_in: float | None = None) -> None:
        """An attempt has ended; this is done for every call, so that it must be quick."""
        if not self.every:
            return
        how = _COMPLETED if result.error is None else _FAILED if retry_in is None else _RETRIED
        self._ended += (
            call.id,
            call.started,
            result.waited,
            result.took,
            call.size or len(call.body),
            call.tokens,
            result.call,
            "" if call.session == call.run else call.session,
            how,
            call.band,
            call.priority,
            call.stage,
            1 if result.ranked else 0,
            call.attempt,
        )
        if how == _FAILED:
            self._hurry()

    def moved(self, call: Call, lane: str, why: str) -> None:
        """A call that was here is in another lane now."""
        if self.on:
            self._moved.append((call.id, lane, MOVED.index(why)))
            self._hurry()

    def session_moved(self, actor: str, session: str, host: str, why: str) -> None:
        """A session that was held here is held by another host now."""
        if self.on:
            self._sessions_moved.append((actor, session, host, MOVED.index(why)))

    def run_ended(self, done: Done, key: str) -> None:
        """A run has its outcome.

        Args:
            key: that it was charged to, if any.
        """
        if self.on:
            self._runs_ended.append((done.run, done.took, done.calls, done.workflow, done.status, key))

    def _hurry(self) -> None:
        """Tell soon, but not all the time."""
        if not self._hurrying:
            self._hurrying = True
            wait = max(_BETWEEN, self._flushed + _SOON - time.monotonic())
            self._node.loop.call_later(wait, self.flush)

    # -- telling -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Called 20 times a second."""
        if not self.on:
            return
        now = time.monotonic()
        self._late = max(self._late, now - self._ticked - _SOON)
        self._ticked = now
        if now >= self._next:
            self._next = now + self.every
            self.flush()

    def tell(self) -> None:
        """Somebody wants the whole state: tell it in parts, between which other work goes on."""
        if not self.on or self._left:
            return
        self.flush()
        whole = Rows(
            made=list(self._open.values()),
            running=[call for call in self._calls() if self._running.get(call.key) == call.started],
            begun=list(self._runs.values()),
            queues=list(self._queues.values()),
            engines=list(self._engines.values()),
        )
        if not self._whole:
            self._node.loop.call_soon(self._tell_part)
        self._part = 0
        self._whole = list(whole.chunks(_CHUNK))
        self._whole.reverse()

    def _tell_part(self) -> None:
        rows = self._whole.pop()
        if self._left:
            return
        rows.made = [future for future in rows.made if not future.done()]
        rows.running = [call for call in rows.running if call.key in self._running]
        rows.begun = [run for run in rows.begun if run.request.run in self._runs]
        self._safely(lambda: self._publish(rows, self._machine(), whole=True, last=not self._whole))
        if self._whole:
            self._node.loop.call_later(_BETWEEN, self._tell_part)

    def flush(self) -> None:
        """Tell what is new."""
        self._hurrying = False
        if not self._left:
            self._safely(self._flush)

    def _safely(self, tell: Callable[[], None]) -> None:
        try:
            tell()
        except Exception:  # noqa: BLE001 - what cannot be told must not hurt what it tells of
            self._log.exception("telemetry_failed", action="leaving this report out")

    def _flush(self) -> None:
        now = self._flushed = time.monotonic()
        told, self._ended = self._ended, []
        rows = Rows(moved=self._moved, run_ended=self._runs_ended, sessions_moved=self._sessions_moved)
        self._moved, self._runs_ended, self._sessions_moved = [], [], []
        if told:
            rows.ended, rows.kinds = reports.gathered(told)
        self._look_at_calls(rows)
        self._look_at_futures(rows)
        self._look_at_members(rows)
        machine = None
        if now - self._looked >= _SLOW:
            self._look_for_closed(rows)
            machine = self._machine()
            self._looked = now
            if now - self._measured >= _SELDOM:
                self._measured = now
                self._host.caller.spawn(self._measure())
        if not rows and machine is None:
            return
        for chunk in rows.chunks(_CHUNK):
            self._publish(chunk, machine)
            machine = None

    def leave(self) -> None:
        """The last report."""
        if self.on and not self._left:
            self.flush()
            self._safely(lambda: self._publish(Rows(), None, leaving=True))
            self._left = True

    def _publish(
        self,
        rows: Rows,
        machine: Machine | None,
        *,
        whole: bool = False,
        last: bool = False,
        leaving: bool = False,
    ) -> None:
        report = Report(
            self._host.id,
            self._sequence + 1,
            time.time(),
            every=max(self.every, _SLOW),
            part=self._part + 1 if whole else 0,
            last=last,
            leaving=leaving or self._host.draining,
            machine=machine,
        )
        reports.fill(report, rows, self._host.watch.takes_calls)
        body = msgspec.msgpack.encode(report)
        if len(body) > self._node.store.max_body and len(rows) > 1:
            first, second = rows.halves()
            self._publish(first, machine, whole=whole, leaving=leaving)
            self._publish(second, None, whole=whole, last=last, leaving=leaving)
            return
        self._sequence += 1
        self._part += whole
        if self._node.connection.connected.is_set():  # what is missed is asked for
            self._node.connection.publish(subjects.telemetry(self._host.id), body)

    # -- looking -------------------------------------------------------------------------------------

    def _calls(self) -> list[Call]:
        """What waits or runs here; a call whose outcome is being stored does neither."""
        return [
            call
            for member in self._host.instances()
            if not isinstance(member, Driver)
            for call in member.running.values()
            if call.task is not None or not call.started
        ]

    def _look_at_calls(self, rows: Rows) -> None:
        told, calls = self._running, self._calls()
        fresh = [call for call in calls if told.get(call.key) != call.started]
        many = len(fresh) > _MANY
        rows.running = [call for call in fresh if call.key in self._seen] if many else fresh
        self._seen = {call.key for call in fresh} if many else set()
        here = {call.key: told[call.key] for call in calls if call.key in told} if told else {}
        if told:
            ended = zip(rows.ended.future, rows.ended.kind, strict=True)
            over = {(future, rows.kinds[kind][-1]) for future, kind in ended}
            left = told.keys() - here.keys() - over
            rows.gone = [future for future, _ in left]
        self._running = here | {call.key: call.started for call in rows.running}

    def _look_at_futures(self, rows: Rows) -> None:
        if not self._made and not self._young:
            return
        due, fresh = self._young, [future for future in self._made if not future.done()]
        self._made.clear()
        self._young = fresh if len(fresh) > _MANY else []
        told = {future.id: future for future in (due if self._young else due + fresh) if not future.done()}
        self._open |= told
        rows.made = [future for future in told.values() if isinstance(future.maker, CallMaker)]

    def _look_for_closed(self, rows: Rows) -> None:
        rows.closed = [name for name, future in self._open.items() if future.done()]
        for name in rows.closed:
            del self._open[name]

    def _look_at_members(self, rows: Rows) -> None:
        runs: dict[str, Run] = {}
        for member in self._host.instances():
            if isinstance(member, Driver):
                runs |= {name: run for name, run in member.runs.items() if run.lease is not None}
            row = reports.queue_row(member)
            if self._queues.get(row[0]) != row:
                self._queues[row[0]] = row
                rows.queues.append(row)
            if isinstance(member, Instance):
                self._look_at_engine(member, rows)
        told = self._runs
        self._over = {row[0] for row in rows.run_ended} | (self._over & runs.keys())  # it may still clear up
        if runs or told:
            self._runs = {name: run for name, run in runs.items() if name not in self._over}
            rows.begun = [run for name, run in self._runs.items() if name not in told]
            left = told.keys() - runs.keys() - self._over
            rows.run_ended += [
                (name, 0.0, 0, told[name].maker.context.workflow, "left", told[name].request.key)
                for name in left
            ]

    def _look_at_engine(self, member: Instance, rows: Rows) -> None:
        """One that has never told anything is told of while it is down only."""
        if member.engine is None and not member.down and member.name not in self._engines:
            return
        row = reports.engine_row(member)
        if self._engines.get(member.name) != row:
            self._engines[member.name] = row
            rows.engines.append(row)

    def _machine(self) -> Machine:
        now, cpu = time.monotonic(), time.process_time()
        machine = Machine(
            cpu=round((cpu - self._cpu) / max(now - self._looked, 0.05), 3),
            memory=self._memory,
            late=round(self._late, 3),
            version=self._host.version,
            node=platform.node(),
            startup=self._host.startup,
        )
        if now - self._looked >= _SLOW:
            self._cpu, self._late = cpu, 0.0
        return machine

    async def _measure(self) -> None:
        self._memory = await asyncio.to_thread(_resident)


def _resident() -> int:
    """Bytes of this process in memory."""
    return int(psutil.Process().memory_info().rss)
