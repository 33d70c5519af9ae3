"""Where the states of sessions lie: commits in order, and the parts that they refer to."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.connection import Connection
from callboard.infra.direct import DirectReader, Stored
from callboard.infra.errors import Fenced, RequestTimeout, StoreRefused
from callboard.infra.settings import Settings
from callboard.infra.store import Store
from callboard.infra.topology import Topology

T = TypeVar("T")
_STREAM = f"KV_{subjects.STATE_BUCKET}"
_LAGGING = (0.02, 0.05, 0.1, 0.2)
"""Seconds to wait for a server of a cluster that has not got yet what another has stored."""
_LAST = re.compile(r"wrong last sequence: (\d+)")
"""What the server says of a subject that has another last message than expected."""
_CHUNK = 256 * 1024
_AT_ONCE = 256
_CHUNKS_AT_ONCE = 32
_PATIENCE = 30.0
_TRIES = 5
_PLACES = 4096


class Place(NamedTuple):
    """Whose state it is."""

    actor: str
    session: str


class Told(Protocol):
    """An outcome that is told before its commit is stored, see :mod:`callboard.state.held`."""

    @property
    def subject(self) -> str:
        """Where the server is to say whether the commit is stored."""

    def tell(self) -> None:
        """Send the outcome: the commit leaves right after it."""


class Shelf(Protocol):
    """What sessions need of a store; keys are the rest of a part's subject."""

    async def last(self, place: Place) -> Stored | None:
        """The newest commit."""

    async def is_newest(self, place: Place, sequence: int) -> bool:
        """Whether no commit has come after this sequence, and it was not deleted; 0: none was there.

        A server of a cluster that has not got yet what another has stored knows of nothing newer.
        """

    async def commits(self, place: Place, after: int = 0) -> list[Stored]:
        """The commits after a sequence, in order, as far as they are kept."""

    async def at(self, place: Place, sequence: int) -> Stored | None:
        """The commit with this sequence, if it is kept."""

    async def commit(
        self,
        place: Place,
        body: bytes,
        after: int,
        ttl: int = 0,
        *,
        alone: bool = False,
        told: Told | None = None,
    ) -> int:
        """Store a commit; returns its sequence.

        Args:
            after: sequence of the commit that must still be the last; ttl: seconds to keep it, 0: for ever.
            alone: remove all commits before it; told: the outcome that is held for it.

        Raises:
            Fenced: it is not.
        """

    async def store(self, place: Place, parts: Mapping[str, bytes], ttl: int = 0) -> None:
        """Store parts."""

    async def load(self, place: Place, keys: Iterable[str]) -> dict[str, bytes]:
        """Parts by key, those that are there."""

    def load_now(self, place: Place, keys: Sequence[str]) -> dict[str, bytes]:
        """The same, from a thread that waits for it."""

    async def parts_after(self, place: Place, after: int) -> list[tuple[str, int]]:
        """Keys and sequences of the parts that were stored after a sequence."""

    async def drop(self, place: Place, keys: Iterable[str], upto: int) -> None:
        """Remove parts as far as they were stored up to a sequence."""

    async def erase(self, place: Place) -> None:
        """Remove every trace of a state."""

    async def places(self, actor: str | None = None) -> list[Place]:
        """Whose states there are."""


