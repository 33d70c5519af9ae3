"""A call as its host sees it: decoded from a message, or found to be no call at all."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from callboard.actors.declared import Method
from callboard.infra import headers as H
from callboard.infra.errors import CallboardError
from callboard.infra.pull import Delivered

if TYPE_CHECKING:
    from callboard.actors.slots import Slot
    from callboard.infra.messages.run import Intent

LONGEST_PATH = 2048
"""Characters of a future's id after the run's."""
_LARGEST = 2**62
_FUTURE = re.compile(rf"[A-Za-z0-9_\-]{{1,128}}:(?=.{{1,{LONGEST_PATH}}}\Z)[0-9]+(?:[./~][0-9]+)*")


class Undecodable(CallboardError):
    """The message is not a call. Fields: reason."""

    code = "undecodable"


class Call:
    """One call on its host.

    Attributes:
        delivered: the message, to be settled when the call is.
        method: what to run; id: the future's.
        band, priority, since: what the mailbox orders by.
        deadline: unix seconds, 0 for none.
        excused: attempts that do not count as retries; excused_since: unix seconds of the first, or 0.
        since: unix seconds, when it began to wait: when it was stored, or was last stopped for another.
        charged: the budgets that models charge for it, as its header names them.
        again: it may have run before, here or elsewhere.
        deliveries: of its message, and to hosts that died with it in their lane.
        task, slot: while it runs; stopping: it has been cancelled.
        unreadable: nobody could decode its body, so that it is kept as a dead letter.
        intent: of its effect, once it has begun here.
        woven: where the woven form of its body is, see `weaving`; empty: the body is no such form.
        concluded: its outcome, or another attempt, is on its way into the store.
        claimed: no other host can get it any more: its handler has begun, or it never waited.
        preempted: how often it was stopped here for a more urgent call.
        longer: handicap in the mailbox for how long it is expected to take.
        tokens: that a model has made for it.
        size: bytes of its arguments; 0: some of them are references, and were not read yet.
    """

    __slots__ = (
        "again",
        "arrived",
        "attempt",
        "band",
        "blobs",
        "body",
        "charged",
        "claimed",
        "concluded",
        "copies",
        "creator",
        "deadline",
        "delivered",
        "deliveries",
        "excused",
        "excused_since",
        "headers",
        "id",
        "intent",
        "longer",
        "method",
        "path",
        "preempted",
        "priority",
        "run",
        "session",
        "since",
        "size",
        "slot",
        "stage",
        "started",
        "stopping",
        "stored_at",
        "task",
        "tokens",
        "unreadable",
        "workflow",
        "woven",
    )

    def __init__(self, delivered: Delivered, method: Method, headers: dict[str, str]) -> None:
        get = headers.get
        self.delivered = delivered
        self.again = self.concluded = False
        self.copies: list[Delivered] = []
        self.method = method
        self.headers = headers
        self.id = headers[H.FUTURE]
        self.run = self.id.partition(":")[0]
        self.session = get(H.SESSION) or self.run
        self.workflow = get(H.WORKFLOW, "")
        self.creator = get(H.CREATOR, "")
        self.priority = H.whole(headers, H.PRIORITY, 0) if H.PRIORITY in headers else 0
        self.deadline = H.moment(headers, H.DEADLINE) if H.DEADLINE in headers else 0.0
        self.attempt = H.whole(headers, H.ATTEMPT, 1, least=1) if H.ATTEMPT in headers else 1
        self.excused = H.whole(headers, H.EXCUSED, 0, least=0) if H.EXCUSED in headers else 0
        self.excused_since = H.moment(headers, H.EXCUSED_SINCE) if self.excused else 0.0
        self.deliveries = delivered.delivered - delivered.excused
        if H.DELIVERIES in headers:
            self.deliveries += H.whole(headers, H.DELIVERIES, 0, least=0)
        self.stage = H.whole(headers, H.STAGE, 1, least=0)
        self.blobs = get(H.BLOBS, "").split(",") if H.BLOBS in headers else []
        self.woven = get(H.WOVEN, "")
        self.charged = H.charged(headers) if H.BUDGET in headers else ""
        parents = get(H.PATH)
        self.path = (*(parents.split(",") if parents else (self.workflow,)), method.where)
        self.body = delivered.body
        short = H.SIZE in headers or self.blobs or self.woven
        self.size = H.whole(headers, H.SIZE, 0, least=0, most=_LARGEST) if short else len(self.body)
        self.band = band(delivered.subject)
        self.stored_at = self.since = delivered.stored_at
        self.arrived = time.monotonic()
        self.started = 0.0
        self.stopping = False
        self.preempted = 0
        self.tokens = 0
        self.longer = 0.0
        self.claimed = False
        self.unreadable = False
        self.intent: Intent | None = None
        self.task: asyncio.Task[Any] | asyncio.Future[Any] | None = None
        self.slot: Slot | None = None

    @property
    def key(self) -> tuple[str, int]:
        """What makes two messages the same call: id and attempt."""
        return (self.id, self.attempt)

    @property
    def ended_as(self) -> tuple[str, int]:
        """What its host remembers when it has ended: if an operator sends it again, that is another call."""
        return (ended_as(self.id, self.headers), self.attempt)

    def is_made_by(self, other: Call) -> bool:
        """Whether the handler of the other call has made it, directly or through further calls."""
        return self.id.startswith((f"{other.id}.", f"{other.id}~"))

    def put_back(self, *, again: bool) -> None:
        """It was stopped for a more urgent call, and waits anew.

        Args:
            again: it has made calls, whose outcomes it takes up when it runs again.
        """
        self.preempted += 1
        self.since = time.time()
        self.started = 0.0
        self.again = self.again or again
        self.stopping = False
        self.task = self.slot = None

    def settle(self) -> None:
        """Ack the message and its copies."""
        self.delivered.ack()
        self.settle_copies()

    def settle_copies(self) -> None:
        """Ack the copies of the message, where it is settled itself by being moved."""
        for copy in self.copies:
            copy.ack()

    def give_back(self) -> None:
        """Let somebody else have it."""
        self.delivered.nak()
        for copy in self.copies:
            if self.method.managed:  # the message itself may be gone by now, and a copy does no harm
                copy.nak()
            else:
                copy.ack()


def kept(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a call that go along where it is stored anew, in the place of its message."""
    return {name: value for name, value in headers.items() if name.startswith("Cb-") or name == H.TRACEPARENT}


