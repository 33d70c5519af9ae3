"""What is on record of a run: its request, the outcomes that its code has been given, and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from callboard.actors import values
from callboard.actors.recorded import is_refusal
from callboard.actors.run import Known, Request
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import CallboardError, JournalIncomplete, RunUnknown
from callboard.infra.messages.run import Aside, Done, Owner, Result
from callboard.infra.pull import Delivered
from callboard.state.journal import decode_aside, read_entries, read_results

if TYPE_CHECKING:
    from callboard.actors.client import Client
    from callboard.actors.node import Node
    from callboard.infra.direct import Stored

_DAY = 24 * 3600


class Outcome(NamedTuple):
    """What a call or a wait of the workflow's own has given, or what ``now()`` has.

    Attributes:
        at: unix seconds when it was stored.
    """

    at: float
    result: Result

    @property
    def path(self) -> str:
        """Its place in the code."""
        return self.result.future.partition(":")[2]


class Record(msgspec.Struct):
    """A run as its journal has it.

    Attributes:
        status: ``accepted`` (no driver has taken it yet), ``running``, ``waiting``, ``completed``, ``failed``
            or ``cancelled``.
        request: as its driver read it.
        outcomes: in the order in which the code was given them, each once: step 1 is the first.
        done: its end, if it has one.
        started: unix seconds of the request; took: seconds to its end, or to the last entry.
        entries: the whole journal, but for what handlers have called.
    """

    run: str
    workflow: str
    session: str
    status: str
    request: Request
    outcomes: list[Outcome]
    done: Done | None
    started: float
    took: float
    entries: list[Stored]


class _Recalled(Delivered):
    """A request that is read once more: there is nothing to settle."""

    __slots__ = ()

    def __init__(self, subject: str, sequence: int, at: float, body: bytes) -> None:
        self.subject, self.sequence, self.stored_at, self.body = subject, sequence, at, body
        self.delivered, self.waiting, self.touched = 1, 0, 0.0
        self.reply, self.raw_headers = "", None

    def ack(self) -> None:
        """Nothing."""

    def forget(self) -> None:
        """Nothing."""

    def _settle(self, verb: bytes) -> None:
        """Nothing."""


async def read(client: Client, run: str) -> Record:
    """Read what is on record of a run.

    Raises:
        RunUnknown: there is no such run.
        JournalIncomplete: entries of it are gone, or its request is.
        ValueMissing: its arguments are not stored any more.
    """
    node = client.node
    entries = await node.journal.read(subjects.token("run id", run), "*")
    known = Known(entries)
    owner = known.first
    if owner is None:
        return await _accepted(client, run, known, entries)
    if owner.epoch > 1:
        raise JournalIncomplete(
            f"the first entries of run {run} are gone: a journal is kept for "
            f"{node.settings.journal_max_age / _DAY:g} days (setting journal_max_age)",
            run=run,
            reason="expired",
        )
    request = await _request(client, run, owner, known, entries)
    status = known.done.status if known.done is not None else "waiting" if known.is_aside else "running"
    ends = entries[-1].at
    took = known.done.took if known.done is not None else ends - known.since + owner.waited
    return Record(
        run,
        owner.workflow,
        owner.session or run,
        status,
        request,
        _outcomes(known.results),
        known.done,
        known.since - owner.waited,
        round(max(0.0, took), 6),
        entries,
    )


async def _accepted(client: Client, run: str, known: Known, entries: list[Stored]) -> Record:
    """A run that no driver has taken yet."""
    stored = await client.backlog.find(run)
    if stored is None:
        if known.done is not None or known.results:
            raise JournalIncomplete(
                f"the first entries of run {run} are gone: a journal is kept for "
                f"{client.node.settings.journal_max_age / _DAY:g} days (setting journal_max_age)",
                run=run,
                reason="expired",
            )
        raise RunUnknown(
            f"there is no run {run}, or its journal is not kept any more; see 'callboard runs'", run=run
        )
    request = Request(_Recalled(stored.subject, stored.sequence, stored.at, stored.body), stored.headers)
    workflow = stored.subject.rpartition(".")[2]
    outcomes = _outcomes(known.results)
    return Record(
        run, workflow, request.session, "accepted", request, outcomes, None, stored.at, 0.0, entries
    )


async def _request(client: Client, run: str, owner: Owner, known: Known, entries: list[Stored]) -> Request:
    """The request of a run: its first owner has kept it; of a driver that did not, somebody else may have."""
    started = known.since - owner.waited
    head = {H.RUN: run, H.SESSION: owner.session or run}
    body = await client.node.blobs.get(owner.kept) if owner.kept else owner.body
    if body or owner.as_json:
        head[H.CONTENT_TYPE] = H.JSON if owner.as_json else H.MSGPACK
        if owner.blobs:
            head[H.BLOBS] = ",".join(owner.blobs)
    elif (aside := _aside(entries)) is not None:
        head, body = aside.headers | head, aside.body
    else:
        stored = await client.node.reader.at(subjects.REQUESTS, owner.request)
        if stored is None:
            raise JournalIncomplete(
                f"the request of run {run} was not kept: an older version drove it; submit it anew",
                run=run,
                reason="request",
            )
        head, body = stored.headers | head, stored.body
    if owner.seed:
        head[H.SEED] = owner.seed
    head.pop(H.DEADLINE, None)
    head.pop(H.RESUME, None)
    return Request(_Recalled(subjects.request(owner.workflow), owner.request, started, body), head)


def _aside(entries: list[Stored]) -> Aside | None:
    aside = [entry for entry in entries if entry.subject.endswith(".aside")]
    return next((said for _, said in read_entries(decode_aside, aside)), None)


def _outcomes(entries: list[Stored]) -> list[Outcome]:
    """Of each future the first one that is none of a full lane."""
    found: dict[str, Outcome] = {}
    for entry in entries:
        for result in read_results(entry.body):
            if not is_refusal(result):
                found.setdefault(result.future, Outcome(entry.at, result))
    return list(found.values())


async def plain(node: Node, run: str, outcome: Result | Done) -> Any:
    """The value of an outcome as plain values; its bytes if parts of it are not stored any more."""
    value = bytes(outcome.value)
    try:
        if isinstance(outcome, Result) and outcome.woven:
            value = await node.weaver.whole(run, value)
        return msgspec.msgpack.decode(await values.expand(value, outcome.blobs, node.blobs))
    except (CallboardError, ValueError):
        return value


def equal(one: Any, other: Any) -> bool:
    """Whether two plain values are the same, whatever the order of their keys."""
    try:
        encode = msgspec.msgpack.Encoder(order="deterministic").encode
        return encode(one) == encode(other)
    except (TypeError, ValueError):
        return bool(one == other)
