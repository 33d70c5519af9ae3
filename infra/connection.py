"""The connection to NATS: nats-py's client, with a fast lane for the messages that are many.

nats-py serves each subscription through a queue and a task of its own and decodes every header. For
the hot lane that is most of the cost of a call (``bench/README.md`` has the profile), so a *lane*
gets its messages as raw bytes, in order, in the read loop itself. Everything else (handshake, TLS,
credentials, reconnects, ordinary subscriptions) is nats-py's, unchanged. What this relies on of
nats-py's inside is named in :class:`LaneClient` alone and held by ``tests/infra/test_connection.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from callboard.infra import log
from callboard.infra.errors import ConnectFailed, ConnectionLost, RequestTimeout
from callboard.infra.server import check_server
from callboard.infra.settings import Settings

Lane = Callable[[bytes, bytes, bytes, "bytes | None"], None]
"""Called with subject, reply subject, body and raw headers; must return at once and not raise."""

_LATER = 0.002
_ENOUGH = 16 * 1024
_AT_ONCE = 1024 * 1024
_STRAGGLERS = 10.0
_MAX_PENDING = 64 * 1024 * 1024
_SHOWN = 128
_HEADERS = b"NATS/1.0\r\n"
_STATUS = b"NATS/1.0 "


class _Kick:
    """Stands in the flusher's queue for a write that nobody waits for."""

    @staticmethod
    def done() -> bool:
        return True


_KICK = cast("asyncio.Future[Any]", _Kick())


