"""Reports of telemetry: from what a host has seen to columns."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_args

from callboard.actors.addressing import band_of
from callboard.actors.columns import Names, Places, pack, within
from callboard.actors.driver import Driver
from callboard.actors.maker import CallMaker
from callboard.infra import subjects
from callboard.infra.messages import telemetry as messages

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.actors.inbound import Call
    from callboard.actors.instance import Instance
    from callboard.actors.run import Run

Kind: TypeAlias = tuple[str, str, int, int, int, int, int, int]
"""Call, session, how, band, priority, stage, ranked, attempt."""
RunEndedRow: TypeAlias = tuple[str, float, int, str, str, str]
"""Run, took, calls, workflow, status, key."""
Bands: TypeAlias = tuple[int, int, int]
"""Calls of each band."""
QueueRow: TypeAlias = tuple[str, str, int, int, int, Bands, Bands, int, int, int, int, str]
"""Actor, version, busy, slots, mailbox, bands of lane and mailbox, standby, workflow, least, most, needs."""
EngineRow: TypeAlias = tuple[str, int, int, int, float, int, int, int, int, int]
"""Actor, answers, running, waiting, kv, queried, hit, prompt, generated, preempted."""

_DEPS = 1_000
_SMALL = 2**15 - 1
_LARGE = 2**32 - 1
_TOLD = 6 + len(get_args(Kind))
"""Fields that are told of an attempt: its own, and those of its kind."""
_NONE = -1.0
_SOON = 0.001


@dataclasses.dataclass
class EndedCalls:
    """Attempts that have ended, in columns.

    Attributes:
        future: ids; kind: places of their kinds.
        began: unix seconds, 0: never; waited, took: seconds.
        size: bytes of the arguments; tokens: that a model has made.
    """

    future: Sequence[str] = ()
    kind: Sequence[int] = ()
    began: Sequence[float] = ()
    waited: Sequence[float] = ()
    took: Sequence[float] = ()
    size: Sequence[int] = ()
    tokens: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.future)

    def __getitem__(self, part: slice) -> EndedCalls:
        return EndedCalls(**{name: column[part] for name, column in vars(self).items()})


def gathered(told: list[Any]) -> tuple[EndedCalls, list[Kind]]:
    """What was told of attempts as they ended, and their kinds.

    Args:
        told: of each future, began, waited, took, size and tokens, then its kind, one after the other.
    """
    future, began, waited, took, size, tokens, *kind = (told[place::_TOLD] for place in range(_TOLD))
    kinds = Places[Kind]()
    places = [kinds[one] for one in zip(*kind, strict=True)]
    return EndedCalls(future, places, began, waited, took, size, tokens), list(kinds)


@dataclasses.dataclass
class Rows:
    """What a report is made of; kinds: of what has ended, shared by all pieces."""

    kinds: list[Kind] = dataclasses.field(default_factory=list)
    made: list[Future[Any]] = dataclasses.field(default_factory=list)
    running: list[Call] = dataclasses.field(default_factory=list)
    ended: EndedCalls = dataclasses.field(default_factory=EndedCalls)
    moved: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)
    sessions_moved: list[tuple[str, str, str, int]] = dataclasses.field(default_factory=list)
    begun: list[Run] = dataclasses.field(default_factory=list)
    run_ended: list[RunEndedRow] = dataclasses.field(default_factory=list)
    queues: list[QueueRow] = dataclasses.field(default_factory=list)
    engines: list[EngineRow] = dataclasses.field(default_factory=list)
    closed: list[str] = dataclasses.field(default_factory=list)
    gone: list[str] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self._lists().values()))

    def _lists(self) -> dict[str, Any]:
        return {name: rows for name, rows in vars(self).items() if name != "kinds"}

    def chunks(self, most: int) -> Iterator[Rows]:
        """The same in pieces of at most so many rows of a kind; at least one piece."""
        lists = self._lists()
        longest = max(map(len, lists.values()))
        for start in range(0, max(1, longest), most):
            yield Rows(self.kinds, **{name: rows[start : start + most] for name, rows in lists.items()})

    def halves(self) -> tuple[Rows, Rows]:
        """The same in two pieces."""
        first = {name: rows[: (len(rows) + 1) // 2] for name, rows in self._lists().items()}
        second = {name: rows[(len(rows) + 1) // 2 :] for name, rows in self._lists().items()}
        return Rows(self.kinds, **first), Rows(self.kinds, **second)


def queue_row(member: Instance | Driver) -> QueueRow:
    """How an instance stands."""
    info = member.info()
    if isinstance(member, Driver):
        shared, mine = (0, member.left, 0), (0, 0, 0)
    else:
        shared, mine = member.waiting(), member.mailbox.by_band
    is_so = int(member.standby), int(info.workflow)
    declared = member.declared.directives
    needs = ",".join(f"{name}={amount:g}" for name, amount in sorted(declared.resources.items()))
    may_be = declared.min_instances, declared.max_instances or 0, needs
    return (member.name, info.version, info.busy, info.slots, info.mailbox, shared, mine, *is_so, *may_be)


def engine_row(member: Instance) -> EngineRow:
    """How the engine of an instance stands."""
    load = member.engine
    if load is None:
        return (member.name, messages.DOWN if member.down else messages.SILENT, 0, 0, 0.0, 0, 0, 0, 0, 0)
    cached = (load.queried, load.hit, load.prompt, load.generated, load.preempted)
    return (member.name, messages.ANSWERS, load.running, load.waiting, round(load.kv, 4), *cached)


def fill(report: messages.Report, rows: Rows, is_alive: Callable[[str], bool]) -> None:
    """Put rows into a report.

    Args:
        is_alive: whether a host takes calls; a call slated for another one is in the shared lane.
    """
    names = Names()
    if rows.made:
        report.made = _made(rows.made, names, is_alive)
    if rows.running:
        report.running = _running(rows.running, names)
    if rows.ended:
        report.ended = _ended(rows.ended, rows.kinds, names)
    if rows.moved:
        futures, lanes, whys = zip(*rows.moved, strict=True)
        report.moved = messages.MovedCalls(list(futures), names.column(lanes), pack("B", whys))
    if rows.sessions_moved:
        actors, sessions, hosts, whys = zip(*rows.sessions_moved, strict=True)
        columns = names.column(actors), names.column(sessions), names.column(hosts)
        report.sessions_moved = messages.MovedSessions(*columns, pack("B", whys))
    if rows.begun:
        report.runs_begun = _begun(rows.begun, names)
    if rows.run_ended:
        report.runs_ended = _runs_over(rows.run_ended, names)
    if rows.queues:
        report.queues = _queues(rows.queues, names)
    if rows.engines:
        report.engines = _engines(rows.engines, names)
    report.closed, report.gone = rows.closed, rows.gone
    report.names = list(names)


def _made(made: list[Future[Any]], names: Names, is_alive: Callable[[str], bool]) -> messages.Made:
    now = time.monotonic()
    contexts = [cast("CallMaker", future.maker).context for future in made]
    alive: dict[str, str] = {"": subjects.ANY}
    for host in {future.executor for future in made} - {""}:
        alive[host] = host if is_alive(host) else subjects.ANY
    # A call that is in the shared lane is there by nobody's decision, whatever was decided for it.
    lanes = [alive[future.executor] for future in made]
    policy = [0 if lane == subjects.ANY else one.policy for one, lane in zip(made, lanes, strict=True)]
    deps = [",".join(future.deps) if future.deps and not future.sent else "" for future in made]
    return messages.Made(
        future=[future.id for future in made],
        sent=pack("f", (now - future.sent if future.sent else _NONE for future in made)),
        call=names.column(future.method.where for future in made),
        session=names.column(
            "" if future.session == context.run else future.session
            for future, context in zip(made, contexts, strict=True)
        ),
        workflow=names.column(context.workflow for context in contexts),
        lane=names.column(lanes),
        policy=pack("I", within(policy, 0, _LARGE)) if any(policy) else b"",
        band=pack("B", (band_of(future.priority) for future in made)),
        priority=pack("h", within((future.priority for future in made), -_SMALL, _SMALL)),
        stage=pack("H", within((future.stage for future in made), 0, _SMALL)),
        deps=[one if len(one) <= _DEPS else "" for one in deps] if any(deps) else [],
    )


def _running(calls: list[Call], names: Names) -> messages.Running:
    now = time.time()
    return messages.Running(
        future=[call.id for call in calls],
        began=pack("f", (max(0.0, now - call.started) if call.started else _NONE for call in calls)),
        waited=pack("f", (max(0.0, (call.started or now) - call.stored_at) for call in calls)),
        call=names.column(call.method.where for call in calls),
        session=names.column("" if call.session == call.run else call.session for call in calls),
        workflow=names.column(call.workflow for call in calls),
        band=pack("B", (call.band for call in calls)),
        priority=pack("h", within((call.priority for call in calls), -_SMALL, _SMALL)),
        stage=pack("H", within((call.stage for call in calls), 0, _SMALL)),
        attempt=pack("H", within((call.attempt for call in calls), 1, _SMALL)),
    )


def _ended(calls: EndedCalls, kinds: list[Kind], names: Names) -> messages.Ended:
    now = time.time()
    call, session, how, band, priority, stage, ranked, attempt = zip(*kinds, strict=True)
    return messages.Ended(
        future=list(calls.future),
        kind=pack("I", calls.kind),
        ago=pack(
            "f", [now - at - ran if at else 0.0 for at, ran in zip(calls.began, calls.took, strict=True)]
        ),
        waited=pack("f", calls.waited),
        took=pack("f", calls.took),
        size=pack("I", calls.size if max(calls.size) <= _LARGE else within(calls.size, 0, _LARGE)),
        tokens=pack("I", within(calls.tokens, 0, _LARGE)) if any(calls.tokens) else b"",
        call=names.column(call),
        session=names.column(session),
        how=bytes(how),
        band=bytes(band),
        priority=pack("h", within(priority, -_SMALL, _SMALL)),
        stage=pack("H", within(stage, 0, _SMALL)),
        attempt=pack("H", within(attempt, 0, _SMALL)),
        ranked=bytes(ranked) if any(ranked) else b"",
    )


def _runs_over(rows: list[RunEndedRow], names: Names) -> messages.RunsEnded:
    runs, took, calls, workflows, status, keys = zip(*rows, strict=True)
    return messages.RunsEnded(
        run=list(runs),
        took=pack("f", took),
        calls=pack("I", calls),
        workflow=names.column(workflows),
        status=names.column(status),
        key=names.column(keys) if any(keys) else b"",
    )


def _begun(runs: list[Run], names: Names) -> messages.RunsBegun:
    now = time.time()
    requests = [run.request for run in runs]
    deadlines = [run.maker.context.deadline for run in runs]
    keys = [request.key for request in requests]
    return messages.RunsBegun(
        run=[request.run for request in requests],
        ago=pack("f", (max(0.0, now - request.started) for request in requests)),
        workflow=names.column(run.maker.context.workflow for run in runs),
        session=names.column("" if one.session == one.run else one.session for one in requests),
        priority=pack("h", within((request.priority for request in requests), -_SMALL, _SMALL)),
        deadline=pack("f", (max(_SOON, at - now) if at else 0.0 for at in deadlines))
        if any(deadlines)
        else b"",
        key=names.column(keys) if any(keys) else b"",
    )


def _queues(rows: list[QueueRow], names: Names) -> messages.Queues:
    columns = zip(*rows, strict=True)
    actor, version, busy, slots, mailbox, shared, mine, standby, workflow, least, most, needs = columns
    shared_0, shared_1, shared_2 = zip(*shared, strict=True)
    mine_0, mine_1, mine_2 = zip(*mine, strict=True)
    return messages.Queues(
        actor=names.column(actor),
        version=names.column(version),
        busy=pack("I", within(busy, 0, _LARGE)),
        slots=pack("I", slots),
        mailbox=pack("I", mailbox),
        band_0=pack("I", shared_0),
        band_1=pack("I", shared_1),
        band_2=pack("I", shared_2),
        mailbox_0=pack("I", mine_0) if any(mine_0) else b"",
        mailbox_1=pack("I", mine_1) if any(mine_1) else b"",
        mailbox_2=pack("I", mine_2) if any(mine_2) else b"",
        standby=bytes(standby),
        workflow=bytes(workflow),
        least=pack("I", within(least, 0, _LARGE)) if any(least) else b"",
        most=pack("I", within(most, 0, _LARGE)) if any(most) else b"",
        needs=names.column(needs) if any(needs) else b"",
    )


def _engines(rows: list[EngineRow], names: Names) -> messages.Engines:
    actor, answers, running, waiting, kv, queried, hit, prompt, generated, preempted = zip(*rows, strict=True)
    return messages.Engines(
        actor=names.column(actor),
        answers=bytes(answers),
        running=pack("I", within(running, 0, _LARGE)),
        waiting=pack("I", within(waiting, 0, _LARGE)),
        kv=pack("f", kv),
        queried=pack("Q", queried),
        hit=pack("Q", hit),
        prompt=pack("Q", prompt),
        generated=pack("Q", generated),
        preempted=pack("Q", preempted),
    )
