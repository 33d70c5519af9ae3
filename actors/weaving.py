"""Long arguments that were stored already, in the whole or in parts, travel as references to that.

A chat passes its history to a model again and again, one message longer each time. Stored as a whole each
time, 500 turns would take 250 times their messages. So arguments above the inline limit are woven: their
long texts that stand in the run's journal, or in the state that the handler holds, become references to
there, and what is left is cut in pieces by its content, so that a list with one more item has the same pieces
and one more. A piece that is met for the second time is stored, under its hash, and referred to from then on;
what is new travels in the call itself, which is gone when it is acked.

What a handler returns is often what it was given by another one: an agent hands on what its model has said.
Then the outcome refers to that one's.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from callboard.actors import values
from callboard.infra import log, subjects
from callboard.infra.direct import DirectReader
from callboard.infra.errors import CallboardError, InvalidArguments
from callboard.infra.settings import MIB, Settings
from callboard.state.blobs import Blobs
from callboard.state.known import KnownJournal, KnownState, Spot, digest_of
from callboard.state.shelf import Place, Shelf
from callboard.state.spots import Spots
from callboard.state.texts import long_texts

if TYPE_CHECKING:
    from callboard.actors.inbound import Call
    from callboard.actors.node import Node
    from callboard.actors.values import Encoded
    from callboard.state.session import Session

LARGEST = 8 * MIB
"""Bytes above which arguments are stored as a whole: looking through them would take too long."""
INLINE = "1"
"""Says that a woven form stands where the arguments would."""
SHARED = 1024
"""Bytes from which a text in an outcome becomes a reference to another one: reading it takes a round trip."""
REPEATED = 8 * 1024
"""Bytes from which an outcome is looked through for what it repeats of arguments that are as long."""
_HEARD = 1 * MIB
_LEAST_PIECE = 2 * 1024
_REFERENCE = 16
_LARGEST_PIECE = 32 * 1024
_CUT = 64
"""Of 256: after so many texts a piece ends, once it is large enough."""
_KEPT = 64
"""Runs, and sessions, of which it is kept what is known."""
_ASIDE = 1 * MIB
"""Bytes above which the event loop does not wait until a value has been looked through (3 ms for each MB)."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode
_STATE = "state"
_SOURCE = re.compile(r"@?[A-Za-z0-9_\-]{1,64}")

K = TypeVar("K")
V = TypeVar("V")
Find = Callable[[bytes], Spot | None]
"""Where a text stands, by its digest."""

Part = bytes | Spot
"""What stands there itself, or where it stands."""


