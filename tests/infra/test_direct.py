"""Reading streams by direct get."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.infra.connection import Connection
from callboard.infra.direct import DirectReader, timestamp
from callboard.infra.errors import RequestTimeout
from callboard.infra.server import EmbeddedServer
from callboard.infra.store import Store
from callboard.infra.topology import Topology


@pytest.fixture
def reader(connection: Connection) -> DirectReader:
    """A reader on the test's connection."""
    return DirectReader(connection)


async def fill(store: Store, count: int, size: int = 0) -> None:
    """Store messages on t.0, t.1 and t.2 in turn."""
    for number in range(count):
        store.put(f"t.{number % 3}", b"%d" % number + b" " * size)
    await store.stop()


async def test_a_long_stream_is_read_whole_and_in_order(
    reader: DirectReader, store: Store, stream: str
) -> None:
    """More messages than one request takes, and more bytes, come complete."""
    await fill(store, 1500, size=5000)
    found = await reader.read(stream, ">")
    assert [int(stored.body) for stored in found] == list(range(1500))
    assert [stored.sequence for stored in found] == list(range(1, 1501))


async def test_reading_goes_on_after_a_sequence_up_to_a_limit(
    reader: DirectReader, store: Store, stream: str
) -> None:
    """Only matching subjects, only what comes after, no more than asked for."""
    await fill(store, 30)
    found = await reader.read(stream, "t.1", after=11, limit=4)
    assert [(stored.subject, stored.sequence) for stored in found] == [
        ("t.1", 14),
        ("t.1", 17),
        ("t.1", 20),
        ("t.1", 23),
    ]
    assert await reader.read(stream, "t.1", after=29) == []
    assert await reader.read(stream, "t.1", limit=0) == []
    assert await reader.read(stream, "t.none") == []


async def test_the_first_since_a_time(reader: DirectReader, store: Store, stream: str) -> None:
    """Of a subject; before all that is the first, and after all there is none."""
    before = time.time()
    for number in range(6):
        await store.stored(f"t.{number % 3}", b"")
        await asyncio.sleep(0.02)
    found = await reader.read(stream, ">")
    since = found[2].at + 0.001  # the server tells of less than a microsecond
    assert await reader.first_since(stream, ">", since) == 4
    assert await reader.first_since(stream, "t.1", since) == 5
    assert await reader.first_since(stream, ">", before - 60) == 1
    assert await reader.first_since(stream, ">", time.time() + 60) == 0


async def test_last_lasts_and_at(reader: DirectReader, store: Store, stream: str) -> None:
    """The last message of a subject, of each of many, and the one at a place."""
    before = time.time()
    await fill(store, 10)
    last = await reader.last(stream, "t.1")
    assert last is not None
    assert (last.sequence, last.body) == (8, b"7")
    assert before - 1 < last.at < time.time() + 1
    assert [stored.body for stored in await reader.lasts(stream, "t.*")] == [b"7", b"8", b"9"]
    third = await reader.at(stream, 3)
    assert third is not None
    assert third.body == b"2"
    assert await reader.last(stream, "t.none") is None
    assert await reader.at(stream, 99) is None
    assert await reader.lasts(stream, "t.none") == []


async def test_reads_run_beside_each_other(reader: DirectReader, store: Store, stream: str) -> None:
    """Answers find the read that asked for them."""
    await fill(store, 90)
    found = await asyncio.gather(*(reader.read(stream, f"t.{number % 3}") for number in range(30)))
    for number, stored in enumerate(found):
        assert [int(one.body) for one in stored] == list(range(number % 3, 90, 3))


async def test_reading_leaves_no_consumer_behind(
    reader: DirectReader, store: Store, stream: str, topology: Topology
) -> None:
    """A thousand reads would otherwise exhaust a stream's consumers."""
    await fill(store, 3)
    await reader.read(stream, ">")
    info = await topology.api(f"STREAM.INFO.{stream}")
    assert info["state"]["consumer_count"] == 0


async def test_an_answer_lost_with_the_connection_is_asked_for_again(
    reader: DirectReader, store: Store, stream: str, nats_server: EmbeddedServer, connection: Connection
) -> None:
    """A read that was under way when the server died gets its answer from the next one."""
    await fill(store, 3)
    await reader.read(stream, ">")
    await asyncio.to_thread(nats_server.kill)
    reading = asyncio.create_task(reader._get(stream, {"last_by_subj": "t.0"}, timeout=0.05))
    await asyncio.to_thread(nats_server.start)
    async with asyncio.timeout(30):
        found = await reading
    assert [stored.body for stored in found.found] == [b"0"]


async def test_a_stream_that_does_not_exist(reader: DirectReader) -> None:
    """A typed error names what did not answer."""
    with pytest.raises(RequestTimeout, match="NONE") as caught:
        await reader._get("NONE", {"last_by_subj": "t"}, timeout=0.01)
    assert caught.value.fields["subject"] == "$JS.API.DIRECT.GET.NONE"


@given(st.integers(0, 4_000_000_000), st.integers(0, 999_999_999))
def test_time_stamps_with_nine_decimals(second: int, nanoseconds: int) -> None:
    """A server's time stamp is read to the microsecond, however many decimals it has."""
    expected = second + nanoseconds / 1e9
    text = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}"
    assert abs(timestamp(f"{text.rstrip('0').rstrip('.')}Z") - expected) < 2e-6


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z"])
def test_no_time_stamp_is_zero(text: str) -> None:
    """What is none does not raise."""
    assert timestamp(text) == 0.0
