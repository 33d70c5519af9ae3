"""What is left after a scenario, read by plain nats-py: journals, streams, dead letters, summaries."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any, NamedTuple

import msgspec
import nats
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout
from nats.js.errors import NotFoundError
from tests.faults import ledger
from tests.faults.checker import Accepted, Entry, Evidence

from callboard.infra.messages.dead import DeadLetter
from callboard.infra.messages.run import Done, Owner, Result, RunSummary

WORK = ("CALLS", "REQUESTS")
_KINDS: dict[str, type] = {"result": Result, "done": Done, "owner": Owner}


class _Message(NamedTuple):
    subject: str
    sequence: int
    at: float
    headers: dict[str, str]
    data: bytes


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """A connection of nats-py's own."""
    client = await nats.connect(url, allow_reconnect=False)
    try:
        yield client
    finally:
        await client.close()


async def read(client: Client, stream: str, subject: str = ">") -> list[_Message]:
    """All messages of a stream whose subject matches."""
    js = client.jetstream()
    found: list[_Message] = []
    with contextlib.suppress(NotFoundError):
        subscription = await js.subscribe(subject, stream=stream, ordered_consumer=True)
        pending = (await subscription.consumer_info()).num_pending or 0
        with contextlib.suppress(NatsTimeout):
            while pending or not found:
                message = await subscription.next_msg(timeout=1.0)
                meta = message.metadata
                pending = meta.num_pending
                at = meta.timestamp.timestamp()
                headers = dict(message.headers or {})
                found.append(_Message(message.subject, meta.sequence.stream, at, headers, message.data))
                if not pending:
                    break
        await subscription.unsubscribe()
    return found


async def left(client: Client, *streams: str) -> dict[str, int]:
    """Messages in the streams that should drain, or in these, by subject."""
    js = client.jetstream()
    counts: dict[str, int] = {}
    for stream in streams or WORK:
        with contextlib.suppress(NotFoundError):
            info = await js.stream_info(stream, subjects_filter=">")
            counts |= info.state.subjects or {}
    return counts


async def drained(url: str, timeout: float, ignored: Collection[str] = ()) -> None:
    """Wait until calls and requests are all gone.

    Raises:
        AssertionError: they are not in time.
    """
    ends = time.monotonic() + timeout
    async with connected(url) as client:
        while counts := {s: n for s, n in (await left(client)).items() if s not in ignored}:
            if time.monotonic() > ends:
                text = f"{await _peek(client)}\n{await _consumers(client)}"
                raise AssertionError(f"left in the streams after {timeout} s: {counts}\n{text}")
            await asyncio.sleep(0.03)


async def _peek(client: Client) -> str:
    """What is left in the streams of work, without consuming it."""
    js = client.jetstream()
    lines: list[str] = []
    for stream in WORK:
        sequence = 0
        with contextlib.suppress(NotFoundError):
            while len(lines) < 20:
                message = await js.get_msg(stream, seq=sequence + 1, next=True, subject=">")
                sequence = message.seq or 0
                lines.append(
                    f"#{sequence} {message.subject} {message.headers} {(message.data or b'')[:80]!r}"
                )
    return "\n".join(lines)


async def redelivered(client: Client) -> dict[str, int]:
    """How many messages each consumer has delivered again."""
    js = client.jetstream()
    infos = [info for stream in WORK for info in await js.consumers_info(stream)]
    return {info.name: info.num_redelivered or 0 for info in infos}


async def _consumers(client: Client) -> str:
    js = client.jetstream()
    lines = []
    for stream in WORK:
        for info in await js.consumers_info(stream):
            if info.num_ack_pending or info.num_pending:
                lines.append(
                    f"{info.name}: {info.num_ack_pending} delivered and not acked, {info.num_pending} waiting, "
                    f"{info.num_redelivered} redelivered, {info.num_waiting} pulls"
                )
    return "\n".join(lines)


def _entry(message: _Message) -> Entry:
    _, _, run, kind, *_ = message.subject.split(".")
    decoded: Any = None
    shape = _KINDS.get(kind)
    if shape is not None:
        as_json = message.headers.get("Content-Type") == "application/json"
        decode = msgspec.json.decode if as_json else msgspec.msgpack.decode
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            decoded = decode(message.data, type=shape)
    return Entry(run, kind, message.sequence, message.at, decoded)


async def gather(url: str, accepted: list[Accepted], entries: list[Any]) -> Evidence:
    """Read everything there is to know."""
    async with connected(url) as client:
        runs = await read(client, "RUNS")
        dead = await read(client, "DEAD")
        summaries = await read(client, "KV_cb_runs")
        counts = await left(client)
    return Evidence(
        accepted=accepted,
        journal=[_entry(message) for message in runs],
        ledger=list(entries),
        left=counts,
        dead=[msgspec.msgpack.decode(message.data, type=DeadLetter) for message in dead],
        summaries={
            message.subject.rpartition(".")[2]: msgspec.msgpack.decode(message.data, type=RunSummary)
            for message in summaries
        },
    )


async def journals(url: str, runs: Iterable[str], executions: Iterable[ledger.Entry]) -> str:
    """Some journals as text, each with its executions, for the report of a failure."""
    lines = []
    async with connected(url) as client:
        for run in runs:
            story = [
                (line.at, f"{line.what} {line.future.partition(':')[2]}~{line.attempt} by {line.pid}")
                for line in executions
                if line.future.startswith(f"{run}:")
            ]
            for message in await read(client, "RUNS", f"cb.run.{run}.>"):
                entry = _entry(message)
                if entry.body is not None:
                    story.append((entry.at, f"#{entry.sequence} {entry.kind} {_brief(entry.body)}"))
            lines.append(f"run {run}")
            lines += [f"  {at:.3f} {text}" for at, text in sorted(story)]
        lines += [await _consumers(client), str(await left(client))]
    return "\n".join(lines)


def _brief(body: Any) -> str:
    if isinstance(body, Result):
        error = body.error.code if body.error else ""
        return f"{body.future.partition(':')[2]}~{body.attempt} of {body.call} by {body.host} {error}"
    if isinstance(body, Owner):
        return f"{body.driver} epoch {body.epoch} request {body.request}"
    return body.status if isinstance(body, Done) else ""