class LaneParser(Parser):
    """nats-py's parser with a short way for messages: no pattern matching, no moving of the buffer.

    Messages are cut out of what was read where they lie; all other protocol lines, and messages for
    ordinary subscriptions, are nats-py's as before.
    """

    def __init__(self, client: LaneClient) -> None:
        self._client = client
        self._rest = b""
        self._resets = 0
        super().__init__(client)

    def reset(self) -> None:
        """Forget a message of which only a part was read."""
        self._rest = b""
        self._resets += 1
        super().reset()

    async def parse(self, data: bytes = b"") -> None:
        """Take what was read from the socket."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        resets = self._resets
        place = 0
        while place < len(data):
            line = data.find(b"\r\n", place)
            if line < 0:
                break
            headed = data.startswith(b"HMSG ", place)
            if headed or data.startswith(b"MSG ", place):
                words = data[place:line].split(b" ")
                body = line + 2
                end = body + int(words[-1])
                if end + 2 > len(data):
                    break
                start = body + int(words[-2]) if headed else body
                reply = words[3] if len(words) == (6 if headed else 5) else b""
                place = end + 2
                await self._client.deliver(
                    int(words[2]), words[1], reply, data[start:end], data[body:start] or None
                )
            else:
                await super().parse(data[place : line + 2])
                place = line + 2
        if resets == self._resets:  # else a new connection has begun meanwhile
            self._rest = data[place:]


class _LaneSubscription:
    """What nats-py must know of a lane to renew it on reconnect, and to close."""

    __slots__ = ("_id", "_queue", "_subject")

    _max_msgs = 0
    _received = 0
    _wait_for_msgs_task = None
    _message_iterator = None
    _pending_next_msgs_calls = None

    def __init__(self, subject: str, queue: str, sid: int) -> None:
        self._subject = subject
        self._queue = queue
        self._id = sid


class LaneClient(Client):
    """nats-py's client plus lanes; with its parser the one place that touches its private parts."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = LaneParser(self)
        self._lanes: dict[int, Lane] = {}
        self._flushing = False
        self._flushing_later = False
        self._flush_at = 0.0
        self._flush_timer = False

    async def deliver(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        """A message has come: to its lane at once, or the ordinary way."""
        lane = self._lanes.get(sid)
        if lane is None:
            if _readable(subject, reply, headers):
                await self._process_msg(sid, subject, reply, data, headers or b"")
            else:
                told = subject[:_SHOWN].decode("utf-8", "replace")
                log.get("connection").warning("message_unreadable", subject=told, action="dropping it")
            return
        try:
            lane(subject, reply, data, headers)
        except Exception as error:  # noqa: BLE001 - an error here would end nats-py's read loop
            await self._error_cb(error)

    def add_lane(self, subject: str, lane: Lane, queue: str = "") -> int:
        """Subscribe; the subscription is renewed by nats-py on reconnect. Returns its id."""
        self._sid += 1
        sid = self._sid
        self._subs[sid] = cast("Subscription", _LaneSubscription(subject, queue, sid))
        self._lanes[sid] = lane
        self.write(f"SUB {subject} {queue} {sid}\r\n".encode())
        return sid

    def remove_lane(self, sid: int) -> None:
        """Unsubscribe; unknown ids are ignored."""
        if self._lanes.pop(sid, None) is not None:
            self._subs.pop(sid, None)
            self.write(b"UNSUB %d\r\n" % sid)

    def retire_lane(self, sid: int) -> None:
        """Unsubscribe, but still hand over what the server has sent before it heard of that."""
        self._subs.pop(sid, None)
        self.write(b"UNSUB %d\r\n" % sid)
        retired = self._lanes.get(sid)
        if retired is not None:
            asyncio.get_running_loop().call_later(_STRAGGLERS, self._lanes.pop, sid, None)

    def write(self, frame: bytes) -> None:
        """Queue protocol bytes; all that gathers in one turn of the loop leaves in one write."""
        self._pending.append(frame)
        self._pending_data_size += len(frame)
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_turn)
        elif self._pending_data_size >= _ENOUGH and self.is_connected:
            self._flush_turn()  # so that the server begins while a long turn goes on
            self._flushing = True

    def write_later(self, frame: bytes) -> None:
        """Queue protocol bytes that may leave with whatever is next, but within 2 ms.

        For acks: a system call less for every call, where calls come one at a time.
        """
        self._pending.append(frame)
        self._pending_data_size += len(frame)
        if not (self._flushing or self._flushing_later):
            loop = asyncio.get_running_loop()
            self._flushing_later = True
            self._flush_at = loop.time() + _LATER
            if not self._flush_timer:
                self._flush_timer = True
                loop.call_at(self._flush_at, self._flush_late, loop)

    def _flush_late(self, loop: asyncio.AbstractEventLoop) -> None:
        self._flush_timer = False
        if not self._flushing_later:
            return
        if self._flush_at <= loop.time():
            self._flush_turn()
        else:  # what this was for has left with something else
            self._flush_timer = True
            loop.call_at(self._flush_at, self._flush_late, loop)

    def _flush_turn(self) -> None:
        self._flushing = self._flushing_later = False
        if not self._pending or not self.is_connected or self._transport is None:
            return  # nats-py sends what is pending once it is connected again
        if isinstance(self._transport, TcpTransport) and self._pending_data_size < _AT_ONCE:
            try:
                self._transport.writelines(self._pending)  # type: ignore[no-untyped-call]
            except RuntimeError:  # uvloop's word for a socket that is gone; nats-py is about to notice
                return
            self._pending = []
            self._pending_data_size = 0
        elif self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(_KICK)  # the flusher waits where the socket cannot take it all

    def flush_now(self) -> None:
        """Let what is queued leave before this turn of the loop is over."""
        if self._flushing:
            self._flush_turn()
            self._flushing = True  # the end of the turn finds what comes after this

    def drop_pending(self) -> None:
        """Forget what is queued; without a connection nats-py fails to close while there is something."""
        self._pending = []
        self._pending_data_size = 0

    async def flush(self, timeout: int = 10) -> None:
        """Wait until the server has read everything queued so far; a ping alone would overtake it."""
        await self._flush_pending(force_flush=True)
        await super().flush(timeout)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():  # nobody waits any more; nats-py's read loop would end
            _ = self._pongs.pop(0)
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    @property
    def info(self) -> dict[str, Any]:
        """What the server told of itself on connecting."""
        return self._server_info

    @property
    def reading(self) -> bool:
        """Whether the read loop is alive; it may die while ``is_connected`` stays True."""
        return self._reading_task is not None and not self._reading_task.done()


