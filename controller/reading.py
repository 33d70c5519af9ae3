"""Reading a report of telemetry into the columns of a view."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from callboard.controller.table import Rows, Table
from callboard.infra import subjects
from callboard.infra.messages.telemetry import (
    ANSWERS,
    DOWN,
    ENDED,
    Ended,
    Engines,
    Made,
    MovedCalls,
    Queues,
    Report,
    Running,
    RunsBegun,
    RunsEnded,
)

if TYPE_CHECKING:
    from callboard.controller.view import View

_SMOOTH = 0.05
_COUNTED = ("queried", "hit", "prompt", "generated", "preempted")
_COMPLETED, _FAILED, _RETRIED = range(len(ENDED))


class State(enum.IntEnum):
    """Where a future stands."""

    ANNOUNCED = 1
    SENT = 2
    WAITING = 3
    RUNNING = 4


class Calls(msgspec.Struct, frozen=True):
    """Attempts that have ended, as columns; for whoever learns from them."""

    call: list[str]
    took: NDArray[np.float64]
    waited: NDArray[np.float64]
    size: NDArray[np.uint32]
    how: NDArray[np.uint8]


class Reading:
    """One report, on its way into the columns.

    Args:
        view: where it goes; host: the row of its source.
    """

    def __init__(self, view: View, report: Report, host: int) -> None:
        self._view = view
        self._report = report
        self._host = host
        self._generation = view.hosts["generation"][host]

    def all(self) -> None:
        """What is open first, then what has ended: a report may tell both of one call."""
        report = self._report
        if report.queues is not None:
            self._queues(report.queues)
        if report.engines is not None:
            self._engines(report.engines)
        if report.runs_begun is not None:
            self._runs_begun(report.runs_begun)
        if report.made is not None:
            self._made(report.made)
        if report.running is not None:
            self._running(report.running)
        self._over()
        if report.machine is not None:
            told = report.machine
            self._view.hosts.set(self._at(), cpu=told.cpu, memory=told.memory, late=told.late)

    def _over(self) -> None:
        report = self._report
        if report.moved is not None:
            self._moved(report.moved)
        if report.ended is not None:
            self._ended(report.ended)
        if report.gone:
            futures = self._view.futures
            rows = _there(futures.find(report.gone))
            self._view.release(rows[futures["executor"][rows] == self._host])
        if report.closed:
            self._view.futures.drop(self._view.futures.find(report.closed))
        if report.runs_ended is not None:
            self._runs_ended(report.runs_ended)

    # -- columns -------------------------------------------------------------------------------------

    def _at(self) -> Rows:
        return np.array([self._host], np.intp)

    def _numbers(self, column: bytes, kind: str, size: int) -> NDArray[Any]:
        """A column of numbers.

        Raises:
            ValueError: it has not as many as there are rows.
        """
        found = np.frombuffer(column, f"<{kind}") if column else np.zeros(size, f"<{kind}")
        if len(found) != size:
            raise ValueError(f"a column has {len(found)} numbers for {size} rows")
        return found.astype(np.float64) if kind == "f4" else found  # unix seconds need more than four bytes

    def _rows(self, column: bytes, size: int, row_of: Callable[[str], int]) -> Rows:
        """A column of names, as rows of a table."""
        places = self._numbers(column, "u4", size)
        found = np.full(len(self._report.names) + 1, -1, np.intp)
        for place in _different(places, len(self._report.names)):
            found[place] = row_of(self._report.names[place])
        rows: Rows = found[places]
        return rows

    def _strings(self, column: bytes, size: int) -> list[str]:
        names = self._report.names
        return [names[place] for place in self._numbers(column, "u4", size)]

    def _actors(self, column: bytes, size: int) -> Rows:
        """The actors of a column of calls."""
        return self._rows(column, size, lambda call: self._view.actors.row(call.rpartition(".")[0] or call))

    def _sessions(self, column: bytes, runs: list[str]) -> Rows:
        names = self._strings(column, len(runs))
        rows, _ = self._view.sessions.add([name or run for name, run in zip(names, runs, strict=True)])
        self._view.sessions.set(rows, at=self._report.at)
        return rows

    def _keys(self, column: bytes, size: int) -> Rows:
        """The keys of a column; without one nothing has a key."""
        return self._rows(column, size, self._view.keys.row) if column else np.zeros(size, np.intp)

    # -- what is open --------------------------------------------------------------------------------

    def _made(self, made: Made) -> None:
        view, size = self._view, len(made.future)
        runs = [future.partition(":")[0] for future in made.future]
        sent = self._numbers(made.sent, "f4", size)
        rows, fresh = view.futures.add(made.future)
        actors = self._actors(made.call, size)
        bands = self._numbers(made.band, "u1", size)
        places = view.futures["state"]
        state = np.where(sent < 0, State.ANNOUNCED, State.SENT)
        state = np.where(fresh, state, np.maximum(state, places[rows]))  # its host may have told before
        view.futures.set(
            rows,
            state=state,
            call=self._rows(made.call, size, view.names.row),
            actor=actors,
            session=self._sessions(made.session, runs),
            run=self._runs(runs, made.workflow),
            creator=self._host,
            band=bands,
            policy=self._numbers(made.policy, "u4", size),
            priority=self._numbers(made.priority, "i2", size),
            stage=self._numbers(made.stage, "u2", size),
            made=self._report.at - np.maximum(sent, 0),
            lane=self._lanes(self._strings(made.lane, size), actors, bands),
            told=self._generation,
        )
        new = rows[fresh]
        view.futures.set(new, executor=-1, attempt=1)

    def _runs(self, runs: list[str], workflows: bytes) -> Rows:
        rows, fresh = self._view.runs.add(runs)
        if fresh.any():
            actors = self._rows(workflows, len(runs), self._view.actors.row)
            self._view.runs.set(rows[fresh], workflow=actors[fresh], driver=-1, session=-1)
        return rows

    def _lanes(self, lanes: list[str], actors: Rows, bands: NDArray[np.uint8]) -> Rows:
        view = self._view
        known: dict[tuple[str, int, int], int] = {}
        found = np.empty(len(lanes), np.intp)
        for place, key in enumerate(zip(lanes, actors.tolist(), bands.tolist(), strict=True)):
            row = known.get(key)
            if row is None:
                row = known[key] = view.lane(*key)
            found[place] = row
        return found

    def _running(self, running: Running) -> None:
        view, size = self._view, len(running.future)
        runs = [future.partition(":")[0] for future in running.future]
        began = self._numbers(running.began, "f4", size)
        waited = self._numbers(running.waited, "f4", size)
        rows, fresh = view.futures.add(running.future)
        started = np.where(began < 0, 0.0, self._report.at - began)
        view.futures.set(
            rows,
            state=np.where(began < 0, State.WAITING, State.RUNNING),
            executor=self._host,
            began=started,
            attempt=self._numbers(running.attempt, "u2", size),
            held=self._generation,
        )
        actors = self._actors(running.call, size)
        new = rows[fresh]
        bands = self._numbers(running.band, "u1", size)
        view.futures.set(
            new,
            call=self._rows(running.call, size, view.names.row)[fresh],
            actor=actors[fresh],
            session=self._sessions(running.session, runs)[fresh],
            run=self._runs(runs, running.workflow)[fresh],
            creator=-1,
            lane=-1,
            band=bands[fresh],
            priority=self._numbers(running.priority, "i2", size)[fresh],
            stage=self._numbers(running.stage, "u2", size)[fresh],
            made=(np.where(began < 0, self._report.at, started) - waited)[fresh],
        )

    def _moved(self, moved: MovedCalls) -> None:
        futures, size = self._view.futures, len(moved.future)
        rows = futures.find(moved.future)
        lanes = self._strings(moved.lane, size)
        for row, lane in zip(rows.tolist(), lanes, strict=True):
            if row >= 0:
                actor, band = int(futures["actor"][row]), int(futures["band"][row])
                futures["lane"][row] = self._view.lane(lane, actor, band)
        self._view.release(_there(rows))

    def _runs_begun(self, begun: RunsBegun) -> None:
        runs, size = self._view.runs, len(begun.run)
        rows, _ = runs.add(begun.run)
        sessions = self._sessions(begun.session, begun.run)
        keys = self._keys(begun.key, size)
        left = self._numbers(begun.deadline, "f4", size)
        runs.set(
            rows,
            workflow=self._rows(begun.workflow, size, self._view.actors.row),
            session=sessions,
            key=keys,
            driver=self._host,
            began=self._report.at - self._numbers(begun.ago, "f4", size),
            priority=self._numbers(begun.priority, "i2", size),
            deadline=np.where(left > 0, self._report.at + left, 0.0),
            told=self._generation,
        )
        self._view.sessions.set(sessions[keys > 0], key=keys[keys > 0])

    # -- what is over --------------------------------------------------------------------------------

    def _ended(self, ended: Ended) -> None:
        view, size, kinds = self._view, len(ended.future), len(ended.how)
        kind = self._numbers(ended.kind, "u4", size)
        how = self._numbers(ended.how, "u1", kinds)[kind]
        names = self._strings(ended.call, kinds)
        calls = Calls(
            [names[place] for place in kind.tolist()],
            self._numbers(ended.took, "f4", size),
            self._numbers(ended.waited, "f4", size),
            self._numbers(ended.size, "u4", size),
            how,
        )
        actors = self._actors(ended.call, kinds)[kind]
        rows = view.futures.find(ended.future)
        retried = how == _RETRIED
        view.release(_there(rows[retried]))
        view.futures.drop(rows[~retried])
        self._count(view.actors, actors, how)
        if ended.tokens:
            np.add.at(view.actors["tokens"], actors, self._numbers(ended.tokens, "u4", size))
        _smooth(view.actors, actors, waited=calls.waited, took=calls.took)
        instances = [view.instance(actor, self._host) for actor in _different(actors, len(view.actors.keys))]
        for instance in instances:
            view.instances["done"][instance] += np.count_nonzero(actors == view.instances["actor"][instance])
        if view.on_ended is not None:
            view.on_ended(calls)

    def _count(self, table: Table, rows: Rows, how: NDArray[np.uint8]) -> None:
        for number, column in ((_COMPLETED, "done"), (_FAILED, "failed"), (_RETRIED, "retried")):
            np.add.at(table[column], rows[how == number], 1)

    def _runs_ended(self, ended: RunsEnded) -> None:
        view, size = self._view, len(ended.run)
        status = self._strings(ended.status, size)
        rows = view.runs.find(ended.run)
        mine = (rows >= 0) & (view.runs["driver"][rows] == self._host)
        left = np.array([one == "left" for one in status], np.bool_)
        view.runs.set(rows[mine & left], driver=-1)
        over = ~left
        if not over.any():
            return
        actors = self._rows(ended.workflow, size, view.actors.row)[over]
        failed = np.array([one != "completed" for one in status], np.uint8)[over]
        self._count(view.actors, actors, failed)
        view.actors.set(actors, workflow=True)
        _smooth(view.actors, actors, took=self._numbers(ended.took, "f4", size)[over])
        view.end_runs(_there(rows[over]))

    # -- who works -----------------------------------------------------------------------------------

    def _queues(self, queues: Queues) -> None:
        view, size = self._view, len(queues.actor) // 4
        actors = self._rows(queues.actor, size, view.actors.row)
        rows = np.array([view.instance(actor, self._host) for actor in actors.tolist()], np.intp)
        workflow = self._numbers(queues.workflow, "u1", size).astype(np.bool_)
        view.instances.set(
            rows,
            busy=self._numbers(queues.busy, "u4", size),
            slots=self._numbers(queues.slots, "u4", size),
            mailbox=self._numbers(queues.mailbox, "u4", size),
            standby=self._numbers(queues.standby, "u1", size),
            version=self._rows(queues.version, size, view.names.row),
            workflow=workflow,
            told=self._generation,
        )
        view.actors.set(actors[workflow], workflow=True)
        self._wait(subjects.ANY, actors, (queues.band_0, queues.band_1, queues.band_2))
        self._wait(self._report.source, actors, (queues.mailbox_0, queues.mailbox_1, queues.mailbox_2))

    def _wait(self, lane: str, actors: Rows, columns: tuple[bytes, bytes, bytes]) -> None:
        for band, column in enumerate(columns):
            waiting = self._numbers(column, "u4", len(actors))
            for actor, count in zip(actors.tolist(), waiting.tolist(), strict=True):
                self._view.wait(lane, actor, band, count)

    def _engines(self, engines: Engines) -> None:
        view, size = self._view, len(engines.actor) // 4
        actors = self._rows(engines.actor, size, view.actors.row)
        rows = np.array([view.instance(actor, self._host) for actor in actors.tolist()], np.intp)
        answers = self._numbers(engines.answers, "u1", size)
        view.instances.set(
            rows,
            engine=answers == ANSWERS,
            down=answers == DOWN,
            in_batch=self._numbers(engines.running, "u4", size),
            in_queue=self._numbers(engines.waiting, "u4", size),
            kv=self._numbers(engines.kv, "f4", size),
            **{name: self._numbers(getattr(engines, name), "u8", size) for name in _COUNTED},
        )


def _there(rows: Rows) -> Rows:
    return rows[rows >= 0]


def _different(numbers: NDArray[Any], below: int) -> list[int]:
    """The different numbers among many that are all below a small one; cheaper than sorting them.

    Raises:
        IndexError: one is not below it.
    """
    there = np.zeros(below, np.bool_)
    there[numbers] = True
    found: list[int] = np.flatnonzero(there).tolist()
    return found


def _smooth(table: Table, rows: Rows, **columns: NDArray[np.float64]) -> None:
    """Let new values weigh in, as many as there are of each row."""
    size = len(table.keys)
    counts = np.bincount(rows, minlength=size)
    touched = np.flatnonzero(counts)
    for name, values in columns.items():
        means = np.bincount(rows, values, size)[touched] / counts[touched]
        weight = np.where(table[name][touched] == 0, 1.0, 1.0 - (1.0 - _SMOOTH) ** counts[touched])
        table[name][touched] += weight * (means - table[name][touched])
