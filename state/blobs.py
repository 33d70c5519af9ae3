"""Large values, stored once under the hash of their content, in bucket ``cb_blobs``.

The layout is that of a NATS object store whose object names are the SHA-256 digests, so that any
NATS client can read it. Reading goes by direct get and leaves no consumer behind.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import math
import re
import time
from collections import OrderedDict
from typing import Any

import msgspec

from callboard.infra import headers as H
from callboard.infra.connection import Connection
from callboard.infra.direct import DirectReader
from callboard.infra.errors import ValueMissing
from callboard.infra.settings import MIB, Settings
from callboard.infra.store import Store
from callboard.infra.subjects import BLOBS_BUCKET, new_id

_LAGGING = (0.02, 0.05, 0.1, 0.2)
"""Seconds to wait for a server of a cluster that has not got yet what another has stored."""
_STREAM = f"OBJ_{BLOBS_BUCKET}"
_CHUNK = 256 * 1024
_CACHE = 64 * MIB
_DIGEST = re.compile(r"[0-9a-f]{64}")


class _Meta(msgspec.Struct):
    """An object's entry, as NATS' object stores write it."""

    name: str
    bucket: str
    nuid: str
    size: int
    mtime: str
    chunks: int
    digest: str
    options: dict[str, Any] = {}


class Blobs:
    """The blob store.

    Args:
        connection, store, reader: of this process.
        settings: sizes and ages.
    """

    def __init__(
        self, connection: Connection, store: Store, reader: DirectReader, settings: Settings
    ) -> None:
        self._store = store
        self._reader = reader
        self._settings = settings
        self._chunk = min(_CHUNK, connection.max_payload - 4096)
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached = 0
        self._until: dict[str, float] = {}  # for what is cached: when its age has to be looked at again

    async def put(self, content: bytes) -> str:
        """Store content unless it is there; return its digest (64 hex digits).

        Raises:
            ValueTooLarge: above ``settings.value_limit``.
        """
        self._settings.check_value_size(len(content))
        digest = hashlib.sha256(content).hexdigest()
        if time.time() >= self._until.get(digest, 0.0):
            stored_at = await self._stored_at(digest)
            if not stored_at or time.time() - stored_at >= self._fresh_for:
                await self._write(digest, content)
                stored_at = time.time()
            self._remember(digest, content)
            if digest in self._cache:
                self._until[digest] = stored_at + self._fresh_for
        return digest

    @property
    def _fresh_for(self) -> float:
        """Seconds after which content that is put again is stored again, so that it lasts."""
        return self._settings.blob_max_age / 2 or math.inf

    async def get(self, digest: str) -> bytes:
        """The content of a digest.

        Raises:
            ValueMissing: it is not there any more, or damaged.
        """
        if not _DIGEST.fullmatch(digest):
            raise ValueMissing(f"{digest[:80]!r} refers to no value: it is no digest", digest=digest[:80])
        cached = self._cache.get(digest)
        if cached is not None:
            self._cache.move_to_end(digest)
            return cached
        for wait in (*_LAGGING, None):
            content = await self._read(digest)
            if content is not None:
                self._remember(digest, content)
                return content
            if wait is not None:
                await asyncio.sleep(wait)
        raise ValueMissing(
            f"the value {digest[:12]}.. is not in bucket {BLOBS_BUCKET} any more: it is kept for "
            f"{self._settings.blob_max_age:.0f} s (setting blob_max_age)",
            digest=digest,
        )

    async def _read(self, digest: str) -> bytes | None:
        """What the server that answers has of it, if that is all."""
        found = await self._meta(digest)
        if found is None:
            return None
        stored = await self._reader.read(_STREAM, _chunks(found[0].nuid))
        content = b"".join(chunk.body for chunk in stored)
        return content if hashlib.sha256(content).hexdigest() == digest else None

    async def _stored_at(self, digest: str) -> float:
        """When it was last stored, in unix seconds; 0 if it is not there."""
        meta = await self._meta(digest)
        return meta[1] if meta else 0.0

    async def _meta(self, digest: str) -> tuple[_Meta, float] | None:
        stored = await self._reader.last(_STREAM, _entry(digest))
        return (msgspec.json.decode(stored.body, type=_Meta), stored.at) if stored else None

    async def _write(self, digest: str, content: bytes) -> None:
        nuid = new_id()  # of its own for every writer, so that two at once do not mix their chunks
        chunks = [content[i : i + self._chunk] for i in range(0, len(content), self._chunk)]
        heads = [H.encode([(H.MESSAGE_ID, f"{nuid}.{number}")]) for number in range(len(chunks))]
        await asyncio.gather(
            *(self._store.stored(_chunks(nuid), *one) for one in zip(chunks, heads, strict=True))
        )
        sha = base64.urlsafe_b64encode(bytes.fromhex(digest)).decode()
        meta = _Meta(
            name=digest,
            bucket=BLOBS_BUCKET,
            nuid=nuid,
            size=len(content),
            mtime=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            chunks=len(chunks),
            digest=f"SHA-256={sha}",
        )
        # Only the entry makes the object readable: written last, it stands for all of its chunks.
        await self._store.stored(
            _entry(digest), msgspec.json.encode(meta), H.encode([("Nats-Rollup", "sub")])
        )

    def _remember(self, digest: str, content: bytes) -> None:
        if digest in self._cache or len(content) > _CACHE // 4:
            return
        self._cache[digest] = content
        self._cached += len(content)
        while self._cached > _CACHE:
            evicted, gone = self._cache.popitem(last=False)
            self._cached -= len(gone)
            self._until.pop(evicted, None)


def _chunks(nuid: str) -> str:
    return f"$O.{BLOBS_BUCKET}.C.{nuid}"


def _entry(digest: str) -> str:
    name = base64.urlsafe_b64encode(digest.encode()).decode()
    return f"$O.{BLOBS_BUCKET}.M.{name}"
