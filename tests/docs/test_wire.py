"""docs/protocol.md, held against what really travels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.client import Client as Plain
from nats.aio.msg import Msg
from tests.docs.pages import DOCS, tables

import callboard
from callboard import agent, method, tool, workflow
from callboard.actors.declared import declaration
from callboard.actors.host import Host
from callboard.infra.settings import Settings

PAGE = DOCS / "protocol.md"
LARGE = 200_000
_fails: list[int] = []


@tool(retries=1, backoff=0.01)
async def once_more(size: int) -> bytes:
    """Fails the first time; then gives something large."""
    if not _fails:
        _fails.append(1)
        raise ValueError("not yet")
    return b"x" * size


@agent
class Measurer:
    """Calls others."""

    @method
    async def length(self, content: bytes) -> int:
        """Ask a tool."""
        return await length_of(content)


@tool
async def length_of(content: bytes) -> int:
    """How long it is."""
    return len(content)


@workflow
async def measure(size: int) -> int:
    """Has all that a call can have: dependencies, blobs, retries, nesting, and a branch."""
    return await Measurer.length(once_more(size).arg)


@pytest.fixture
async def board(nats_url: str) -> AsyncIterator[str]:
    """A server with a host of the actors above."""
    declared = [declaration(one) for one in (once_more, Measurer, length_of, measure)]
    host = Host([one for one in declared if one is not None], Settings(nats_url=nats_url))
    await host.start()
    yield nats_url
    await host.stop()


@pytest.fixture
async def wire(board: str) -> AsyncIterator[Plain]:
    """A plain connection."""
    client = await nats.connect(board)
    yield client
    await client.close()


class Seen:
    """Everything that was published to some subjects."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []

    async def take(self, message: Msg) -> None:
        """A message has come."""
        self.messages.append(message)

    def headers(self, subject: str) -> list[dict[str, str]]:
        """The headers of all messages whose subject begins so."""
        return [dict(m.headers or {}) for m in self.messages if m.subject.startswith(subject)]


async def test_headers_are_on_the_messages_that_the_page_names(board: str, wire: Plain) -> None:
    """What is said to be always there is, what is said to be never there is not, nothing else is."""
    seen = Seen()
    await wire.subscribe("cb.>", cb=seen.take)
    await wire.flush()
    async with callboard.connect(board) as client:
        run = await client.submit("measure", {"size": LARGE}, session="s1", deadline=30.0, priority=2)
        assert await client.result(run, timeout=30) == LARGE
    await wire.flush()

    rows = tables(PAGE, "Headers")[0].records()
    for kind, subject in (("call", "cb.call."), ("request", "cb.request.")):
        possible = {row["header"] for row in rows if row[kind] != "never"}
        always = {row["header"] for row in rows if row[kind] == "always"}
        found = seen.headers(subject)
        assert found
        for headers in found:
            assert always <= set(headers) <= possible
    met = {name for headers in seen.headers("cb.call.") for name in headers}
    assert {"Cb-Session", "Cb-Deadline", "Cb-Priority", "Cb-Deps", "Cb-Blobs", "Cb-Path"} <= met

    (timer,) = seen.headers("cb.timer.")
    assert {"Nats-Schedule", "Nats-Schedule-Target", "Cb-Attempt"} <= set(timer)
    (done,) = seen.headers(f"cb.run.{run}.done")
    assert {"Nats-Expected-Last-Subject-Sequence", "Nats-Expected-Last-Subject-Sequence-Subject"} <= set(done)
    repeated = seen.headers(f"cb.journal.{run}.")
    assert all({"Nats-Sequence", "Nats-Last-Sequence"} <= set(headers) for headers in repeated)


@pytest.mark.usefixtures("board")
async def test_a_request_without_any_header(wire: Plain) -> None:
    """JSON is seen from its first byte; the run gets an id of the server's making."""
    seen = Seen()
    await wire.subscribe("cb.journal.*.done", cb=seen.take)
    await wire.flush()
    waiting = await wire.subscribe("cb.journal.*.done")
    accepted = await wire.request("cb.request.measure", b'{"size": "three"}', timeout=30)
    assert msgspec.json.decode(accepted.data)["stream"] == "REQUESTS"
    done = msgspec.json.decode((await waiting.next_msg(30)).data)
    assert (done["status"], done["error"]["code"]) == ("failed", "invalid_arguments")


@pytest.mark.usefixtures("board")
async def test_the_outcome_can_be_read_later(wire: Plain) -> None:
    """Who was not there finds the last message of ``cb.run.<id>.done``; cancelling works as the page says."""
    waiting = await wire.subscribe("cb.journal.mine.done")
    await wire.publish("cb.run.mine.signal", msgspec.msgpack.encode({"name": "cancel", "reason": "mine"}))
    await wire.jetstream().publish("cb.request.measure", b'{"size": 1}', headers={"Nats-Msg-Id": "mine"})
    await waiting.next_msg(30)
    stored = await wire.jetstream().get_last_msg("RUNS", "cb.run.mine.done")
    done: dict[str, Any] = msgspec.json.decode(stored.data or b"")
    assert (done["status"], done["error"]["fields"]["reason"]) == ("cancelled", "mine")