@contextlib.contextmanager
def _heeding() -> Iterator[None]:
    """Heed a cancellation also if it meets an answer: in Python 3.11 nats-py's ``wait_for`` loses that."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        yield
    finally:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError


def _readable(subject: bytes, reply: bytes, headers: bytes | None) -> bool:
    """Whether nats-py can read a message: it does so in its read loop, which would end for good."""
    whole = not headers or headers.startswith(_HEADERS)
    try:
        (subject + reply + (b"" if whole or headers is None else headers)).decode()
    except UnicodeDecodeError:
        return False
    return whole or (headers is not None and headers.startswith(_STATUS))


class Connection:
    """One connection: lanes, publishing without waiting, a watchdog, endless reconnects.

    Args:
        settings: address, credentials and watchdog times.
        name: shown by the server for this connection.
        on_lost: awaited once if the connection is closed for good.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        on_lost: Callable[[ConnectionLost], Awaitable[None]] | None = None,
    ) -> None:
        self.settings = settings
        self.name = name
        self.client = LaneClient()
        self.connected = asyncio.Event()
        self.since = 0.0
        """Unix seconds of the last time it was made; a server that was killed in between has lost the latest
        acks, and does not know any more what it had delivered."""
        self.losses = 0
        """How often it was lost; what was sent before that may have left only in part."""
        self._away = 0.0
        self._told: set[str] = set()
        self._on_lost = on_lost
        self._on_reconnect: list[Callable[[], None]] = []
        self._watchdog: asyncio.Task[None] | None = None
        self._closing = False
        self._log = log.get("connection").bind(name=name)

    async def open(self) -> Connection:
        """Connect and check that the server fits. Idempotent.

        Raises:
            ConnectFailed: nobody answers at ``settings.nats_url``.
            ServerUnsuitable: the server is too old or has no JetStream.
        """
        if self.client.is_connected:
            return self
        url = self.settings.nats_url
        try:
            await self.client.connect(
                url.split(","),
                name=self.name,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
                closed_cb=self._on_closed,
                allow_reconnect=False,
                max_reconnect_attempts=1,  # nats-py tries this often even then, 60 times by default
                reconnect_time_wait=0,
                connect_timeout=5,
                pending_size=_MAX_PENDING,
                **self._credentials(),
            )
        except (OSError, nats.errors.Error, TimeoutError, ssl.SSLError) as error:
            raise ConnectFailed(
                f"no NATS server can be used at {url!r} ({str(error) or type(error).__name__}): start one "
                "with 'callboard up', or set NATS_URL or --nats to one that runs",
                url=url,
            ) from error
        try:
            check_server(self.client.info)
        except BaseException:
            self._closing = True
            await self.client.close()
            raise
        self._reconnect_for_ever()
        self.since = time.time()
        self.connected.set()
        self._watchdog = asyncio.get_running_loop().create_task(self._watch())
        return self

    def _credentials(self) -> dict[str, Any]:
        creds = self.settings.nats_creds
        return {"user_credentials": creds} if creds else {}

    def _reconnect_for_ever(self) -> None:
        # Only now: a first connect to a wrong address should fail at once instead of trying for ever.
        self.client.options |= {
            "allow_reconnect": True,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2,
            "ping_interval": 10,
            "max_outstanding_pings": 2,
        }

    async def close(self) -> None:
        """Flush what is queued and close. Idempotent."""
        if self._closing:
            return
        self._closing = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        if self.client.is_connected:
            try:
                await self.client.flush(timeout=2)
            except (nats.errors.Error, TimeoutError) as error:
                self._log.warning("flush_failed", error=str(error) or type(error).__name__)
        if not self.client.is_connected:
            self.client.drop_pending()
        await self.client.close()

    # -- sending and receiving ---------------------------------------------------------------------

    def subscribe(self, subject: str, lane: Lane, queue: str = "") -> int:
        """Deliver messages of a subject (wildcards allowed) to a lane; returns the subscription's id."""
        return self.client.add_lane(subject, lane, queue)

    def unsubscribe(self, sid: int) -> None:
        """End a subscription made by :meth:`subscribe`."""
        self.client.remove_lane(sid)

    def publish(self, subject: str, body: bytes = b"", headers: bytes | None = None, reply: str = "") -> None:
        """Queue a message; it leaves with the next flush, after a reconnect if need be."""
        if headers is None:
            head = f"PUB {subject} {reply} {len(body)}\r\n".encode()
            self.client.write(b"%b%b\r\n" % (head, body))
        else:
            size = len(headers)
            head = f"HPUB {subject} {reply} {size} {size + len(body)}\r\n".encode()
            self.client.write(b"%b%b%b\r\n" % (head, headers, body))

    def send_now(self) -> None:
        """Send what is queued without waiting for more of this turn of the loop."""
        self.client.flush_now()

    def publish_later(self, subject: str, body: bytes) -> None:
        """The same for what may leave with the next message, within 2 ms."""
        self.client.write_later(f"PUB {subject}  {len(body)}\r\n".encode() + body + b"\r\n")

    async def request(self, subject: str, body: bytes = b"", timeout: float = 5.0) -> bytes:
        """Ask and wait for one answer.

        Args:
            timeout: seconds.

        Raises:
            RequestTimeout: nobody answered in time, or nobody listens.
            ConnectionLost: the connection is closed.
        """
        try:
            with _heeding():
                message = await self.client.request(subject, body, timeout=timeout)
        except nats.errors.ConnectionClosedError as error:
            raise ConnectionLost(f"{subject} was not asked: the connection to NATS is closed") from error
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError, TimeoutError) as error:
            raise RequestTimeout(
                f"no answer on {subject} within {timeout:g} s: is the server up, with JetStream, or busy?",
                subject=subject,
                timeout=timeout,
            ) from error
        return bytes(message.data)

    def inbox(self) -> str:
        """A new subject that only this connection listens to."""
        return self.client.new_inbox()

    async def flush(self) -> None:
        """Wait until the server has read everything sent so far."""
        with _heeding():
            await self.client.flush(timeout=10)

    @property
    def max_payload(self) -> int:
        """The largest message in bytes, headers included, that the server takes."""
        return self.client.max_payload

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call back after each reconnect: what was in flight may have been lost."""
        self._on_reconnect.append(callback)

    # -- staying alive -----------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.settings.rtt_every)
            if not self.client.is_connected:
                continue
            try:
                with _heeding():
                    await self.client.rtt(timeout=cast("int", self.settings.rtt_timeout))
                healthy = self.client.reading
            except (nats.errors.Error, TimeoutError):
                healthy = False
            if not healthy and self.client.is_connected:
                self._log.warning("connection_stuck", action="reconnecting")
                await self.client.force_reconnect()

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            self._log.error("slow_consumer", subject=error.subject)
        elif isinstance(error, OSError | nats.errors.Error):
            text = str(error) or type(error).__name__
            if self.connected.is_set() or text not in self._told:  # else it comes five times a second
                self._told.add(text)
                self._log.warning("connection_error", error=text)
        else:
            self._log.error("message_handler_failed", error=repr(error), exc_info=error)

    async def _on_disconnected(self) -> None:
        self.connected.clear()
        self.losses += 1
        self._away = time.monotonic()
        self.since = math.inf  # what comes before the new time is set came by the new connection, too
        if not self._closing:
            self._log.warning("disconnected", action="reconnecting until it succeeds")

    async def _on_reconnected(self) -> None:
        self._log.warning("reconnected", away_s=round(time.monotonic() - self._away, 1))
        self._told.clear()
        self.since = time.time()
        self.connected.set()
        for callback in self._on_reconnect:
            callback()

    async def _on_closed(self) -> None:
        if self._closing:
            return
        error = ConnectionLost("the connection to NATS is closed for good; the process must start again")
        self._log.error("connection_closed", last_error=str(self.client.last_error))
        if self._on_lost is not None:
            await self._on_lost(error)
