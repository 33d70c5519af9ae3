"""Large values: stored once under their hash, readable by anybody, typed errors when they are not there."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time

import nats
import pytest
from nats.js.api import ObjectMeta
from tests.state.conftest import Join, Process

from callboard.infra.errors import ValueMissing, ValueTooLarge
from callboard.infra.settings import MIB, Settings
from callboard.state import blobs as blobs_module

STREAM = "OBJ_cb_blobs"


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that nothing compresses, always the same."""
    return random.Random(seed).randbytes(size)


async def held(process: Process) -> tuple[int, int]:
    """Messages and bytes in the blobs' stream."""
    state = (await process.topology.api(f"STREAM.INFO.{STREAM}"))["state"]
    return state["messages"], state["bytes"]


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3 * MIB + 17])
async def test_what_is_put_can_be_got_elsewhere(process: Process, join: Join, size: int) -> None:
    """Another process reads the same bytes by the digest, however many chunks they make."""
    content = noise(size)
    digest = await process.blobs.put(content)
    assert digest == hashlib.sha256(content).hexdigest()
    other = await join()
    assert await other.blobs.get(digest) == content


async def test_a_value_of_20_mb(process: Process, join: Join) -> None:
    """Far above what one message carries, and above what one read returns."""
    content = noise(20 * MIB)
    digest = await process.blobs.put(content)
    other = await join()
    assert await other.blobs.get(digest) == content


async def test_the_same_content_is_stored_once(process: Process, join: Join) -> None:
    """Whoever puts it again, in this process or another, adds nothing."""
    content = noise(2 * MIB)
    digest = await process.blobs.put(content)
    before = await held(process)
    assert await process.blobs.put(content) == digest
    assert await (await join()).blobs.put(content) == digest
    assert await held(process) == before


async def test_what_is_kept_for_ever_is_stored_once(join: Join) -> None:
    """An age of 0 is none."""
    process = await join(blob_max_age=0, journal_max_age=0)
    content = noise(MIB)
    await process.blobs.put(content)
    before = await held(process)
    await process.blobs.put(content)
    await (await join(blob_max_age=0, journal_max_age=0)).blobs.put(content)
    assert before == await held(process) != (0, 0)


async def test_two_that_put_the_same_at_once_do_not_mix(process: Process, join: Join) -> None:
    """Each writes its own chunks; what can be read afterwards is whole."""
    content = noise(3 * MIB)
    others = [await join() for _ in range(3)]
    digests = await asyncio.gather(*(other.blobs.put(content) for other in others))
    assert len(set(digests)) == 1
    assert await process.blobs.get(digests[0]) == content


async def test_a_value_above_the_limit_is_refused_before_anything_is_sent(join: Join) -> None:
    """A typed error with both sizes."""
    process = await join(value_limit=1000)
    with pytest.raises(ValueTooLarge) as caught:
        await process.blobs.put(b"x" * 1001)
    assert caught.value.fields == {"size": 1001, "limit": 1000}
    assert (await held(process))[0] == 0


async def test_a_digest_that_nobody_has_stored(process: Process) -> None:
    """A typed error names it."""
    digest = hashlib.sha256(b"never").hexdigest()
    with pytest.raises(ValueMissing, match="blob_max_age") as caught:
        await process.blobs.get(digest)
    assert caught.value.fields["digest"] == digest


@pytest.mark.parametrize("digest", ["", "zz", "*", ">", "a b", "é" * 64, "A" * 64, "a" * 63])
async def test_what_is_no_digest_is_missing_at_once(process: Process, digest: str) -> None:
    """A reference comes from somebody else's header: a typed error, and no waiting for the server."""
    with pytest.raises(ValueMissing):
        async with asyncio.timeout(2):
            await process.blobs.get(digest)


async def test_a_damaged_value_is_missing(process: Process, join: Join) -> None:
    """What does not have its hash is not given out: here one of its chunks has gone."""
    digest = await process.blobs.put(noise(MIB))
    await process.topology.api(f"STREAM.MSG.DELETE.{STREAM}", {"seq": 2})
    with pytest.raises(ValueMissing):
        await (await join()).blobs.get(digest)


async def test_reading_leaves_no_consumer_behind(process: Process, join: Join) -> None:
    """A thousand reads do not exhaust the stream's consumers."""
    digest = await process.blobs.put(noise(MIB))
    await (await join()).blobs.get(digest)
    info = await process.topology.api(f"STREAM.INFO.{STREAM}")
    assert info["state"]["consumer_count"] == 0


async def test_any_nats_client_can_read_it(process: Process, nats_url: str) -> None:
    """It is a NATS object store: nats-py's own API gives the object under its digest, hash checked."""
    content = noise(MIB + 5)
    digest = await process.blobs.put(content)
    client = await nats.connect(nats_url)
    store = await client.jetstream().object_store("cb_blobs")
    found = await store.get(digest)
    assert found.data == content
    assert isinstance(found.info.meta, ObjectMeta)
    assert [entry.name for entry in await store.list()] == [digest]
    await client.close()


async def test_what_is_still_used_is_stored_anew_before_it_gets_too_old(
    join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Put again after half of its permitted age, it will stay for the whole age again."""
    content = noise(MIB)
    digest = await (await join()).blobs.put(content)
    later = time.time() + 0.6 * Settings().blob_max_age
    process = await join()
    before = (await held(process))[0]
    monkeypatch.setattr(time, "time", lambda: later)
    await process.blobs.put(content)
    assert (await held(process))[0] > before
    assert await (await join()).blobs.get(digest) == content


async def test_a_long_lived_process_notices_that_a_value_has_expired(
    process: Process, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it once stored the value does not mean that it is there: after its age it stores it again."""
    content = noise(MIB)
    digest = await process.blobs.put(content)
    await process.topology.api(f"STREAM.PURGE.{STREAM}")
    later = time.time() + 1.1 * Settings().blob_max_age
    monkeypatch.setattr(time, "time", lambda: later)
    await process.blobs.put(content)
    assert await (await join()).blobs.get(digest) == content


async def test_what_was_read_is_kept_in_memory(process: Process, join: Join) -> None:
    """A second read of the same value asks nobody: it works though the value has gone."""
    digest = await process.blobs.put(noise(MIB))
    other = await join()
    first = await other.blobs.get(digest)
    await process.topology.api(f"STREAM.PURGE.{STREAM}")
    assert await other.blobs.get(digest) == first


async def test_the_memory_for_values_is_bounded(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used go first; a value that is large itself is not kept."""
    monkeypatch.setattr(blobs_module, "_CACHE", 4000)
    digests = [await process.blobs.put(noise(1000, seed)) for seed in range(4)]
    await process.blobs.get(digests[0])
    await process.blobs.put(noise(1000, 9))
    assert digests[0] in process.blobs._cache
    assert digests[1] not in process.blobs._cache
    large = await process.blobs.put(noise(1001))
    assert large not in process.blobs._cache
    assert sum(map(len, process.blobs._cache.values())) <= 4000
