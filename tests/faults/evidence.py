"""What is left after a scenario, read by plain nats-py: journals, streams, dead letters, summaries."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
import nats
from nats.aio.client import Client
from nats.js.errors import NotFoundError
from tests.faults import ledger
from tests.faults.checker import Accepted, Entry, Evidence

from callboard.infra.messages.dead import DeadLetter
from callboard.infra.messages.run import Done, Owner, Result, RunSummary

WORK = ("CALLS", "REQUESTS")
STUCK = 60.0
"""Seconds after which the server never answers."""
_AT_ONCE = 200
T = TypeVar("T")
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
    client = await nats.connect(url, allow_reconnect=False, connect_timeout=int(STUCK))
    try:
        yield client
    finally:
        await client.close()


async def read(client: Client, stream: str, subject: str = "") -> list[_Message]:
    """All messages of a stream, or those whose subject begins so.

    By asking for each: a consumer would not hand over what has the headers of a message of the server's.
    """
    found: list[_Message] = []
    with contextlib.suppress(NotFoundError):
        state = (await client.jetstream().stream_info(stream)).state
        for first in range(state.first_seq, state.last_seq + 1, _AT_ONCE):
            some = range(first, min(first + _AT_ONCE, state.last_seq + 1))
            answers = await asyncio.gather(*(_get(client, stream, sequence) for sequence in some))
            found += [one for one in answers if one is not None and one.subject.startswith(subject)]
    return found


async def _get(client: Client, stream: str, sequence: int) -> _Message | None:
    query = json.dumps({"seq": sequence}).encode()
    answer = json.loads((await client.request(f"$JS.API.STREAM.MSG.GET.{stream}", query, timeout=STUCK)).data)
    if "message" not in answer:
        return None  # deleted
    message = answer["message"]
    lines = base64.b64decode(message.get("hdrs", "")).decode("utf-8", "replace").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if ": " in line)
    at = datetime.fromisoformat(f"{message['time'][:19]}+00:00").timestamp()
    at += float(f"0.{message['time'][20:].rstrip('Z') or 0}")
    return _Message(message["subject"], sequence, at, headers, base64.b64decode(message.get("data", "")))


async def left(client: Client, *streams: str) -> dict[str, int]:
    """Messages in the streams that should drain, or in these, by subject."""
    js = client.jetstream(timeout=STUCK)
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
    run, kind, *_ = [*message.subject.split(".")[2:], ""]
    decoded: Any = None
    shape = _KINDS.get(kind)
    if shape is not None:
        as_json = message.headers.get("Content-Type") == "application/json"
        decode = msgspec.json.decode if as_json else msgspec.msgpack.decode
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            decoded = decode(message.data, type=shape)
    return Entry(run, kind, message.sequence, message.at, decoded)


def _counting(messages: Iterable[_Message]) -> list[Entry]:
    """Journals as the protocol reads them: an outcome that is held counts in the place of its ack, if at all."""
    found: list[Entry] = []
    held: dict[str, Entry] = {}
    for message in messages:
        entry = _entry(message)
        if isinstance(entry.body, Result) and entry.body.commit:
            parent = message.subject.removeprefix(f"cb.run.{entry.run}.result").removeprefix(".") or "-"
            held[f"cb.run.{entry.run}.commit.{parent}.{entry.body.commit}"] = entry
        elif entry.kind != "commit":
            found.append(entry)
        elif (outcome := held.pop(message.subject, None)) is not None and "error" not in json.loads(
            message.data
        ):
            found.append(outcome._replace(sequence=message.sequence, at=message.at))
    return found


def _decoded(messages: list[_Message], shape: type[T]) -> list[tuple[str, T]]:
    """With their subjects; what is none was put there by somebody else."""
    found = []
    for message in messages:
        with contextlib.suppress(msgspec.DecodeError, RecursionError):
            found.append((message.subject, msgspec.msgpack.decode(message.data, type=shape)))
    return found


async def gather(url: str, accepted: list[Accepted], entries: list[Any]) -> Evidence:
    """Read everything there is to know."""
    async with connected(url) as client:
        runs = await read(client, "RUNS")
        dead = await read(client, "DEAD")
        summaries = await read(client, "KV_cb_runs")
        counts = await left(client)
    return Evidence(
        accepted=accepted,
        journal=_counting(runs),
        ledger=list(entries),
        left=counts,
        dead=[letter for _, letter in _decoded(dead, DeadLetter)],
        summaries={name.rpartition(".")[2]: summary for name, summary in _decoded(summaries, RunSummary)},
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
            for message in await read(client, "RUNS", f"cb.run.{run}."):
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
        held = f"held for {body.commit}" if body.commit else ""
        return f"{body.future.partition(':')[2]}~{body.attempt} of {body.call} by {body.host} {error}{held}"
    if isinstance(body, Owner):
        return f"{body.driver} epoch {body.epoch} request {body.request}"
    return body.status if isinstance(body, Done) else ""
