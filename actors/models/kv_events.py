"""Hearing vLLM's KV events: which blocks of its prefix cache it stores and removes.

Source: vLLM's ``vllm/distributed/kv_events.py``, which publishes them by ZeroMQ: a topic, a number in eight
bytes, and a batch in msgpack. Those of vLLM 0.32 are understood, which name the request that they are about
(``session_id``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Final

import msgspec

from callboard.actors.models.cache import BlockId, CacheEvent, Cleared, Removed, Stored, Tell
from callboard.infra import log

_FRAMES: Final = 3


class _BlockStored(msgspec.Struct, tag="BlockStored"):
    block_hashes: list[BlockId]
    parent_block_hash: BlockId | None
    block_size: int
    group_idx: int | None = None
    ownership: str | None = None
    session_id: str | None = None


class _BlockRemoved(msgspec.Struct, tag="BlockRemoved"):
    block_hashes: list[BlockId]
    group_idx: int | None = None
    ownership: str | None = None


class _AllBlocksCleared(msgspec.Struct, tag="AllBlocksCleared"):
    pass


class _Batch(msgspec.Struct, array_like=True):
    ts: float
    events: list[_BlockStored | _BlockRemoved | _AllBlocksCleared]


_decode = msgspec.msgpack.Decoder(_Batch).decode


def arguments(endpoint: str) -> list[str]:
    """How vLLM is told to publish them."""
    config = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": endpoint}
    return ["--kv-events-config", json.dumps(config)]


def events_of(batch: bytes) -> list[CacheEvent]:
    """What a batch says of the engine's own cache; other tiers, and further groups of layers, are left out.

    Raises:
        msgspec.DecodeError: it is none that is understood.
    """
    found: list[CacheEvent] = []
    for one in _decode(batch).events:
        if isinstance(one, _AllBlocksCleared):
            found.append(Cleared())
        elif one.ownership or one.group_idx:
            continue
        elif isinstance(one, _BlockRemoved):
            found.append(Removed(one.block_hashes))
        else:
            found.append(
                Stored(one.session_id or "", one.block_hashes, one.parent_block_hash, one.block_size)
            )
    return found


class KvEvents:
    """Listens to one engine.

    Args:
        endpoint: where it publishes; tell: told of each event.
    """

    def __init__(self, endpoint: str, tell: Tell) -> None:
        self._endpoint = endpoint
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._last = -1
        self._log = log.get("kv_events")

    def start(self) -> None:
        """Listen from now on, whether the engine is there already or not. Idempotent."""
        if self._task is None:
            self._task = asyncio.Task(self._listen(), loop=asyncio.get_running_loop())

    async def stop(self) -> None:
        """Listen no more; what was told does not count any more. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self._tell(Cleared())

    async def _listen(self) -> None:
        import zmq
        import zmq.asyncio

        with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
            socket.linger = 0
            socket.subscribe(b"")
            socket.connect(self._endpoint)
            while True:
                frames: list[Any] = await socket.recv_multipart()
                self.take(frames)

    def take(self, frames: list[bytes]) -> None:
        """A message has come.

        Where one is missing before it, or it is not understood, nothing is known any more.
        """
        number = int.from_bytes(frames[1], "big") if len(frames) == _FRAMES else -1
        if number != self._last + 1:
            self._tell(Cleared())
        self._last = number
        events: list[CacheEvent] = [Cleared()]
        with contextlib.suppress(msgspec.DecodeError):
            events = events_of(frames[-1])
        for event in events:
            self._tell(event)
