"""The journal of a run: who owns it, what its calls gave, how it ended. One stream, ``RUNS``.

Everything a run depends on stands here in one order, the stream's. The server repeats each entry on
``cb.journal.<run>.<kind>`` only once it is stored, so a driver acts on nothing that a successor
could not find again, and in the same order.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import msgspec

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.direct import DirectReader, Stored
from callboard.infra.errors import Fenced, Overloaded, StoreRefused
from callboard.infra.messages.run import Aside, Done, ErrorInfo, Owner, Pending, Result, RunSummary, Signal
from callboard.infra.store import OnStored, Store
from callboard.state.held import Counting, commits_of, has_held

T = TypeVar("T")

_RESTATED = 3
_TOGETHER = 64
_TOGETHER_BYTES = 16 * 1024
"""So much makes an entry of its own, so that whoever waits need not wait for the rest of a long turn."""

_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
_decode_results = msgspec.msgpack.Decoder(Result | list[Result]).decode
decode_owner = msgspec.msgpack.Decoder(Owner).decode
_decode_signal = msgspec.msgpack.Decoder(Signal).decode
_decode_signal_json = msgspec.json.Decoder(Signal).decode
decode_aside = msgspec.msgpack.Decoder(Aside).decode
decode_summary = msgspec.msgpack.Decoder(RunSummary).decode
_decode_done = msgspec.msgpack.Decoder(Done).decode
_decode_done_json = msgspec.json.Decoder(Done).decode


def decode_signal(body: bytes) -> Signal:
    """A signal, in msgpack or in JSON."""
    return _decode_signal_json(body) if body[:1] == b"{" else _decode_signal(body)


def read_entry(decode: Callable[[bytes], T], body: bytes) -> T | None:
    """What an entry says; None if it is none: anybody can publish to a journal."""
    try:
        return decode(body)
    except (ValueError, RecursionError):  # msgspec's errors, broken UTF-8, nested without end
        return None


def read_entries(decode: Callable[[bytes], T], entries: Iterable[Stored]) -> Iterator[tuple[Stored, T]]:
    """Entries with what they say; what is no entry is passed over."""
    for entry in entries:
        said = read_entry(decode, entry.body)
        if said is not None:
            yield entry, said


def read_results(body: bytes) -> Sequence[Result]:
    """The outcomes that an entry holds and that count, in order; none if it is no such entry."""
    every = read_every_result(body)
    return [one for one in every if not one.commit] if any(one.commit for one in every) else every


def read_every_result(body: bytes) -> Sequence[Result]:
    """The same with those that are held for the ack of a commit."""
    said = read_entry(_decode_results, body)
    return said if isinstance(said, list) else () if said is None else (said,)


class Lease:
    """A driver's hold on a run.

    Attributes:
        owner: what the journal says of it.
        sequence: of that entry; whoever writes a newer one is the owner from then on.
    """

    __slots__ = ("owner", "run", "sequence")

    def __init__(self, run: str, owner: Owner, sequence: int) -> None:
        self.run = run
        self.owner = owner
        self.sequence = sequence


class Journal:
    """Reads and writes journals.

    Args:
        store, reader: of this process.
    """

    def __init__(self, store: Store, reader: DirectReader) -> None:
        self._store = store
        self._reader = reader
        self._gathered: dict[str, _Gathered] = {}

    # -- the lease ---------------------------------------------------------------------------------

    async def open(self, run: str, owner: Owner) -> Lease:
        """Take the lease of a run that has no journal yet.

        Raises:
            Fenced: there is a journal; read it, then :meth:`take` the lease over.
        """
        fence = [(H.EXPECTED_SEQUENCE, "0"), (H.EXPECTED_SUBJECT, subjects.run(run, ">"))]
        return await self._take(run, owner, fence)

    async def take(self, run: str, owner: Owner, after: int) -> Lease:
        """Take the lease over from the owner whose entry has this sequence (0: there was none).

        Raises:
            Fenced: somebody else was faster.
        """
        return await self._take(run, owner, [(H.EXPECTED_SEQUENCE, str(after))])

    async def _take(self, run: str, owner: Owner, fence: list[tuple[str, str]]) -> Lease:
        subject = subjects.run(run, "owner")
        try:
            sequence = await self._store.stored(subject, encode(owner), H.encode(fence))
        except Fenced:
            # An entry whose ack was lost is sent again, and the second is fenced by the first.
            known = await self.owner(run)
            if known is None or known[0] != owner:
                raise
            sequence = known[1]
        return Lease(run, owner, sequence)

    async def begin_with(self, run: str, results: Sequence[Result]) -> None:
        """Store outcomes that a run is to begin with, before its request: whoever drives it finds them.

        What somebody has begun to store, and died, is gone on with if it is the same.

        Raises:
            Fenced: the run has a journal already.
        """
        bodies = list(_entries_of(results))
        known = await self.read(run, "*")
        begun = [entry for entry in known if entry.subject == subjects.run(run, "result")]
        if [entry.body for entry in begun] != bodies[: len(begun)] or len(begun) < len(known):
            raise Fenced(f"run {run} has a journal already", subject=subjects.run(run, ">"))
        last = begun[-1].sequence if begun else 0
        for number, body in list(enumerate(bodies))[len(begun) :]:
            head = [
                (H.EXPECTED_SEQUENCE, str(last)),
                (H.EXPECTED_SUBJECT, subjects.run(run, ">")),
                (H.MESSAGE_ID, f"{run}~begins~{number}"),
            ]
            last = await self._store.stored(subjects.run(run, "result"), body, H.encode(head))

    async def close(self, lease: Lease, done: Done, *, as_json: bool) -> int:
        """Write the outcome; only the owner can, and only once.

        Raises:
            Fenced: the lease has passed to somebody else.
        """
        headers = [
            (H.EXPECTED_SEQUENCE, str(lease.sequence)),
            (H.EXPECTED_SUBJECT, subjects.run(lease.run, "owner")),
            (H.MESSAGE_ID, f"{lease.run}~{lease.owner.epoch}"),  # sent again after a lost ack it is one
        ]
        body = json_done(done) if as_json else None
        if body is not None and len(body) < self._store.max_body:
            headers.append((H.CONTENT_TYPE, H.JSON))
        else:
            body = encode(done)
        return await self._store.stored(subjects.run(lease.run, "done"), body, H.encode(headers))

    # -- entries -----------------------------------------------------------------------------------

    def put_result(self, run: str, result: Result, on_stored: OnStored) -> None:
        """Store an outcome, in one entry with those of its siblings that come in this turn of the loop."""
        subject = subjects.run(run, subjects.result_kind(result.future))
        gathered = self._gathered.get(subject)
        if gathered is None:
            if not self._gathered:
                asyncio.get_running_loop().call_soon(self.flush)
            gathered = self._gathered[subject] = _Gathered()
        gathered.add(encode(result), on_stored)
        if gathered.is_full:
            self._store_gathered(subject, self._gathered.pop(subject))

    def flush(self) -> None:
        """Send what was gathered in this turn of the loop."""
        every, self._gathered = self._gathered, {}
        for subject, gathered in every.items():
            self._store_gathered(subject, gathered)

    def _store_gathered(self, subject: str, gathered: _Gathered) -> None:
        # No message id: should one be stored twice, the first wins, as with any two outcomes.
        self._store.put(subject, gathered.body(), None, gathered.on_stored)

    def put_held(self, run: str, kind: str, result: Result, on_stored: OnStored) -> None:
        """Store an outcome that counts once its commit is stored: at once, so that it is before the ack."""
        self._store.put(subjects.run(run, kind), encode(result), None, on_stored)

    async def add(self, run: str, result: Result) -> int:
        """Store one outcome; returns the entry's sequence."""
        subject = subjects.run(run, subjects.result_kind(result.future))
        return await self._store.stored(subject, encode(result))

    def put_attempt(self, run: str, result: Result) -> None:
        """Store how an attempt failed that is not the last one."""
        self._store.put(subjects.run(run, "attempt"), encode(result))

    async def attempts(self, run: str, future: str) -> list[ErrorInfo]:
        """The errors of a call's earlier attempts, oldest first."""
        found = [r for entry in await self.read(run, "attempt") for r in read_results(entry.body)]
        return [r.error for r in found if r.future == future and r.error is not None]

    def put_pending(self, run: str, pending: Pending) -> None:
        """Announce futures that wait for others."""
        self._store.put(subjects.run(run, "pending"), encode(pending))

    async def put_signal(self, run: str, signal: Signal, after: int | None = None) -> int:
        """Send something to a run from outside; it is kept until the run's driver sees it.

        It is one signal however often it is sent, as after a connection that was lost before its ack.

        Args:
            after: sequence of the signal that must still be the last; 0: there is none; None: any may be.

        Raises:
            Fenced: it is not.
        """
        head = [(H.MESSAGE_ID, subjects.new_id())]
        if after is not None:
            head.append((H.EXPECTED_SEQUENCE, str(after)))
        return await self._store.stored(subjects.run(run, "signal"), encode(signal), H.encode(head))

    async def put_aside(self, lease: Lease, aside: Aside) -> int:
        """Say that the run is put aside; only the owner can. Returns the entry's sequence.

        Raises:
            Fenced: the lease has passed to somebody else.
        """
        fence = [
            (H.EXPECTED_SEQUENCE, str(lease.sequence)),
            (H.EXPECTED_SUBJECT, subjects.run(lease.run, "owner")),
        ]
        return await self._store.stored(subjects.run(lease.run, "aside"), encode(aside), H.encode(fence))

    async def aside(self, run: str) -> tuple[Aside, int] | None:
        """What a run that is put aside needs to go on, and the sequence of that entry; None if it is not."""
        kinds = [subjects.run(run, kind) for kind in ("aside", "owner", "done")]
        found = {s.subject: s for s in await self._reader.lasts(subjects.RUNS, *kinds)}
        aside, owner, done = (found.get(subject) for subject in kinds)
        if aside is None or done is not None or (owner is not None and owner.sequence > aside.sequence):
            return None
        said = read_entry(decode_aside, aside.body)
        return (said, aside.sequence) if said is not None else None

    async def restate(self, summary: RunSummary) -> None:
        """Tell that a run waits, or goes on, unless its end was told."""
        subject = subjects.run_summary(summary.run)
        for _ in range(_RESTATED):
            stored = await self._reader.last(f"KV_{subjects.RUNS_BUCKET}", subject)
            known = read_entry(decode_summary, stored.body) if stored else None
            if known is not None and known.finished:
                return
            head = H.encode([(H.EXPECTED_SEQUENCE, str(stored.sequence if stored else 0))])
            with contextlib.suppress(Fenced):  # something else was told meanwhile: look what
                await self._store.stored(subject, encode(summary), head)
                return

    def put_summary(self, summary: RunSummary, on_stored: OnStored | None = None) -> None:
        """Tell how a run stands in bucket ``cb_runs``.

        Args:
            on_stored: as in :meth:`~callboard.infra.store.Store.put`.
        """
        # That it runs is told only if nothing was told yet: a driver that stood still, or a message sent
        # again late, must not hide the end.
        first = summary.status == "running"
        head = H.encode([(H.EXPECTED_SEQUENCE, "0")]) if first else None
        told = _ignore if first and on_stored is None else on_stored
        self._store.put(subjects.run_summary(summary.run), encode(summary), head, told)

    # -- reading -----------------------------------------------------------------------------------

    async def read(self, run: str, kind: str = ">", after: int = 0) -> list[Stored]:
        """Entries of a kind (wildcards allowed) after a sequence, in journal order.

        An outcome that was held stands where it counts, see :mod:`callboard.state.held`; the acks are left
        out, and so is what does not count.
        """
        entries = await self.raw(run, kind, after)
        acks = commits_of(kind)
        if acks and (after or has_held(entries)):
            entries = await self._with_acks(run, kind, acks, after, entries)
        if not acks and kind != ">":
            return entries
        counting = Counting(run)
        found = counting.take(entries)
        if after and counting.alone:  # the outcome that an ack is for stands before
            return [entry for entry in await self.read(run, kind) if entry.sequence > after]
        return found

    async def _with_acks(
        self, run: str, kind: str, acks: str, after: int, entries: list[Stored]
    ) -> list[Stored]:
        """Entries with the acks among them, so that nothing is missing before any of them."""
        while True:
            last = entries[-1].sequence if entries else after
            read = await self.raw(run, acks, after)
            later = await self.raw(run, kind, last) if read and read[-1].sequence > last else []
            entries += later
            if not later:
                return sorted([*entries, *read], key=lambda entry: entry.sequence)

    async def raw(self, run: str, kind: str, after: int = 0) -> list[Stored]:
        """The same as they are stored."""
        return await self._reader.read(subjects.RUNS, subjects.run(run, kind), after)

    async def done(self, run: str) -> Done | None:
        """The outcome of a run, or None while it has none."""
        stored = await self._reader.last(subjects.RUNS, subjects.run(run, "done"))
        return read_done(stored) if stored else None

    async def owner(self, run: str) -> tuple[Owner, int] | None:
        """The current owner and the sequence of its entry."""
        stored = await self._reader.last(subjects.RUNS, subjects.run(run, "owner"))
        said = read_entry(decode_owner, stored.body) if stored else None
        return (said, stored.sequence) if stored and said else None

    async def summary(self, run: str) -> RunSummary | None:
        """How a run stands: from bucket ``cb_runs``, or from the journal, which knows of its end first."""
        stored = await self._reader.last(f"KV_{subjects.RUNS_BUCKET}", subjects.run_summary(run))
        told = read_entry(decode_summary, stored.body) if stored else None
        return told if told is not None and told.finished else await self._ended(run) or told

    async def _ended(self, run: str) -> RunSummary | None:
        kinds = [subjects.run(run, kind) for kind in ("owner", "done")]
        found = {stored.subject: stored for stored in await self._reader.lasts(subjects.RUNS, *kinds)}
        last, end = (found.get(kind) for kind in kinds)
        owner = read_entry(decode_owner, last.body) if last else None
        done = read_done(end) if end else None
        if done is None or end is None:
            return None
        return RunSummary(
            run,
            done.workflow,
            done.status,
            session=owner.session if owner else "",
            driver=owner.driver if owner else "",
            epoch=done.epoch,
            started=end.at - done.took,
            finished=end.at,
            calls=done.calls,
            error=done.error.message if done.error else "",
        )

    async def summaries(self, limit: int | None = None) -> list[RunSummary]:
        """All runs that are still kept, oldest change first."""
        stored = await self._reader.read(f"KV_{subjects.RUNS_BUCKET}", subjects.run_summary(">"), limit=limit)
        # A run that changes while they are read is met twice: the later one stands.
        newest = {entry.subject: entry for entry in stored}
        return [summary for _, summary in read_entries(decode_summary, newest.values())]


