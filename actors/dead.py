"""Dead letters: messages that nobody could handle, kept with the reason until an operator decides."""

from __future__ import annotations

import time

import msgspec

from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.direct import DirectReader, Stored
from callboard.infra.messages.dead import DeadLetter
from callboard.infra.messages.run import ErrorInfo
from callboard.infra.pull import Delivered
from callboard.infra.store import Store

_decode = msgspec.msgpack.Decoder(DeadLetter).decode
_HISTORY = 10
_UNSENT = frozenset({"Nats-Msg-Id", "Nats-Scheduler", "Nats-Schedule-Next", "Nats-TTL"})


class DeadLetters:
    """Writes and reads ``cb.dead.<actor>``.

    Args:
        store, reader: of this process; host: its id.
    """

    def __init__(self, store: Store, reader: DirectReader, host: str) -> None:
        self._store = store
        self._reader = reader
        self._host = host
        self._log = log.get("dead")

    def put(
        self,
        actor: str,
        delivered: Delivered,
        reason: str,
        detail: str,
        history: list[ErrorInfo] | None = None,
    ) -> None:
        """Move a message to the dead letters; it is acked once it stands there."""
        letter = DeadLetter(
            actor=actor,
            reason=reason,
            detail=detail,
            subject=delivered.subject,
            headers=H.decode(delivered.raw_headers),
            body=delivered.body,
            stream=delivered.pull.stream,
            sequence=delivered.sequence,
            delivered=delivered.delivered,
            at=time.time(),
            host=self._host,
            history=(history or [])[-_HISTORY:],
        )
        self._log.error("dead_letter", actor=actor, reason=reason, detail=detail, subject=letter.subject)
        # One message may be found dead by two hosts: the id makes one letter of it.
        head = H.encode([(H.MESSAGE_ID, f"{letter.stream}:{letter.sequence}")])
        body = _fitting(letter, delivered.pull.connection.max_payload - len(head))
        self._store.put(subjects.dead(actor), body, head, lambda _: delivered.ack())

    async def list(self, actor: str = "*", limit: int | None = None) -> list[tuple[int, DeadLetter]]:
        """Letters with their stream sequences, oldest first."""
        found = await self._reader.read(subjects.DEAD, subjects.dead(actor), limit=limit)
        return [(stored.sequence, _decode(stored.body)) for stored in found]

    async def get(self, sequence: int) -> DeadLetter | None:
        """One letter."""
        stored: Stored | None = await self._reader.at(subjects.DEAD, sequence)
        return _decode(stored.body) if stored else None

    async def requeue(self, letter: DeadLetter) -> int:
        """Publish the message again, as it was; returns its new stream sequence."""
        items = [(name, value) for name, value in letter.headers.items() if name not in _UNSENT]
        return await self._store.stored(letter.subject, letter.body, H.encode(items))


def _fitting(letter: DeadLetter, room: int) -> bytes:
    """The letter encoded; of a message as large as one may be, a letter about it has to leave a part out."""
    body = msgspec.msgpack.encode(letter)
    if len(body) > room:
        whole = len(letter.body)
        letter.body = letter.body[: max(0, whole - (len(body) - room) - 200)]
        letter.detail += f" (of its {whole:,} bytes the first {len(letter.body):,} are kept here)"
        body = msgspec.msgpack.encode(letter)
    return body
