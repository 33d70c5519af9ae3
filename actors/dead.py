"""Dead letters: messages that nobody could handle, kept with the reason until an operator decides."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from callboard.actors.inbound import band, is_future_id
from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.direct import DirectReader, Stored
from callboard.infra.errors import CallboardError
from callboard.infra.messages.dead import DeadLetter
from callboard.infra.messages.run import ErrorInfo
from callboard.infra.pull import Delivered
from callboard.infra.store import Store
from callboard.state.journal import Journal, Outcomes, read_entry

_decode = msgspec.msgpack.Decoder(DeadLetter).decode
_HISTORY = 10
_UNREADABLE = "unreadable"
_UNSENT = frozenset({"Nats-Msg-Id", "Nats-Scheduler", "Nats-Schedule-Next", "Nats-TTL", H.DELIVERIES})


class AlreadyTold(CallboardError):
    """A dead letter's caller has its outcome already. Fields: id (of the call or the run)."""

    code = "already_told"


class NoLetter(CallboardError):
    """What lies among the dead letters is none, so it cannot be sent again."""

    code = "no_letter"


class DeadLetters:
    """Writes and reads ``cb.dead.<actor>``.

    Args:
        store, reader: of this process; host: its id.
    """

    def __init__(self, store: Store, reader: DirectReader, host: str) -> None:
        self._store = store
        self._reader = reader
        self._host = host
        self._journal = Journal(store, reader)
        self._log = log.get("dead")

    def put(
        self,
        actor: str,
        delivered: Delivered,
        reason: str,
        detail: str,
        history: list[ErrorInfo] | None = None,
        settled: Callable[[], None] | None = None,
    ) -> None:
        """Move a message to the dead letters; it is acked once it stands there.

        Args:
            settled: called then: there is room for another message.
        """
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

        def on_stored(_: object) -> None:
            delivered.ack()
            if settled is not None:
                settled()

        self._store.put(subjects.dead(actor), body, head, on_stored)

    async def requeue(self, *letters: DeadLetter, again: bool = False) -> list[str]:
        """Publish messages again; returns the ids of the calls and runs that they are.

        Args:
            again: also those that have their outcome: a call runs for what it does in the world, since
                nobody waits for its value any more; a request becomes a new run.

        Raises:
            AlreadyTold: one has its outcome, so that nothing would come of it; none is sent.
            NoLetter: one was never a message to a host.
        """
        for letter in letters:
            if letter.reason == _UNREADABLE:
                raise NoLetter(
                    f"what lies at {letter.sequence} is no dead letter: only purge can take it away"
                )
        over = [await self._over(letter) for letter in letters]
        if not again:
            for letter, told in zip(letters, over, strict=True):
                if told:
                    raise _already_told(letter, told)
        return [
            await self._send(letter, again=bool(told)) for letter, told in zip(letters, over, strict=True)
        ]

    async def _over(self, letter: DeadLetter) -> str:
        """Id of the call or run of a letter if it has its outcome, else nothing."""
        if _is_request(letter):
            run = _run_of(letter)
            return run if subjects.is_token(run) and await self._journal.done(run) is not None else ""
        future = letter.headers.get(H.FUTURE, "")
        known = is_future_id(future) and await Outcomes(self._journal).known(future.partition(":")[0], future)
        return future if known else ""

    async def _send(self, letter: DeadLetter, *, again: bool) -> str:
        kept = {name: value for name, value in letter.headers.items() if name not in _UNSENT}
        subject = letter.subject
        if again:
            kept.pop(H.DEADLINE, None)  # it was for those who waited
        if _is_request(letter):
            kept[H.RUN] = subjects.new_id() if again else _run_of(letter) or subjects.new_id()
        else:
            kept.pop(H.EXECUTOR, None)  # the host that gave it up, or one that is gone
            subject = subjects.call(subject.split(".")[2], subjects.ANY, band(subject))
            if again:
                kept[H.REQUEUED] = f"{time.time():.3f}"
        await self._store.stored(subject, letter.body, H.encode(kept.items()))
        return kept.get(H.RUN, "") if _is_request(letter) else kept.get(H.FUTURE, "")

    async def list(self, actor: str = ">", limit: int | None = None) -> list[tuple[int, DeadLetter]]:
        """Letters with their stream sequences, oldest first; of all actors by default."""
        found = await self._reader.read(subjects.DEAD, subjects.dead(actor), limit=limit)
        return [(stored.sequence, _letter(stored)) for stored in found]

    async def get(self, sequence: int) -> DeadLetter | None:
        """One letter."""
        stored: Stored | None = await self._reader.at(subjects.DEAD, sequence)
        return _letter(stored) if stored else None


def _letter(stored: Stored) -> DeadLetter:
    """What lies among the dead letters; anybody can publish there, so it may be none."""
    letter = read_entry(_decode, stored.body)
    if letter is not None:
        return letter
    return DeadLetter(
        actor=stored.subject.removeprefix(subjects.dead("")),
        reason=_UNREADABLE,
        detail="this is no dead letter, and was not put here by a host: look at it, and purge it",
        subject=stored.subject,
        headers=stored.headers,
        body=stored.body,
        stream=subjects.DEAD,
        sequence=stored.sequence,
        at=stored.at,
    )


def _is_request(letter: DeadLetter) -> bool:
    return letter.subject.startswith(subjects.request(""))


def _run_of(letter: DeadLetter) -> str:
    return letter.headers.get(H.RUN) or letter.headers.get(H.MESSAGE_ID) or ""


def _already_told(letter: DeadLetter, told: str) -> AlreadyTold:
    run = told.partition(":")[0]
    if told == run:
        text = (
            f"run {run} of {letter.actor} has ended, and its client was told: say --again to have the "
            "request run as a new run"
        )
    else:
        text = (
            f"call {told} of {letter.actor} has its outcome, and the run that made it was told: start that "
            f"run again ('callboard show {run}' tells of it), or say --again to run this call alone, for "
            "what it does"
        )
    return AlreadyTold(text, id=told)


def _fitting(letter: DeadLetter, room: int) -> bytes:
    """The letter encoded; of a message as large as one may be, a letter about it has to leave a part out."""
    body = msgspec.msgpack.encode(letter)
    if len(body) > room:
        whole = len(letter.body)
        letter.body = letter.body[: max(0, whole - (len(body) - room) - 200)]
        letter.detail += f" (of its {whole:,} bytes the first {len(letter.body):,} are kept here)"
        body = msgspec.msgpack.encode(letter)
    return body