def _ignore(_: int | StoreRefused) -> None:
    """For what may be refused."""


def _refused(result: Result) -> bool:
    return result.error is not None and result.error.code == Overloaded.code


def _entries_of(results: Iterable[Result]) -> Iterator[bytes]:
    """The bodies of the entries that hold some outcomes, in order."""
    gathered = _Gathered()
    for result in results:
        gathered.add(encode(result), _ignore)
        if gathered.is_full:
            yield gathered.body()
            gathered = _Gathered()
    if not gathered.is_empty:
        yield gathered.body()


class _Gathered:
    """Outcomes that become one entry: one result as it is, several as an array."""

    __slots__ = ("_parts", "_size", "_told")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._told: list[OnStored] = []
        self._size = 0

    def add(self, part: bytes, on_stored: OnStored) -> None:
        self._parts.append(part)
        self._told.append(on_stored)
        self._size += len(part)

    @property
    def is_empty(self) -> bool:
        return not self._parts

    @property
    def is_full(self) -> bool:
        return len(self._parts) >= _TOGETHER or self._size >= _TOGETHER_BYTES

    def body(self) -> bytes:
        count = len(self._parts)
        if count == 1:
            return self._parts[0]
        head = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
        return head + b"".join(self._parts)

    def on_stored(self, outcome: int | StoreRefused) -> None:
        for told in self._told:
            told(outcome)


