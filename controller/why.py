"""Why a call ran where and when it did: from the journal, the decisions, and what hosts have told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from callboard.actors.admission import read_admission
from callboard.actors.entries import STREAM
from callboard.actors.priorities import read_priority
from callboard.actors.routes import read_route
from callboard.controller.decisions import rounds
from callboard.infra import subjects
from callboard.infra.durations import seconds
from callboard.infra.errors import FutureUnknown
from callboard.infra.messages.policy import Decision, Round
from callboard.infra.messages.run import Owner, Result
from callboard.infra.messages.telemetry import MOVED, Made, Report
from callboard.state.journal import read_results

if TYPE_CHECKING:
    from callboard.actors.node import Node
    from callboard.infra.direct import Stored

REPORTS = 4096
"""The latest reports of telemetry in which a call is looked for, and those from when it came to its host."""
_BEFORE = 1.0
"""Seconds before it has come there from which on they are read."""
ENTRIES = 20_000
"""The latest entries of the bucket of decisions in which the ends of hosts are looked for."""
_round = msgspec.msgpack.Decoder(Round).decode
_report = msgspec.msgpack.Decoder(Report).decode


class Told(msgspec.Struct):
    """What hosts have told of a call: its lane and the decision behind it, and how it has moved.

    Attributes:
        call: ``actor.method``; session: as its maker told.
        lane: where its maker sent it; policy: epoch of the route.
        moves: host, how it left it, and for where.
    """

    call: str = ""
    session: str = ""
    lane: str = ""
    policy: int = 0
    moves: list[tuple[str, str, str]] = []


class Accepted(msgspec.Struct):
    """How a run was accepted under a limit.

    Attributes:
        workflow: the run's; waited: seconds from the request being stored.
        epoch: of the limit; limit: what was decided, where it is still known.
    """

    workflow: str
    waited: float
    epoch: int
    limit: Decision | None = None

    def told(self) -> str:
        """In words."""
        text = f"its run waited {seconds(self.waited)} to be accepted"
        if self.limit is None:
            return f"{text}; a limit of epoch {self.epoch}, of which nothing is known any more"
        decided = f"{self.limit.policy} has {self.workflow} accept {self.limit.rate:g} requests a second"
        return f"{text}; {decided} (epoch {self.epoch}): {_reason(self.limit)}"


class Why(msgspec.Struct):
    """What is known of a call.

    Attributes:
        future: id; call: ``actor.method``; session: of its run, or its own.
        host, attempt, waited, took, sticky: as in its outcome's entry in the journal; done: there is one.
        policy, ranked: epochs of the decisions behind its lane, and its priority; 0: nobody has decided.
        placed: why this host of those that the decision names, in words.
        told: by telemetry, as far back as it was read.
        route, priority: these decisions, where they are still known.
        accepted: how its run was accepted, if it was under a limit.
        ended: the decisions by which hosts were ended that had it, or ran it, by host.
    """

    future: str
    call: str
    session: str
    host: str
    attempt: int
    waited: float
    took: float
    sticky: bool
    done: bool
    policy: int
    ranked: int
    told: Told
    route: Decision | None = None
    priority: Decision | None = None
    accepted: Accepted | None = None
    ended: dict[str, Decision] = {}
    placed: str = ""

    def lines(self) -> Iterator[str]:
        """The answer, for people."""
        if self.done and not self.host:  # a wait, or what was written down of the time or of chance
            yield f"{self.future}, {self.call}, is over: it belongs to the workflow itself and ran on no host"
            return
        if self.done:
            yield f"{self.future}, {self.call}, ran on {self.host} (attempt {self.attempt})"
        else:
            yield f"{self.future}, {self.call}, has no outcome yet"
        yield f"where: {self._where()}"
        if self.placed:
            yield f"       its maker chose {self.told.lane or self.host}: {self.placed}"
        for host, how, lane in self.told.moves:
            yield f"       {host} had it; it was {how.replace('_', ' ')}, to {lane}"
        for host, decision in self.ended.items():
            yield f"       {decision.policy} has ended {host}: {_reason(decision)}"
        if self.done:
            yield f"when:  {self._when()}"
        if self.accepted is not None:
            yield f"       {self.accepted.told()}"

    def _where(self) -> str:
        if self.route is not None:
            hosts = ", ".join(self.route.hosts)
            return (
                f"{self.route.policy} has routed it to {hosts} (epoch {self.policy}): {_reason(self.route)}"
            )
        if self.policy:
            return f"a route of epoch {self.policy}, of which nothing is known any more"
        if self.sticky:
            return f"{self.host} holds session {self.session} at this agent"
        if self.told.lane not in {"", subjects.ANY}:
            return f"its maker sent it to {self.told.lane}, without a route"
        return "the shared lane: no decision; whoever had a free slot first"

    def _when(self) -> str:
        text = f"it waited {seconds(self.waited)}, and took {seconds(self.took)}"
        if self.priority is not None:
            decided = f"{self.priority.policy} gave its session priority {self.priority.value}"
            return f"{text}; {decided} (epoch {self.ranked}): {_reason(self.priority)}"
        if self.ranked:
            return f"{text}; a priority of epoch {self.ranked}, of which nothing is known any more"
        return f"{text}; nobody has decided its priority"


async def why(node: Node, future: str) -> Why:
    """What is known of a call.

    Args:
        future: its id, ``RUN:PATH``.

    Raises:
        FutureUnknown: neither the journal nor telemetry knows of it.
    """
    run, _, _ = future.partition(":")
    subjects.token("run id", run)
    (found, came), owner = await asyncio.gather(_result(node, run, future), _owner(node, run))
    told = await _told(node, future, came)
    if found is None and not told.call:
        raise FutureUnknown(
            f"nothing is known of {future}: 'callboard show {run}' lists the calls of its run, as RUN:PATH",
            future=future,
        )
    result = found or Result(future, told.call, policy=told.policy)
    session = told.session or (owner.session if owner is not None else "") or run
    answer = Why(
        future, result.call, session, result.host, result.attempt, result.waited, result.took, result.sticky,
        found is not None, result.policy, result.ranked, told, placed=result.placed,
    )  # fmt: skip
    actor, token = result.call.rpartition(".")[0], subjects.session_token(session)
    routes = (subjects.session_route(actor, token), subjects.route(actor))
    priorities = (subjects.actor_priority(token, actor), subjects.priority(token))
    answer.route = await _decision(node, result.policy, routes)
    answer.priority = await _decision(node, result.ranked, priorities)
    if owner is not None and owner.admitted:
        limit = await _decision(node, owner.admitted, (subjects.admission(owner.workflow),))
        answer.accepted = Accepted(owner.workflow, owner.waited, owner.admitted, limit)
    answer.ended = await _ended(node, {result.host, *(host for host, _, _ in told.moves)})
    return answer


async def _result(node: Node, run: str, future: str) -> tuple[Result | None, float]:
    """The outcome, if there is one, and when the call had come to its host, in unix seconds."""
    for entry in await node.journal.read(run, subjects.result_kind(future)):
        for one in read_results(entry.body):
            if one.future == future:
                return one, entry.at - one.took - one.waited
    return None, 0.0


async def _owner(node: Node, run: str) -> Owner | None:
    owner = await node.journal.owner(run)
    return owner[0] if owner is not None else None


async def _decision(node: Node, epoch: int, keys: tuple[str, ...]) -> Decision | None:
    """What was decided under this epoch for one of these keys: by a policy, or else by hand."""
    if not epoch:
        return None
    stored = await node.reader.last(STREAM, subjects.decided(str(epoch)))
    if stored is not None:
        try:
            decisions = _round(stored.body).decisions
        except (msgspec.DecodeError, RecursionError):
            decisions = []
        for key in keys:
            for decision in decisions:
                if decision.key == key:
                    return decision
    for key in keys:
        last = await node.reader.last(STREAM, key)
        held = _held(key, last.body, epoch) if last is not None and last.body else None
        if held is not None:
            return held
    return None


def _held(key: str, body: bytes, epoch: int) -> Decision | None:
    """What holds of what was decided under this epoch; it does for longer than what is known of why."""
    route = read_route(key, body)
    if route is not None and route.epoch == epoch:
        return Decision("route", key, route.hosts, policy=route.policy, reason=route.reason)
    rank = read_priority(key, body)
    if rank is not None and rank.epoch == epoch:
        return Decision("priority", key, value=rank.value, policy=rank.policy, reason=rank.reason)
    limit = read_admission(key, body)
    if limit is not None and limit.epoch == epoch:
        return Decision("admit", key, policy=limit.policy, reason=limit.reason, rate=limit.rate)
    return None


async def _ended(node: Node, hosts: set[str]) -> dict[str, Decision]:
    """The decisions by which some hosts were ended, as far as they are known."""
    keys = {subjects.registry(f"host.{host}"): host for host in hosts}
    made = (one for made in await rounds(node, ENTRIES) for one in made.decisions if one.what == "kill")
    return {keys[one.key]: one for one in made if one.key in keys}


async def _told(node: Node, future: str, came: float) -> Told:
    """What the latest reports tell, and those from when the call came to its host; 0: nobody knows when."""
    reader, subject = node.reader, subjects.telemetry(">")
    info = await node.topology.api(f"STREAM.INFO.{subjects.TELEMETRY}")
    latest = max(0, int(info["state"]["last_seq"]) - REPORTS)
    stored: list[Stored] = []
    first = await reader.first_since(subjects.TELEMETRY, subject, came - _BEFORE) if came else 0
    if 0 < first <= latest:
        most = min(REPORTS, latest + 1 - first)
        stored = await reader.read(subjects.TELEMETRY, subject, first - 1, most)
    stored += await reader.read(subjects.TELEMETRY, subject, latest)
    told, wanted = Told(), future.encode()
    for one in stored:
        if wanted not in one.body:
            continue
        try:
            _take(told, _report(one.body), future)
        except (msgspec.DecodeError, RecursionError, ValueError, IndexError):
            continue  # anybody can publish there
    return told


def _take(told: Told, report: Report, future: str) -> None:
    if report.made is not None and future in report.made.future:
        _take_made(told, report.made, report.names, report.made.future.index(future))
    if report.moved is not None and future in report.moved.future:
        moved, place = report.moved, report.moved.future.index(future)
        lane = report.names[_number(moved.lane, "<u4", place)]
        told.moves.append((report.source, MOVED[_number(moved.why, "u1", place)], lane))


def _take_made(told: Told, made: Made, names: list[str], place: int) -> None:
    told.call = names[_number(made.call, "<u4", place)]
    told.session = names[_number(made.session, "<u4", place)]
    told.lane = names[_number(made.lane, "<u4", place)]
    told.policy = _number(made.policy, "<u4", place)


def _number(column: bytes, kind: str, place: int) -> int:
    return int(np.frombuffer(column, kind)[place]) if column else 0


def _reason(decision: Decision) -> str:
    return decision.reason or "no reason was given"
