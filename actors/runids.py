"""A run's id names one request: telling whether another one under it is the same."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import RunIdTaken, StoreRefused

if TYPE_CHECKING:
    import asyncio

    from callboard.actors.node import Node
    from callboard.infra.messages.run import Owner

_DIGITS = 32


def is_json(headers_kind: str, body: bytes) -> bool:
    """Whether a request's body is JSON: what says so, and, of who cannot set headers, what begins as text.

    A map of arguments in msgpack cannot begin like that. What is neither is answered in JSON, too.
    """
    return headers_kind == H.JSON or (headers_kind != H.MSGPACK and body[:1] < b"\x80")


def digest(body: bytes, *, as_json: bool) -> str:
    """What names the arguments of a request, in whichever encoding and order they are written."""
    try:
        decoded = msgspec.json.decode(body or b"{}") if as_json else msgspec.msgpack.decode(body)
        body = msgspec.msgpack.encode(decoded, order="deterministic")
    except (TypeError, ValueError, OverflowError, RecursionError):  # no arguments: its bytes are its name
        pass
    return hashlib.sha256(body).hexdigest()[:_DIGITS]


def taken(run: str, workflow: str, session: str, arguments: str, by: Owner) -> RunIdTaken | None:
    """The error if the run of this id is of another request; one of an older driver has no digest."""
    if by.workflow != workflow or (by.arguments and by.arguments != arguments):
        return _taken(run, workflow, by.workflow)
    if by.session and by.session != session:
        return _taken(run, workflow, by.workflow, "of another session")
    return None


def _taken(run: str, workflow: str, by: str, how: str = "with other arguments") -> RunIdTaken:
    how = f" {how}" if by == workflow else ""
    return RunIdTaken(
        f"run id {run} is taken by a run of workflow {by}{how} ('callboard show {run}' tells of it): "
        f"nothing was run; give this request of {workflow} an id of its own",
        run=run,
        workflow=by,
    )


async def store_request(
    node: Node, run: str, workflow: str, body: bytes, head: bytes, *, as_json: bool
) -> None:
    """Store a request under an id that somebody has chosen.

    Raises:
        RunIdTaken: the id is that of another request, of which there is a run or will be.
    """
    arguments = digest(body, as_json=as_json)
    session = H.decode(head).get(H.SESSION) or run
    await _refuse(node, run, workflow, session, arguments)
    ack = _Ack(node.loop.create_future())
    node.store.put(subjects.request(workflow), body, head, ack)
    sequence = await ack.stored
    if not ack.is_duplicate:
        return
    first = await node.reader.at(subjects.REQUESTS, sequence)
    if first is None:  # its run has ended, so the journal knows
        await _refuse(node, run, workflow, session, arguments)
        return
    theirs = first.subject.rpartition(".")[2]
    as_json = is_json(first.headers.get(H.CONTENT_TYPE, ""), first.body)
    if theirs != workflow or digest(first.body, as_json=as_json) != arguments:
        raise _taken(run, workflow, theirs)
    if (first.headers.get(H.SESSION) or run) != session:
        raise _taken(run, workflow, theirs, "of another session")


async def _refuse(node: Node, run: str, workflow: str, session: str, arguments: str) -> None:
    owned = await node.journal.owner(run)
    error = taken(run, workflow, session, arguments, owned[0]) if owned is not None else None
    if error is not None:
        raise error


class _Ack:
    """Waits for a message to be stored, and knows whether the stream had one under its id."""

    def __init__(self, stored: asyncio.Future[int]) -> None:
        self.stored = stored
        self.is_duplicate = False

    def __call__(self, outcome: int | StoreRefused) -> None:
        if self.stored.done():
            return
        if isinstance(outcome, StoreRefused):
            self.stored.set_exception(outcome)
        else:
            self.stored.set_result(outcome)

    def on_duplicate(self) -> None:
        """The stream had it, or another message under its id."""
        self.is_duplicate = True