class Outcomes:
    """Which calls have their outcome in the journal already; read once, then followed.

    Args:
        journal: of this process; size: how many runs to remember.
    """

    def __init__(self, journal: Journal, size: int = 256) -> None:
        self._journal = journal
        self._size = size
        self._followed: OrderedDict[tuple[str, str], _Followed] = OrderedDict()
        self._done: OrderedDict[str, tuple[float, bool]] = OrderedDict()

    async def known(self, run: str, future: str) -> bool:
        """Whether the call has its outcome, or its run has ended, so that nobody waits for one."""
        key = (run, subjects.result_kind(future))
        followed = self._followed.setdefault(key, _Followed())
        self._followed.move_to_end(key)
        while len(self._followed) > self._size:
            self._followed.popitem(last=False)
        # The call's own outcome last: between this answer and the start of the call it may still come.
        return await self.ended(run) or future in await followed.upto_now(self._journal, *key)

    async def ended(self, run: str) -> bool:
        """Whether the run has ended; an answer may be a second old."""
        at, ended = self._done.get(run, (0.0, False))
        if ended or time.monotonic() - at < 1.0:
            return ended
        ended = await self._journal.done(run) is not None
        self._done[run] = (time.monotonic(), ended)
        while len(self._done) > self._size:
            self._done.popitem(last=False)
        return ended


