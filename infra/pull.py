"""The pull loop: asks a consumer for as many messages as there is room for, and no more."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable
from time import monotonic

from callboard.infra import headers as H
from callboard.infra import log
from callboard.infra.connection import Connection

OnDelivery = Callable[["Delivered"], None]

_EXPIRES = 30.0
_PAUSE = 0.2
_LATE = 5.0
_GONE = frozenset({404, 408, 409})
_EXCUSED = 1024


class Delivered:
    """One message from a consumer, and the means to settle it.

    Attributes:
        subject, body, raw_headers: as sent.
        sequence: its place in the stream.
        delivered: how often it has been delivered, this time included.
        excused: how many of these do not count, as :meth:`nak` was told.
        stored_at: unix seconds when the stream stored it.
        waiting: messages that the consumer still held after this one.
    """

    __slots__ = (
        "body",
        "delivered",
        "excused",
        "pull",
        "raw_headers",
        "reply",
        "sequence",
        "stored_at",
        "subject",
        "touched",
        "waiting",
    )

    def __init__(self, pull: Pull, subject: bytes, reply: bytes, body: bytes, head: bytes | None) -> None:
        tokens = reply.split(b".")
        self.pull = pull
        self.subject = subject.decode("utf-8", "replace")
        self.reply = reply.decode()
        self.body = body
        self.raw_headers = head
        self.delivered = int(tokens[-5])
        self.sequence = int(tokens[-4])
        self.stored_at = int(tokens[-2]) / 1e9
        self.waiting = int(tokens[-1])
        self.touched = 0.0
        self.excused = pull.excused.get(self.sequence, 0)

    def ack(self) -> None:
        """Done; the stream forgets it."""
        if self.pull.held.pop(self.sequence, None) is not None:
            self.pull.connection.publish_later(self.reply, b"+ACK")

    def nak(self, *, counts: bool = True) -> None:
        """Give it back at once.

        Args:
            counts: as a delivery of a message that may be deadly. Of others only this pull knows.
        """
        if not counts:
            self.pull.excuse(self.sequence)
        self._settle(b"-NAK")

    def term(self) -> None:
        """Never deliver it again."""
        self._settle(b"+TERM")

    def forget(self) -> None:
        """Somebody else holds it now: leave it alone."""
        self.pull.held.pop(self.sequence, None)

    def _settle(self, verb: bytes) -> None:
        if self.pull.held.pop(self.sequence, None) is not None:
            self.pull.connection.publish(self.reply, verb)


class _Asked:
    """A request for messages: how many are still to come, and when it must be over, monotonic seconds."""

    __slots__ = ("ends", "left", "number")

    def __init__(self, number: int, left: int, ends: float) -> None:
        self.number = number
        self.left = left
        self.ends = ends


class Pull:
    """One consumer: requests out, messages in. When to ask is decided above.

    Args:
        connection: an open connection.
        stream, consumer: what to pull from.
        on_delivery: called with each message; must settle it sometime.
        on_empty: called when a request has ended with less than it asked for.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        consumer: str,
        on_delivery: OnDelivery,
        on_empty: Callable[[Pull], None],
    ) -> None:
        self.connection = connection
        self.stream = stream
        self.consumer = consumer
        self.held: dict[int, Delivered] = {}
        """Messages delivered and not settled, by stream sequence."""
        self.excused: dict[int, int] = {}
        """Deliveries that do not count, by stream sequence: of the last 1,024 messages that have such."""
        self.asked = 0
        """Messages asked for that have not come."""
        self.gone = False
        """The server has said that there is no such consumer; whoever makes it again says it is back."""
        self._on_delivery = on_delivery
        self._on_empty = on_empty
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = ""
        self._sid = 0
        # [number, still to come], in the order in which the server serves them: one message each, in turn.
        self._requests: deque[_Asked] = deque()
        self._number = 0
        self._started = False
        self._log = log.get("pull").bind(stream=stream, consumer=consumer)

    @property
    def running(self) -> bool:
        """Whether it may ask."""
        return self._sid != 0

    def start(self) -> None:
        """Listen for what is asked for. Idempotent."""
        if not self._sid:
            self._listen()
            if not self._started:
                self._started = True
                self.connection.on_reconnect(self._forget)

    def stop(self) -> None:
        """Ask for no more; messages already held stay held, those on their way are given back. Idempotent."""
        if self._sid:
            self.connection.client.retire_lane(self._sid)
            self._sid = 0
            self._requests.clear()
            self.asked = 0

    def ask(self, count: int, *, wait: bool) -> None:
        """Ask for messages.

        Args:
            count: at most so many.
            wait: for messages that are yet to come, up to 30 s; else only for what is there.
        """
        if not self._sid or count <= 0:
            return
        self._number = number = self._number + 1
        ends = monotonic() + (_EXPIRES if wait else 0.0) + _LATE
        self._requests.append(_Asked(number, count, ends))
        self.asked += count
        body = _waiting_request(count) if wait else b'{"batch":%d,"no_wait":true}' % count
        self.connection.publish(self._subject, body, reply=f"{self._inbox}.{number}")

    def withdraw(self) -> None:
        """Take back what was asked for; messages that are on their way already still come.

        One that the server cannot hand over any more it delivers again at once, to whoever asks: its count of
        deliveries is 2 then, though nobody has had it (some 30 of 6,000 where both happen within 0.6 ms).
        """
        if not self._requests:
            return
        self.connection.client.retire_lane(self._sid)
        self._requests.clear()
        self.asked = 0
        self._listen()

    def excuse(self, sequence: int) -> None:
        """One delivery of a message does not count."""
        self.excused[sequence] = self.excused.pop(sequence, 0) + 1
        if len(self.excused) > _EXCUSED:
            del self.excused[next(iter(self.excused))]

    def _listen(self) -> None:
        self._inbox = inbox = self.connection.inbox()
        # Messages and the server's status for request n both come on <inbox>.n.
        self._sid = self.connection.subscribe(f"{inbox}.*", functools.partial(self._on_message, inbox))

    def _on_message(self, inbox: str, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        if not reply.startswith(b"$JS.ACK."):
            self._on_status(subject, head)
            return
        if inbox == self._inbox:  # else it was asked for before a withdrawal, and is not counted any more
            self._count_one()
        delivered = Delivered(self, subject, reply, data, head)
        self.held[delivered.sequence] = delivered
        if self._sid:
            self._on_delivery(delivered)
        else:
            delivered.nak()  # stopped meanwhile

    def _count_one(self) -> None:
        if self._requests:
            self.asked -= 1
            served = self._requests.popleft()
            served.left -= 1
            if served.left > 0:
                self._requests.append(served)

    def _on_status(self, subject: bytes, head: bytes | None) -> None:
        status = H.status(head)
        if status not in _GONE and status < 500:
            return
        if not self._drop(subject):
            return
        if status in {404, 408}:
            self._on_empty(self)
        else:  # the consumer moved or is gone: ask again, but not in a tight loop
            self.gone = status >= 500 or b"Consumer Deleted" in (head or b"")
            self._log.debug("pull_ended_by_server", status=(head or b"").decode("utf-8", "replace"))
            asyncio.get_running_loop().call_later(_PAUSE, self._on_empty, self)

    def _drop(self, subject: bytes) -> bool:
        inbox, _, number = subject.rpartition(b".")
        if inbox.decode() != self._inbox:
            return False  # of a request that was withdrawn
        for request in self._requests:
            if request.number == int(number):
                self.asked -= request.left
                self._requests.remove(request)
                return True
        return False

    def tick(self) -> None:
        """Called now and then: a request whose end nobody has told of is over."""
        if self._requests and self._requests[0].ends < (now := monotonic()):
            late = [request for request in self._requests if request.ends < now]
            for request in late:
                self._requests.remove(request)
                self.asked -= request.left
            self._on_empty(self)

    def _forget(self) -> None:
        if self._sid:
            self._requests.clear()
            self.asked = 0
            self._on_empty(self)


def _waiting_request(count: int) -> bytes:
    expires = int(_EXPIRES * 1e9)
    return b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (count, expires, expires // 3)
