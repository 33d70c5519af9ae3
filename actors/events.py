"""What has happened in a run, as its journal tells it, and what happens until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.infra import subjects
from callboard.infra.messages.run import NIL, Aside, Intent, Owner, Pending
from callboard.state.held import Counting
from callboard.state.journal import (
    decode_aside,
    decode_owner,
    decode_signal,
    read_done,
    read_entry,
    read_results,
)

if TYPE_CHECKING:
    from callboard.actors.node import Node
    from callboard.infra.direct import Stored

_LOOK_EVERY = 5.0
_DECODERS: dict[str, Callable[[bytes], msgspec.Struct]] = {
    "owner": decode_owner,
    "signal": decode_signal,
    "aside": decode_aside,
    "intent": msgspec.msgpack.Decoder(Intent).decode,
    "pending": msgspec.msgpack.Decoder(Pending).decode,
}


class Event(msgspec.Struct, omit_defaults=True):
    """Something that happened in a run.

    Attributes:
        kind: ``owner``, ``pending``, ``intent``, ``attempt``, ``result``, ``signal``, ``aside`` or ``done``.
        sequence: its place in the journal; at: unix seconds.
        data: the entry's body as plain values; a value is left out, and so is the request in an ``owner`` or
            an ``aside``.
    """

    kind: str
    sequence: int
    at: float
    data: dict[str, Any] = {}


async def follow_events(node: Node, run: str, *, follow: bool) -> AsyncIterator[Event]:
    """See :meth:`callboard.actors.client.Client.events`."""
    news = asyncio.Event()
    sid = node.connection.subscribe(subjects.journal(run, ">"), lambda *_: news.set())
    after, counting = 0, Counting(run)
    try:
        while True:
            news.clear()
            entries = await node.journal.raw(run, ">", after)
            after = entries[-1].sequence if entries else after
            for entry in counting.take(entries):
                for event in _events(entry):
                    yield event
                    if event.kind == "done" and follow:
                        return
            if not follow:
                return
            try:
                async with asyncio.timeout(_LOOK_EVERY):
                    await news.wait()
            except TimeoutError:
                continue
    finally:
        node.connection.unsubscribe(sid)


def _events(entry: Stored) -> list[Event]:
    """What an entry tells; nothing if it is none: anybody can publish there."""
    kind = entry.subject.split(".")[3]
    said: Sequence[msgspec.Struct]
    if kind in {"result", "attempt"}:
        said = read_results(entry.body)
    elif kind == "done":
        said = [done] if (done := read_done(entry)) else []
    else:
        one = read_entry(_DECODERS[kind], entry.body) if kind in _DECODERS else None
        said = [one] if one is not None else []
    return [Event(kind, entry.sequence, entry.at, _plain(one)) for one in said]


def _plain(entry: msgspec.Struct) -> dict[str, Any]:
    """An entry as plain values, its own value left out."""
    if isinstance(entry, Owner):
        entry = msgspec.structs.replace(entry, body=b"", as_json=False, blobs=[], kept="")
    if isinstance(entry, Aside):
        entry = msgspec.structs.replace(entry, headers={}, body=b"")
    if hasattr(entry, "value"):
        entry = msgspec.structs.replace(entry, value=NIL)
    plain: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(entry))
    plain.pop("value", None)
    return plain