class _Followed:
    """The outcomes under one subject, read as far as somebody has asked."""

    def __init__(self) -> None:
        self._finished: set[str] = set()
        self._after = 0
        self._reads = 0
        self._lock = asyncio.Lock()

    async def upto_now(self, journal: Journal, run: str, kind: str) -> set[str]:
        """Ids of the finished calls; many who ask at once share one read."""
        asked = self._reads
        async with self._lock:
            if self._reads > asked:  # one has begun and ended since
                return self._finished
            self._reads += 1
            try:
                entries = await journal.read(run, kind, self._after)
            except BaseException:
                self._reads -= 1  # who waits must not take it for one that was made
                raise
            for entry in entries:
                self._after = entry.sequence
                self._finished.update(r.future for r in read_results(entry.body) if not _refused(r))
            return self._finished


def json_done(done: Done) -> bytes | None:
    """The outcome as JSON, for requesters that sent JSON; None if the value has no JSON form.

    One with keys that JSON does not know has none. A value in the blob store is null there, and its digest
    the only one of ``blobs``.
    """
    try:
        value = b"null" if done.blobs else msgspec.json.encode(msgspec.msgpack.decode(done.value))
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None
    return msgspec.json.encode(msgspec.structs.replace(done, value=msgspec.Raw(value)))


def decode_done(body: bytes, headers: dict[str, str]) -> Done:
    """Read an outcome in either encoding; the value is msgpack afterwards."""
    if headers.get(H.CONTENT_TYPE) != H.JSON:
        return _decode_done(body)
    done = _decode_done_json(body)
    if done.blobs:
        value = encode(msgspec.msgpack.Ext(1, bytes.fromhex(done.blobs[0])))
    else:
        value = encode(msgspec.json.decode(done.value))
    return msgspec.structs.replace(done, value=msgspec.Raw(value))


def read_done(entry: Stored) -> Done | None:
    """The outcome that an entry holds; None if it holds none."""
    return read_entry(lambda body: decode_done(body, entry.headers), entry.body)


__all__ = [
    "Fenced",
    "Journal",
    "Lease",
    "decode_aside",
    "decode_done",
    "decode_owner",
    "decode_signal",
    "encode",
    "read_done",
    "read_entries",
    "read_entry",
    "read_every_result",
    "read_results",
]