class NatsShelf:
    """The bucket ``cb_state``.

    Args:
        connection, store, reader, topology: of this process.
        settings: to connect once more where code blocks the event loop.
    """

    def __init__(
        self,
        connection: Connection,
        store: Store,
        reader: DirectReader,
        topology: Topology,
        settings: Settings,
    ) -> None:
        self._store = store
        self._reader = reader
        self._topology = topology
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._chunk = min(_CHUNK, connection.max_payload - 4096)
        self._beside: _Beside | None = None
        self._log = log.get("state")

    async def close(self) -> None:
        """End the connection beside the event loop, if there is one. Idempotent."""
        beside, self._beside = self._beside, None
        if beside is not None:
            await asyncio.to_thread(beside.close)

    # -- commits -----------------------------------------------------------------------------------

    async def last(self, place: Place) -> Stored | None:
        """See :class:`Shelf`."""
        return await self._reader.last(_STREAM, _commits(place))

    async def is_newest(self, place: Place, sequence: int) -> bool:
        """See :class:`Shelf`."""
        for wait in (0.0, *_LAGGING):
            await asyncio.sleep(wait)
            if (last := await self.last(place)) is not None:
                return last.sequence <= sequence
            if sequence == 0:
                return True
        return False

    async def commits(self, place: Place, after: int = 0) -> list[Stored]:
        """See :class:`Shelf`."""
        return await self._reader.read(_STREAM, _commits(place), after)

    async def at(self, place: Place, sequence: int) -> Stored | None:
        """See :class:`Shelf`."""
        found = await self._reader.at(_STREAM, sequence)
        return found if found and found.subject == _commits(place) else None

    async def commit(
        self,
        place: Place,
        body: bytes,
        after: int,
        ttl: int = 0,
        *,
        alone: bool = False,
        told: Told | None = None,
    ) -> int:
        """See :class:`Shelf`."""
        head = [(H.EXPECTED_SEQUENCE, str(after)), *_kept_for(ttl)]
        if alone:
            head.append((H.ROLLUP, "sub"))
        ack = ""
        if told is not None:
            told.tell()
            ack = told.subject
        try:
            return await self._store.stored(_commits(place), body, H.encode(head), ack)
        except Fenced as error:
            # A commit whose ack was lost is sent again, and the second is fenced by the first.
            stored = await self._next(place, after, error)
            if stored is None or stored.body != body:
                raise
            return stored.sequence

    async def _next(self, place: Place, after: int, fenced: Fenced) -> Stored | None:
        """The commit that follows one, as whoever was fenced asks; None: the state was deleted.

        Raises:
            RequestTimeout: the server that answers has not got yet what another one has stored.
        """
        told = _LAST.search(str(fenced.fields.get("description", "")))
        if told is not None and int(told[1]) <= after:
            return None
        for wait in (0.0, *_LAGGING):
            await asyncio.sleep(wait)
            if found := await self._reader.read(_STREAM, _commits(place), after, limit=1):
                return found[0]
        raise RequestTimeout(
            f"{_commits(place)}: it is not known whether a commit is stored: the server lags behind",
            subject=_commits(place),
            timeout=sum(_LAGGING),
        ) from fenced

    # -- parts -------------------------------------------------------------------------------------

    async def store(self, place: Place, parts: Mapping[str, bytes], ttl: int = 0) -> None:
        """See :class:`Shelf`."""
        head = H.encode(_kept_for(ttl)) if ttl else None
        waiting: list[Awaitable[int]] = []
        for key, body in parts.items():
            subject = _part(place, key)
            if key.startswith("large."):
                chunks = [body[i : i + self._chunk] for i in range(0, len(body), self._chunk)]
                waiting += [
                    self._store.stored(f"{subject}.{number}", chunk, head)
                    for number, chunk in enumerate(chunks)
                ]
            else:
                waiting.append(self._store.stored(subject, body, head))
        await asyncio.gather(*waiting)

    async def load(self, place: Place, keys: Iterable[str]) -> dict[str, bytes]:
        """See :class:`Shelf`."""
        return await _load(self._reader, place, list(keys))

    def load_now(self, place: Place, keys: Sequence[str]) -> dict[str, bytes]:
        """See :class:`Shelf`. On the event loop it reads over a connection of its own."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is None:
            work = asyncio.run_coroutine_threadsafe(self.load(place, keys), self._loop)
            return _waited(lambda: work.result(_PATIENCE), place)
        if self._beside is None:
            self._beside = _Beside(self._settings)
            self._log.warning(
                "state_read_blocks_the_event_loop",
                actor=place.actor,
                fix="await self.<attribute>.load(...) before, or use 'async for', or a plain 'def' handler",
            )
        return self._beside.load(place, keys)

    async def parts_after(self, place: Place, after: int) -> list[tuple[str, int]]:
        """See :class:`Shelf`."""
        prefix = len(_part(place, ""))
        found = await self._reader.read(_STREAM, _part(place, ">"), after)
        return [(_without_chunk(one.subject[prefix:]), one.sequence) for one in found]

    # -- removing ----------------------------------------------------------------------------------

    async def drop(self, place: Place, keys: Iterable[str], upto: int) -> None:
        """See :class:`Shelf`."""
        filters = [f"{key}.*" if key.startswith("large.") else key for key in keys]
        subjects_ = [_part(place, one) for one in filters]
        await asyncio.gather(*(self._purge({"filter": one, "seq": upto + 1}) for one in subjects_))

    async def erase(self, place: Place) -> None:
        """See :class:`Shelf`.

        A holder that goes on is fenced once the commits are gone, and what a new one stores is spared.
        """
        for _ in range(_TRIES):
            upto = await self._last_sequence()
            await self._purge({"filter": _commits(place)})
            await self._purge({"filter": _part(place, ">"), "seq": upto + 1})
            left = await self._reader.read(_STREAM, _part(place, ">"), limit=1)
            if not left or await self.last(place) is not None:
                return

    async def _last_sequence(self) -> int:
        answer = await self._topology.api(f"STREAM.INFO.{_STREAM}")
        return int(answer.get("state", {}).get("last_seq", 0))

    async def _purge(self, what: dict[str, Any]) -> None:
        answer = await self._topology.api(f"STREAM.PURGE.{_STREAM}", what)
        if "error" in answer:
            text = answer["error"].get("description", "unknown error")
            raise StoreRefused(
                f"{what['filter']} was not removed: {text}",
                subject=what["filter"],
                err_code=answer["error"].get("err_code"),
                description=text,
            )

    async def places(self, actor: str | None = None) -> list[Place]:
        """See :class:`Shelf`."""
        found: list[Place] = []
        body: dict[str, Any] = {
            "subjects_filter": f"$KV.{subjects.STATE_BUCKET}.{actor or '*'}.*",
            "offset": 0,
        }
        while True:
            answer = await self._topology.api(f"STREAM.INFO.{_STREAM}", body)
            page = answer.get("state", {}).get("subjects") or {}
            for subject in page:
                _, _, name, session = subject.split(".")
                found.append(Place(name, subjects.session_of(session)))
            body["offset"] += len(page)
            if not page or body["offset"] >= answer.get("total", 0):
                return sorted(found)


class MemoryShelf:
    """The same for one process without NATS; a place is written by one thread at a time.

    Args:
        settings: how many commits are kept.
    """

    def __init__(self, settings: Settings) -> None:
        self._history = settings.state_history
        self._sequences = itertools.count(1)  # for any thread
        self._commits: OrderedDict[Place, list[Stored]] = OrderedDict()
        self._parts: dict[Place, dict[str, tuple[int, bytes]]] = {}

    async def last(self, place: Place) -> Stored | None:
        """See :class:`Shelf`."""
        return self._commits[place][-1] if place in self._commits else None

    async def is_newest(self, place: Place, sequence: int) -> bool:
        """See :class:`Shelf`."""
        last = await self.last(place)
        return sequence == (0 if last is None else last.sequence)

    async def commits(self, place: Place, after: int = 0) -> list[Stored]:
        """See :class:`Shelf`."""
        return [one for one in self._commits.get(place, ()) if one.sequence > after]

    async def at(self, place: Place, sequence: int) -> Stored | None:
        """See :class:`Shelf`."""
        return next((one for one in self._commits.get(place, ()) if one.sequence == sequence), None)

    async def commit(
        self,
        place: Place,
        body: bytes,
        after: int,
        ttl: int = 0,
        *,
        alone: bool = False,
        told: Told | None = None,
    ) -> int:
        """See :class:`Shelf`."""
        kept = self._commits.setdefault(place, [])
        if (kept[-1].sequence if kept else 0) != after:
            raise Fenced(f"{_commits(place)}: a newer owner has written", subject=_commits(place))
        sequence = next(self._sequences)
        kept.append(Stored(_commits(place), sequence, time.time(), {}, body))
        del kept[: -1 if alone else -self._history]
        return sequence

    async def store(self, place: Place, parts: Mapping[str, bytes], ttl: int = 0) -> None:
        """See :class:`Shelf`."""
        for key, body in parts.items():
            self._parts.setdefault(place, {})[key] = (next(self._sequences), body)

    async def load(self, place: Place, keys: Iterable[str]) -> dict[str, bytes]:
        """See :class:`Shelf`."""
        return self.load_now(place, list(keys))

    def load_now(self, place: Place, keys: Sequence[str]) -> dict[str, bytes]:
        """See :class:`Shelf`."""
        known = self._parts.get(place, {})
        return {key: known[key][1] for key in keys if key in known}

    async def parts_after(self, place: Place, after: int) -> list[tuple[str, int]]:
        """See :class:`Shelf`."""
        known = self._parts.get(place, {})
        return [(key, sequence) for key, (sequence, _) in list(known.items()) if sequence > after]

    async def drop(self, place: Place, keys: Iterable[str], upto: int) -> None:
        """See :class:`Shelf`."""
        known = self._parts.get(place, {})
        for key in keys:
            if key in known and known[key][0] <= upto:
                del known[key]

    async def erase(self, place: Place) -> None:
        """See :class:`Shelf`."""
        self._commits.pop(place, None)
        self._parts.pop(place, None)

    async def places(self, actor: str | None = None) -> list[Place]:
        """See :class:`Shelf`."""
        return sorted(place for place in self._commits if actor in {None, place.actor})


class _Beside:
    """A connection with an event loop of its own, in a thread, for reads that block the other loop."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="callboard-state", daemon=True)
        self._thread.start()
        self._connection = Connection(settings, "state-reads")
        self._do(self._connection.open())
        self._reader = DirectReader(self._connection)

    def _run(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    def load(self, place: Place, keys: Sequence[str]) -> dict[str, bytes]:
        return _waited(lambda: self._do(_load(self._reader, place, keys)), place)

    def close(self) -> None:
        self._do(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)


@lru_cache(_PLACES)
def _commits(place: Place) -> str:
    """The subject of a state's commits.

    Raises:
        NameInvalid: the session's id is too long.
    """
    return subjects.state(place.actor, subjects.session_token(place.session))


def _part(place: Place, key: str) -> str:
    return subjects.state_part(place.actor, subjects.session_token(place.session), key)


def _waited(work: Callable[[], T], place: Place) -> T:
    try:
        return work()
    except TimeoutError as error:
        raise RequestTimeout(
            f"the state of session {place.session} at {place.actor} was not read within {_PATIENCE:.0f} s: "
            "is the server up?",
            subject=_commits(place),
            timeout=_PATIENCE,
        ) from error


async def _load(reader: DirectReader, place: Place, keys: Sequence[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for wait in (0.0, *_LAGGING):
        missing = [key for key in keys if key not in found]
        if not missing:
            break
        await asyncio.sleep(wait)
        plain = [key for key in missing if not key.startswith("large.")]
        prefix = len(_part(place, ""))
        for start in range(0, len(plain), _AT_ONCE):
            wanted = [_part(place, key) for key in plain[start : start + _AT_ONCE]]
            for one in await reader.lasts(_STREAM, *wanted):
                found[one.subject[prefix:]] = one.body
        for key in missing:
            if key.startswith("large.") and (content := await _large(reader, place, key)):
                found[key] = content
    return found


async def _large(reader: DirectReader, place: Place, key: str) -> bytes:
    """The chunks of a large value, as far as they are there."""
    subject = _part(place, key)
    content: list[bytes] = []
    while True:
        wanted = [f"{subject}.{number}" for number in range(len(content), len(content) + _CHUNKS_AT_ONCE)]
        found = {one.subject: one.body for one in await reader.lasts(_STREAM, *wanted)}
        content += [found[one] for one in wanted if one in found]
        if len(found) < len(wanted):
            return b"".join(content)


def _without_chunk(key: str) -> str:
    """The key of a part without the number of a large value's chunk."""
    return key.rpartition(".")[0] if key.startswith("large.") else key


def _kept_for(ttl: int) -> list[tuple[str, str]]:
    return [(H.TTL, str(ttl))] if ttl else []
