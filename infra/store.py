"""Publishing into streams without waiting for each ack, and losing nothing.

A message is kept until the server's ack for it is there. It is sent again after a reconnect, when
its ack is late, and, with back-off, while the server has no room; the ``Nats-Msg-Id`` makes that one
message in the stream. Acks arrive on a lane and cost a few microseconds each, so that thousands may be
outstanding; above a window, messages queue here, since a server drops what comes in faster than it
stores.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from time import monotonic

import msgspec

from callboard.infra import headers as H
from callboard.infra import log
from callboard.infra.connection import Connection
from callboard.infra.errors import Fenced, StoreFull, StoreRefused

OnStored = Callable[["int | StoreRefused"], None]
"""Called once with the stream sequence, or with the reason why the message is not stored.

One that has a method ``on_duplicate`` is told by it that the message had been stored before.
"""

_WINDOW = 4096
_GROUP = 32
_HEAD_ROOM = 4096
_ALONE = 2
"""A message whose ack somebody else waits for leaves at once if no more are under way, else with others."""
_LATE = 5.0
_SWEEP = 1.0
_FULL = frozenset({10023, 10047, 10052, 10074, 10076, 10077, 10122, 10167})
_FENCED = frozenset({10071, 10164})
_IN_PROCESS = 10158
"""Of a cluster: the same message was sent before, and it is not known yet whether it will be stored."""


class _AckError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    seq: int = 0
    duplicate: bool = False
    error: _AckError | None = None


class _Entry:
    __slots__ = ("ack", "before", "body", "head", "losses", "on_stored", "sent", "subject", "tries")

    def __init__(
        self, subject: str, body: bytes, head: bytes | None, on_stored: OnStored | None, ack: str = ""
    ) -> None:
        self.subject = subject
        self.body = body
        self.head = head
        self.on_stored = on_stored
        self.ack = ack  # where the server is to answer; empty: here
        self.before: list[_Entry] = []  # sent ahead of it without an ack of their own
        self.sent = 0.0
        self.losses = 0  # of the connection, by then
        self.tries = 0


class Store:
    """Acked publishing over one connection.

    Args:
        connection: an open connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._decode = msgspec.json.Decoder(_PubAck).decode
        self._inbox = connection.inbox()
        self._prefix = len(self._inbox) + 1
        self._number = 0
        self._outstanding: dict[int, _Entry] = {}
        self._elsewhere: dict[str, int] = {}  # numbers of those whose ack goes elsewhere
        self._queue: deque[_Entry] = deque()
        self._together: list[_Entry] = []
        self.full_at = 0.0
        """When (by ``monotonic()``) something was last refused for want of room."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._sweeper: asyncio.Task[None] | None = None
        self._log = log.get("store")

    def start(self) -> None:
        """Listen for acks. Idempotent."""
        if self._sweeper is None:
            self._connection.subscribe(f"{self._inbox}.*", self._on_ack)
            self._connection.on_reconnect(self._resend_all)
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def stop(self, timeout: float = 5.0) -> None:
        """Wait until everything is stored, at most timeout seconds. Idempotent."""
        if self._sweeper is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            self._log.warning("stopped_with_unstored_messages", count=self.outstanding)
        self._sweeper.cancel()
        self._sweeper = None

    @property
    def max_body(self) -> int:
        """Bytes that a body may have beside headers of an ordinary size."""
        return self._connection.max_payload - _HEAD_ROOM

    @property
    def outstanding(self) -> int:
        """Messages that the server has not acked yet."""
        groups = [*self._outstanding.values(), *self._queue]
        return sum(1 + len(entry.before) for entry in groups) + len(self._together)

    def put(
        self,
        subject: str,
        body: bytes,
        head: bytes | None = None,
        on_stored: OnStored | None = None,
        ack: str = "",
    ) -> None:
        """Publish; on_stored is called later, from the event loop.

        Args:
            ack: the subject where the server is to answer, for others to hear; whoever listens there hands
                the answer to :meth:`answered`. Sent again, the message is acked to this store only.
        """
        entry = _Entry(subject, body, head, on_stored, ack)
        if not self._too_large(entry):
            self._put(entry)

    def _put(self, entry: _Entry) -> None:
        self._idle.clear()
        if len(self._outstanding) >= _WINDOW:
            self._queue.append(entry)
        else:
            self._send(entry)

    def put_together(self, subject: str, body: bytes, head: bytes, on_stored: OnStored) -> None:
        """Publish a message that shares one ack with the others of this turn of the event loop.

        The server takes the messages of a connection into a stream in their order, so the ack of
        the last one stands for all, unless the connection was lost meanwhile. If it does not, is late
        or an error, each is sent again on its own. The head must hold a ``Nats-Msg-Id``, and the subjects
        must all be of one stream. What goes well is told of the last one only.
        """
        entry = _Entry(subject, body, head, on_stored)
        if self._too_large(entry):
            return
        if not self._together:
            asyncio.get_running_loop().call_soon(self.close_group)
        self._together.append(entry)
        self._idle.clear()
        if len(self._together) >= _GROUP:
            self.close_group()

    def close_group(self) -> None:
        """Nothing more comes in this turn of the event loop: publish now."""
        if self._together:
            entry = self._together.pop()
            entry.before, self._together = self._together, []
            self._put(entry)

    async def stored(self, subject: str, body: bytes, head: bytes | None = None, ack: str = "") -> int:
        """Publish and wait for the stream sequence.

        Args:
            ack: as in :meth:`put`.

        Raises:
            Fenced: an expected sequence was not met.
            StoreRefused: the stream refused it.
        """
        waiter: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_stored(outcome: int | StoreRefused) -> None:
            if waiter.done():
                return
            if isinstance(outcome, StoreRefused):
                waiter.set_exception(outcome)
            else:
                waiter.set_result(outcome)

        self.put(subject, body, head, on_stored, ack)
        return await waiter

    def _send(self, entry: _Entry) -> None:
        self._number = number = self._number + 1
        entry.sent = monotonic()
        entry.losses = self._connection.losses
        self._outstanding[number] = entry
        publish = self._connection.publish
        for earlier in entry.before:
            publish(earlier.subject, earlier.body, earlier.head)
        if entry.ack:
            self._elsewhere[entry.ack] = number
        publish(entry.subject, entry.body, entry.head, entry.ack or f"{self._inbox}.{number}")
        if entry.ack and len(self._outstanding) <= _ALONE:
            self._connection.send_now()

    def answered(self, ack: str, data: bytes, head: bytes | None) -> None:
        """The server's answer to what was published with an ``ack``; late ones are passed over."""
        number = self._elsewhere.pop(ack, None)
        if number is not None:
            self._acked(number, data, head)

    def ask_again(self, ack: str) -> None:
        """Send a message again whose answer was to go elsewhere and was not heard: it comes here now."""
        number = self._elsewhere.get(ack)
        if number is not None:
            self._again(number)

    def _on_ack(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        self._acked(int(subject[self._prefix :]), data, head)

    def _acked(self, number: int, data: bytes, head: bytes | None) -> None:
        entry = self._outstanding.pop(number, None)
        if entry is None:
            return
        if data and b'"error"' not in data:
            if entry.before and entry.losses != self._connection.losses:
                self._separate(entry)  # it may have left by the old connection, and its end by this one
            if entry.on_stored is not None:
                ack = self._decode(data)
                entry.on_stored(ack.seq)
                if ack.duplicate and (tell := getattr(entry.on_stored, "on_duplicate", None)):
                    tell()
            self._pump()
        else:
            self._refused(entry, data, head)

    def _pump(self) -> None:
        queue = self._queue
        while queue and len(self._outstanding) < _WINDOW:
            self._send(queue.popleft())
        if not self._outstanding and not queue and not self._together:
            self._idle.set()

    def _refused(self, entry: _Entry, data: bytes, head: bytes | None) -> None:
        self._separate(entry)
        error = self._decode(data).error if data else None
        if error is None:  # no responders: the stream has no leader just now, or does not exist
            error = _AckError(H.status(head), 0, "no stream takes this subject right now")
        refusal = _refusal(entry.subject, error)
        if refusal.retryable or not data:
            self.full_at = monotonic()
            self._send_later(entry, error.description)
        elif error.err_code == _IN_PROCESS:
            self._send_later(entry, error.description)
        else:
            self._tell(entry, refusal)
            self._pump()

    def _send_later(self, entry: _Entry, reason: str) -> None:
        entry.tries += 1
        delay = min(5.0, 0.05 * 2**entry.tries) * (0.5 + random.random())
        if entry.tries in {1, 5} or entry.tries % 20 == 0:
            self._log.warning(
                "not_stored_yet",
                subject=entry.subject,
                reason=reason,
                tries=entry.tries,
                action="sending it again; 'callboard doctor' tells what is full or missing",
            )
        self._number = number = self._number + 1
        entry.sent = monotonic() + delay
        self._outstanding[number] = entry
        asyncio.get_running_loop().call_later(delay, self._again, number)

    def _too_large(self, entry: _Entry) -> bool:
        """Refuse here what the server would close the connection over, for good."""
        size = len(entry.body) + len(entry.head or b"")
        if size <= self._connection.max_payload:
            return False
        refusal = _refusal(entry.subject, _AckError(400, 10054, f"a message of {size:,} bytes is too large"))
        asyncio.get_running_loop().call_soon(self._tell, entry, refusal)
        return True

    def _tell(self, entry: _Entry, refusal: StoreRefused) -> None:
        if entry.on_stored is not None:
            entry.on_stored(refusal)
        else:
            self._log.error("not_stored", subject=entry.subject, reason=refusal.fields["description"])

    def _again(self, number: int) -> None:
        entry = self._outstanding.pop(number, None)
        if entry is not None:
            self._elsewhere.pop(entry.ack, None)
            entry.ack = ""
            self._separate(entry)
            self._send(entry)

    def _separate(self, entry: _Entry) -> None:
        """Send what went ahead of it again, each with an ack of its own."""
        alone, entry.before = entry.before, []
        for earlier in alone:
            self._send(earlier)

    def _resend_all(self) -> None:
        for number in list(self._outstanding):
            self._again(number)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP)
            if not self._connection.connected.is_set():
                continue
            limit = monotonic() - _LATE
            for number, entry in list(self._outstanding.items()):
                if entry.sent > limit:
                    break
                self._again(number)


def _refusal(subject: str, error: _AckError) -> StoreRefused:
    fields = {"subject": subject, "err_code": error.err_code, "description": error.description}
    if error.err_code in _FENCED:
        return Fenced(f"{subject}: a newer owner has written ({error.description})", **fields)
    if error.err_code in _FULL or error.code == 503:
        return StoreFull(
            f"{subject}: the stream has no room ({error.description}); free space or raise its limit",
            **fields,
        )
    return StoreRefused(f"{subject} was not stored: {error.description}", **fields)
