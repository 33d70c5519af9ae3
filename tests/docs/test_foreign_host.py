"""A host written from docs/protocol.md alone: nothing of Callboard serves the calls, only a NATS client."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.client import Client as Plain
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

import callboard
from callboard import tool, workflow
from callboard.actors.host import Host
from callboard.infra.settings import Settings

ACTOR = "shout"
MSGPACK = msgspec.msgpack


@tool
async def shout(text: str, more: list[str] | None = None) -> str:
    """Declared for the workflow only: no Callboard host runs it here."""
    raise NotImplementedError


@tool
async def repeat(text: str, times: int) -> str:
    """An ordinary tool, whose large result becomes a reference."""
    return text * times


@workflow
async def loudly(text: str, times: int) -> str:
    """Passes a value from a Callboard host to the foreign one."""
    return await shout(repeat(text, times).arg)


@workflow
async def growing(count: int) -> list[str]:
    """Passes a long list twice, most of which the run has stored already."""
    texts = [await repeat(f"{number}-", 1000) for number in range(count)]
    own = [f"{number} {'y' * 200}" for number in range(200)]
    return [await shout(str(time), [*texts, *own]) for time in range(3)]


class ForeignHost:
    """Serves ``shout``.

    Args:
        client: a plain connection.
    """

    def __init__(self, client: Plain) -> None:
        self.js: JetStreamContext = client.jetstream()
        self.ran = self.woven = 0

    async def serve(self) -> None:
        """Pull from the three bands, one call at a time, the most urgent first."""
        pulls = []
        for band in range(3):
            config = ConsumerConfig(
                durable_name=f"{ACTOR}_any_{band}",
                filter_subject=f"cb.call.{ACTOR}.any.{band}",
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=30,
                max_ack_pending=-1,
            )
            await self.js.add_consumer("CALLS", config)
            pulls.append(await self.js.pull_subscribe_bind(config.durable_name, "CALLS"))
        while True:
            for pull in pulls:
                try:
                    (message,) = await pull.fetch(1, timeout=0.1)
                except TimeoutError:
                    continue
                await self.handle(message)
                break

    async def handle(self, message: Msg) -> None:
        """Steps 2 to 6 of the page."""
        headers = message.headers or {}
        future = headers["Cb-Future"]
        run, _, path = future.partition(":")
        parent = path.rpartition(".")[0].replace(".", "-").replace("/", "_").replace("~", "+")
        subject = f"cb.run.{run}.{f'result.{parent}' if parent else 'result'}"
        if message.metadata.num_delivered > 1 and await self.has_result(subject, future):
            await message.ack()
            return
        body = message.data
        if "Cb-Woven" in headers:
            self.woven += 1
            body = await self.whole(body, headers["Cb-Woven"], run)
        body = await self.with_blobs(body, headers.get("Cb-Blobs", ""))
        self.ran += 1
        value = self.shout(**MSGPACK.decode(body))
        result = {
            "future": future,
            "call": f"{ACTOR}.{headers['Cb-Method']}",
            "value": value,
            "host": "foreign",
        }
        await self.js.publish(subject, MSGPACK.encode(result))
        await message.ack_sync()

    async def has_result(self, subject: str, future: str) -> bool:
        """Whether the journal has an outcome of this future; one of its subject is enough here."""
        try:
            stored = await self.js.get_last_msg("RUNS", subject)
        except NotFoundError:
            return False
        found: dict[str, Any] = MSGPACK.decode(stored.data or b"")
        return bool(found["future"] == future)

    async def with_blobs(self, body: bytes, digests: str) -> bytes:
        """The body with the content of each reference in its place."""
        store = await self.js.object_store("cb_blobs")
        for digest in filter(None, digests.split(",")):
            content = (await store.get(digest)).data or b""
            assert hashlib.sha256(content).hexdigest() == digest
            body = body.replace(b"\xc7\x20\x01" + bytes.fromhex(digest), content)
        return body

    async def whole(self, form: bytes, where: str, run: str) -> bytes:
        """The texts of a woven form, one after the other; of one that refers to no state."""
        if where != "1":
            form = await self.blob(where)
        texts: list[bytes] = []
        for part in MSGPACK.decode(form):
            if isinstance(part, bytes):
                texts.append(part)
            elif len(part) == 1:
                texts.append(await self.whole(b"", part[0].hex(), run))
            else:
                sequence, start, length = part
                entry = await self.js.get_msg("RUNS", sequence)
                assert (entry.subject or "").startswith(f"cb.run.{run}.")
                texts.append((entry.data or b"")[start : start + length])
        return b"".join(texts)

    async def blob(self, digest: str) -> bytes:
        """The content of a digest."""
        store = await self.js.object_store("cb_blobs")
        return (await store.get(digest)).data or b""

    @staticmethod
    def shout(text: str, more: list[str] | None = None) -> str:
        """What it is all about."""
        size = f" {sum(len(one) for one in more)}" if more else ""
        return f"{text.upper()}!{size}"


@pytest.fixture
async def foreign(nats_url: str) -> AsyncIterator[ForeignHost]:
    """The foreign host, beside a Callboard host that does all else."""
    host = Host([repeat, loudly, growing], Settings(nats_url=nats_url))
    await host.start()
    client = await nats.connect(nats_url)
    made = ForeignHost(client)
    serving = asyncio.create_task(made.serve())
    yield made
    while not serving.done():  # a cancellation that meets an answer gets lost in the plain client
        serving.cancel()
        await asyncio.wait([serving], timeout=0.1)
    await client.close()
    await host.stop(grace=0.1)
    assert serving.cancelled()


async def test_serves_calls(foreign: ForeignHost, nats_url: str) -> None:
    """A value goes in, another comes out."""
    async with callboard.connect(nats_url) as client:
        assert await client.run("loudly", {"text": "ho", "times": 2}, timeout=30) == "HOHO!"


async def test_reads_large_values(foreign: ForeignHost, nats_url: str) -> None:
    """What comes as a reference is read from the object store."""
    async with callboard.connect(nats_url) as client:
        result = await client.run("loudly", {"text": "x", "times": 100_000}, timeout=30)
    assert result == f"{'X' * 100_000}!"


async def test_reads_woven_forms(foreign: ForeignHost, nats_url: str) -> None:
    """Long arguments refer to the run's journal, and to pieces that were met before."""
    async with callboard.connect(nats_url) as client:
        result = await client.run("growing", {"count": 30}, timeout=30)
    size = sum(1000 * len(f"{n}-") for n in range(30)) + sum(len(f"{n} ") + 200 for n in range(200))
    assert result == [f"{time}! {size}" for time in range(3)]
    assert foreign.woven == 3


async def test_runs_no_call_that_has_its_outcome(foreign: ForeignHost, nats_url: str) -> None:
    """Killed between the result and the ack, it finds on redelivery that there is nothing to do."""
    acked = asyncio.Event()
    handle = foreign.handle

    async def forget_to_ack(message: Msg) -> None:
        if message.metadata.num_delivered == 1:
            body = await foreign.with_blobs(message.data, "")
            future = (message.headers or {})["Cb-Future"]
            value = foreign.shout(**MSGPACK.decode(body))
            result = {"future": future, "call": f"{ACTOR}.call", "value": value}
            await foreign.js.publish(f"cb.run.{future.partition(':')[0]}.result", MSGPACK.encode(result))
            await message.nak()
            return
        await handle(message)
        acked.set()

    foreign.handle = forget_to_ack  # type: ignore[method-assign]
    async with callboard.connect(nats_url) as client:
        assert await client.run("loudly", {"text": "a", "times": 1}, timeout=30) == "A!"
    async with asyncio.timeout(20):
        await acked.wait()
    assert foreign.ran == 0