def ended_as(future: str, headers: Mapping[str, str]) -> str:
    """A call's id, with the time at which an operator has sent it again."""
    return f"{future} {headers[H.REQUEUED]}" if H.REQUEUED in headers else future


def band(subject: str) -> int:
    """The last token of the subject; anybody's message on a host's lane may have another there."""
    last = subject[-1:]
    return min(2, int(last)) if last.isdigit() else 1


def is_future_id(text: str) -> bool:
    """Whether this is ``<run>:<path>``."""
    return _FUTURE.fullmatch(text) is not None


def decode(delivered: Delivered, headers: dict[str, str], methods: dict[str, Method]) -> Call:
    """Make a call of a message.

    Raises:
        Undecodable: it is none; ``reason`` says why.
    """
    future = headers.get(H.FUTURE, "")
    if not is_future_id(future):
        raise Undecodable(
            f"header {H.FUTURE} is {future[:80]!r}: expected <run>:<position>", reason="undecodable"
        )
    run = headers.get(H.RUN)
    if run is not None and run != future.partition(":")[0]:
        raise Undecodable(
            f"header {H.RUN} is {run[:80]!r}, but the call is of the run in {future[:80]!r}",
            reason="undecodable",
        )
    name = headers.get(H.METHOD, "call")
    method = methods.get(name)
    if method is None:
        known = ", ".join(sorted(methods))
        raise Undecodable(f"there is no method {name[:80]!r}; there are {known}", reason="unknown_method")
    try:
        return Call(delivered, method, headers)
    except ValueError as error:
        raise Undecodable(f"a header has no usable value: {error}", reason="undecodable") from error
