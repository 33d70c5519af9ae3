"""Reading streams by direct get: no consumer, one round trip for many messages."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import msgspec

from callboard.infra import headers as H
from callboard.infra.connection import Connection
from callboard.infra.errors import RequestTimeout

_BATCH = 512
_ATTEMPTS = 3
_MAX_BYTES = 4 * 1024 * 1024


class Stored:
    """A message as it lies in a stream.

    Args:
        at: unix seconds when the stream stored it.
    """

    __slots__ = ("_at", "_head", "_headers", "body", "sequence", "subject")

    def __init__(self, subject: str, sequence: int, at: float, headers: dict[str, str], body: bytes) -> None:
        self.subject = subject
        self.sequence = sequence
        self.body = body
        self._at: float | None = at
        self._headers: dict[str, str] | None = headers
        self._head = b""

    @classmethod
    def received(cls, head: bytes, body: bytes) -> Stored:
        """A message as the server hands it over; most of its headers are never looked at, and not decoded."""
        stored = cls(H.find_text(head, b"Nats-Subject"), H.find_int(head, b"Nats-Sequence"), 0.0, {}, body)
        stored._head, stored._at, stored._headers = head, None, None
        return stored

    @property
    def at(self) -> float:
        """Unix seconds when the stream stored it."""
        if self._at is None:
            self._at = timestamp(H.find_text(self._head, b"Nats-Time-Stamp"))
        return self._at

    @property
    def headers(self) -> dict[str, str]:
        """Its headers, those of the server included."""
        if self._headers is None:
            self._headers = H.decode(self._head)
        return self._headers

    def __eq__(self, other: object) -> bool:
        """Whether it is the same message."""
        if not isinstance(other, Stored):
            return NotImplemented
        return (self.subject, self.sequence, self.body) == (other.subject, other.sequence, other.body)

    def __hash__(self) -> int:
        """By its place."""
        return hash((self.subject, self.sequence))

    def __repr__(self) -> str:
        """Where it lies, and how long it is."""
        return f"Stored({self.subject!r}, {self.sequence}, {len(self.body)} bytes)"


class DirectReader:
    """Batched direct gets over one connection.

    Args:
        connection: an open connection.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.inbox()
        self._number = 0
        self._waiting: dict[int, _Batch] = {}
        self._listening = False
        connection.on_reconnect(self._on_reconnect)

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of one subject, or None."""
        found = (await self._get(stream, {"last_by_subj": subject})).found
        return found[0] if found else None

    async def lasts(self, stream: str, *subjects: str) -> list[Stored]:
        """The last message of each subject that matches, in stream order (at most 1,024 subjects)."""
        return (await self._get(stream, {"multi_last": list(subjects), "batch": 1024})).found

    async def at(self, stream: str, sequence: int) -> Stored | None:
        """The message with exactly this sequence, or None."""
        found = (await self._get(stream, {"seq": sequence})).found
        return found[0] if found else None

    async def read(self, stream: str, subject: str, after: int = 0, limit: int | None = None) -> list[Stored]:
        """Messages of the subject (wildcards allowed) after a sequence, in stream order."""
        found: list[Stored] = []
        while True:
            want = _BATCH if limit is None else min(_BATCH, limit - len(found))
            if want <= 0:
                return found
            batch = await self._get(
                stream,
                {"seq": after + 1, "next_by_subj": subject, "batch": want, "max_bytes": _MAX_BYTES},
            )
            found += batch.found
            if not batch.more or not batch.found:
                return found
            after = batch.found[-1].sequence

    async def first_since(self, stream: str, subject: str, since: float) -> int:
        """Sequence of the first message of the subject that was stored then, or later; 0: there is none.

        Args:
            since: unix seconds.
        """
        time = datetime.fromtimestamp(since, UTC).isoformat()
        found = (await self._get(stream, {"start_time": time, "next_by_subj": subject, "batch": 1})).found
        return found[0].sequence if found else 0

    async def _get(self, stream: str, query: dict[str, Any], timeout: float = 5.0) -> _Batch:
        """One request; tried again where a connection was lost in between."""
        if not self._listening:
            self._listening = True
            self._connection.subscribe(f"{self._inbox}.*", self._on_message)
        attempt = 0
        while attempt < _ATTEMPTS:
            self._number = number = self._number + 1
            batch = _Batch(single="batch" not in query)
            self._waiting[number] = batch
            try:
                self._connection.publish(
                    f"$JS.API.DIRECT.GET.{stream}",
                    msgspec.json.encode(query),
                    reply=f"{self._inbox}.{number}",
                )
                late = asyncio.get_running_loop().call_later(timeout * (attempt + 1), batch.expire)
                try:
                    await batch.done
                finally:
                    late.cancel()
                return batch
            except _Lost:
                pass
            except TimeoutError:
                attempt += 1
                await self._connection.connected.wait()
            finally:
                self._waiting.pop(number, None)
        raise RequestTimeout(
            f"stream {stream} did not answer a read: is the server up, and does the stream exist?",
            subject=f"$JS.API.DIRECT.GET.{stream}",
            timeout=timeout,
        )

    def _on_message(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        batch = self._waiting.get(int(subject.rpartition(b".")[2]))
        if batch is not None and not batch.done.done():
            batch.take(data, head)

    def _on_reconnect(self) -> None:
        for batch in self._waiting.values():
            if not batch.done.done():
                batch.done.set_exception(_Lost())


class _Lost(Exception):
    """The connection on which an answer was to come is gone."""


class _Batch:
    def __init__(self, *, single: bool) -> None:
        self.single = single
        self.found: list[Stored] = []
        self.more = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def expire(self) -> None:
        """No answer has come in time. For this alone, ``asyncio.timeout`` does too much."""
        if not self.done.done():
            self.done.set_exception(TimeoutError())

    def take(self, data: bytes, head: bytes | None) -> None:
        """A message of the answer."""
        status = H.status(head)
        if status in {204, 404}:
            self.more = H.find_int(head, b"Nats-Num-Pending") > 0
            self.done.set_result(None)
        elif status == 0 and head is not None:
            self.found.append(Stored.received(head, data))
            if self.single:
                self.done.set_result(None)
        # Anything else (503: no leader yet) is left to the time-out and the next attempt.


def timestamp(text: str) -> float:
    """Unix seconds of a server's time stamp (RFC 3339 with up to nine decimals); 0 if it is none."""
    whole, _, rest = text.rstrip("Z").partition(".")
    try:
        seconds = datetime.fromisoformat(f"{whole}+00:00").timestamp()
        return seconds + (float(f"0.{rest}") if rest else 0.0)
    except ValueError:
        return 0.0