class Weaver:
    """Weaves the arguments of calls, and makes them whole again.

    Args:
        reader, shelf, blobs: of this process.
        settings: sizes.
    """

    def __init__(self, reader: DirectReader, shelf: Shelf, blobs: Blobs, settings: Settings) -> None:
        self._reader = reader
        self._shelf = shelf
        self._blobs = blobs
        self._settings = settings
        self._spots = Spots(reader, shelf)
        self._log = log.get("weaver")
        self._journals: OrderedDict[str, KnownJournal] = OrderedDict()
        self._states: OrderedDict[Place, KnownState] = OrderedDict()
        self.held: Callable[[Place], Session | None] = lambda _: None
        """The session of a place, if this process has it open."""

    async def weave(self, run: str, place: Place | None, encoded: Encoded) -> None:
        """Make long arguments short: by weaving, where that does not do by a reference to the whole.

        Args:
            run: whose call it is.
            place: whose state its maker may hold; None: nobody's.

        Raises:
            ValueTooLarge: above the largest permitted size.
        """
        form = await self.woven(run, encoded.body, place, room=self._settings.inline_limit // 2)
        if form is None:
            await values.shrink(encoded, self._blobs, self._settings)
        elif len(form) <= self._settings.inline_limit:
            encoded.body, encoded.woven = form, INLINE
        else:
            encoded.body, encoded.woven = b"", await self._blobs.put(form)

    async def woven(
        self, run: str, body: bytes, place: Place | None = None, *, room: int = 0
    ) -> bytes | None:
        """A woven form of a value; None if nothing in it is known.

        Args:
            run: whose it is; place: whose state is held while it is needed.
            room: bytes that it may have before pieces of it are stored.
        """
        try:
            return await self._form(run, body, place, room)
        except CallboardError as error:
            self._log.warning("stored_as_a_whole", run=run, reason=error.message)
            return None

    async def _form(self, run: str, body: bytes, place: Place | None, room: int) -> bytes | None:
        if len(body) > LARGEST:
            return None
        aside = len(body) > _ASIDE
        texts = await asyncio.to_thread(long_texts, body) if aside else long_texts(body)
        if not texts:
            return None
        journal = _newest(self._journals, run, lambda: KnownJournal(self._reader, run))
        reading = [journal.read_on()]
        find: Find = journal.find
        met = journal.meet
        session = self.held(place) if place is not None else None
        if place is not None and session is not None:
            state = _newest(self._states, place, lambda: KnownState(self._shelf, place))
            reading.append(state.read_on(session))
            find, met = _either(journal.find, state.find), state.meet
        await asyncio.gather(*reading)
        pieces = await asyncio.to_thread(_cut, body, texts, find) if aside else _cut(body, texts, find)
        parts = await self._pieced(pieces, met, room)
        if all(isinstance(part, bytes) for part in parts):
            return None
        return _encode(parts if session is None or place is None else [{_STATE: place}, *parts])

    async def _pieced(
        self, pieces: list[list[Part]], met: Callable[[bytes], bool], room: int
    ) -> list[Part | list[bytes]]:
        """The parts of a form: if there is no room, in the place of what was met before a reference to it."""
        parts: list[Part | list[bytes]] = []
        storing = []
        bodies = [_encode(piece) for piece in pieces]
        short = sum(len(encoded) for encoded in bodies) <= room
        for piece, encoded in zip(pieces, bodies, strict=True):
            known = len(encoded) >= _LEAST_PIECE // 2 and met(digest_of(encoded))
            if known and not short:
                reference: list[bytes] = []  # filled in when it is stored
                parts.append(reference)
                storing.append(self._stored(encoded, reference))
            else:
                parts += piece
        await asyncio.gather(*storing)
        return parts

    async def _stored(self, piece: bytes, reference: list[bytes]) -> None:
        reference.append(bytes.fromhex(await self._blobs.put(piece)))

    async def whole(self, run: str, form: bytes, where: str = INLINE) -> bytes:
        """What was woven.

        Args:
            run: whose call it is.
            form: the woven form; where: it is stored, if not here.

        Raises:
            ValueMissing: a part of it is not stored any more.
            InvalidArguments: it is no woven form.
        """
        if where != INLINE:
            form = await self._blobs.get(where)
        parts, place = _parts(form, pieces=True)
        pieces = [part for part in parts if isinstance(part, list)]
        found = iter(await asyncio.gather(*(self._blobs.get(part[0].hex()) for part in pieces)))
        flat: list[Part] = []
        for part in parts:
            if isinstance(part, list):
                flat += [one for one in _parts(next(found), pieces=False)[0] if not isinstance(one, list)]
            else:
                flat.append(part)
        self._settings.check_value_size(
            sum(len(one) if isinstance(one, bytes) else one.length for one in flat)
        )
        spots = [one for one in flat if isinstance(one, Spot)]
        texts = iter(await self._spots.read(run, place, spots))
        return b"".join([one if isinstance(one, bytes) else next(texts) for one in flat])


def _newest(known: OrderedDict[K, V], key: K, make: Callable[[], V]) -> V:
    """What is known of a run or a session; of those that were not asked for lately it is forgotten."""
    if key not in known:
        known[key] = make()
    known.move_to_end(key)
    while len(known) > _KEPT:
        known.popitem(last=False)
    return known[key]


def _either(first: Find, second: Find) -> Find:
    return lambda digest: first(digest) or second(digest)


class Heard:
    """The last outcomes that a handler has heard of its own calls: what it returns may stand in them."""

    def __init__(self) -> None:
        self._entries: deque[tuple[int, bytes]] = deque()
        self._size = 0

    def add(self, sequence: int, entry: bytes) -> None:
        """An entry of the journal has come."""
        if len(entry) < SHARED:
            return
        self._entries.append((sequence, entry))
        self._size += len(entry)
        while self._size > _HEARD:
            self._size -= len(self._entries.popleft()[1])

    def woven(self, value: bytes) -> bytes | None:
        """The woven form of an outcome; None if nothing long in it was heard."""
        if not self._entries or not SHARED <= len(value) <= _HEARD:
            return None
        texts = _shared(value)
        where = {
            entry[start:end]: Spot(sequence, start, end - start)
            for sequence, entry in self._entries
            for start, end in _shared(entry)
        }
        parts: list[Part] = []
        at = 0
        for start, end in texts:
            known = where.get(value[start:end])
            if known is not None:
                parts += [value[at:start], known]
                at = end
        return _encode([*parts, value[at:]]) if parts else None


def _shared(body: bytes) -> list[tuple[int, int]]:
    return [(start, end) for start, end in long_texts(body) if end - start >= SHARED]


async def arguments_of(call: Call, node: Node) -> bytes:
    """The arguments of a call as they were when they were encoded.

    Raises:
        CallboardError: a part of them is not stored any more, or is none.
    """
    body = await node.weaver.whole(call.run, call.body, call.woven) if call.woven else call.body
    if call.blobs:
        body = await values.expand(body, call.blobs, node.blobs)
    call.size = len(body)
    return body


def _cut(body: bytes, texts: list[tuple[int, int]], find: Find) -> list[list[Part]]:
    """The parts of a body, in pieces whose ends follow from what stands before them."""
    pieces: list[list[Part]] = []
    piece: list[Part] = []
    size = at = 0
    for start, end in texts:
        digest = digest_of(body[start:end])
        where = find(digest)
        if where is None and end - start >= _LEAST_PIECE:  # by itself, whatever changes before it
            pieces += [[*piece, body[at:start]], [body[start:end]]]
            piece, size, at = [], 0, end
            continue
        piece += [body[at:start], where or body[start:end]]  # a text by itself is found again where it stands
        size += start - at + (_REFERENCE if where else end - start)
        first, at = at == 0, end
        # Before the first text stands how many items there are: by itself, since that changes.
        if first or size >= _LARGEST_PIECE or (size >= _LEAST_PIECE and digest[0] < _CUT):
            pieces.append(piece)
            piece, size = [], 0
    return [*pieces, [*piece, body[at:]]]


def _parts(form: bytes, *, pieces: bool) -> tuple[list[Part | list[bytes]], Place | None]:
    """The parts of a form or of a piece, and whose state some of them stand in."""
    place: Place | None = None
    try:
        parts = _decode(form)
        if pieces and parts and isinstance(parts[0], dict):
            place = _place(parts.pop(0))
        return [_part(one, pieces=pieces) for one in parts], place
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidArguments(f"what is called woven is not: {error}") from error


def _place(named: dict[str, list[str]]) -> Place:
    actor, session = named[_STATE]
    return Place(subjects.token("the name of an actor", actor), str(session))


def _part(part: Any, *, pieces: bool) -> Part | list[bytes]:
    if isinstance(part, bytes):
        return part
    if isinstance(part, list) and len(part) == len(Spot._fields):
        spot = Spot(*part)
        named = isinstance(spot.source, str) and _SOURCE.fullmatch(spot.source)
        numbers = spot[1:] if named else spot
        if all(isinstance(one, int) and one >= 0 for one in numbers):
            return spot
    if pieces and isinstance(part, list) and len(part) == 1 and isinstance(part[0], bytes):
        return part
    raise ValueError("a part is neither bytes, nor a place where they are stored, nor a piece")
