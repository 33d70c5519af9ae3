"""Events of vLLM's prefix cache, as it publishes them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from callboard.actors.models.cache import CacheEvent, Cleared, Removed, Stored
from callboard.actors.models.kv_events import KvEvents, arguments, events_of

STORED = {
    "type": "BlockStored",
    "block_hashes": [b"h1", b"h2"],
    "parent_block_hash": b"h0",
    "token_ids": [1, 2, 3, 4],
    "block_size": 2,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": None,
    "group_idx": 0,
    "session_id": "r-1",
}
"""As vLLM 0.32 encodes it."""


def batch(*events: dict[str, Any]) -> bytes:
    """A batch of them."""
    return msgspec.msgpack.encode([1.5, list(events), 0])


def frames(number: int, *events: dict[str, Any]) -> list[bytes]:
    """A message with such a batch."""
    return [b"", number.to_bytes(8, "big"), batch(*events)]


def test_what_is_told() -> None:
    """Of the engine's own cache; other tiers and further groups of layers are left out."""
    removed = {"type": "BlockRemoved", "block_hashes": [7], "medium": "GPU"}
    others = [{**STORED, "ownership": "disk"}, {**removed, "group_idx": 1}]
    found = events_of(batch(STORED, removed, *others, {"type": "AllBlocksCleared"}))
    assert found == [Stored("r-1", [b"h1", b"h2"], b"h0", 2), Removed([7]), Cleared()]


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", batch({"type": "Another"}), batch({**STORED, "block_size": "x"})]
)
def test_what_is_not_understood(body: bytes) -> None:
    """It is an error, of one kind."""
    with pytest.raises(msgspec.DecodeError):
        events_of(body)


def test_what_is_missed_is_seen() -> None:
    """After a gap, or a message that is not understood, nothing is known any more."""
    told: list[CacheEvent] = []
    events = KvEvents("ipc:///nowhere", told.append)
    stored = Stored("r-1", [b"h1", b"h2"], b"h0", 2)
    events.take(frames(0, STORED))
    events.take(frames(1, STORED))
    assert told == [stored, stored]
    events.take(frames(3, STORED))
    assert told[2:] == [Cleared(), stored]
    events.take([b"", (4).to_bytes(8, "big"), b"\xc1"])
    assert told[4:] == [Cleared()]
    events.take([b"alone"])
    assert told[5:] == [Cleared(), Cleared()]


async def test_stopping_before_it_began() -> None:
    """Nothing happens, and nobody is told."""
    told: list[CacheEvent] = []
    await KvEvents("ipc:///nowhere", told.append).stop()
    assert told == []


def test_how_vllm_is_told() -> None:
    """By one option, which names a socket in the file system."""
    option, value = arguments("ipc:///tmp/x")
    assert option == "--kv-events-config"
    assert json.loads(value)["endpoint"] == "ipc:///tmp/x"
