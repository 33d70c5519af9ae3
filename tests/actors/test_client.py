"""The client by itself: what it makes of what it hears."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec
import pytest
from tests.support.board import Board
from tests.support.waiting import SOON, eventually, until

from callboard import ManagedList, agent, connect_sync, method, tool, workflow
from callboard.actors.client import Client
from callboard.actors.sync_client import SyncClient
from callboard.infra import headers as H
from callboard.infra.errors import ClientClosed, ResultTimeout
from callboard.infra.messages.control import RunCalls

HELD: list[str] = []
GATES: dict[str, asyncio.Event] = {}


class Everything(msgspec.Struct):
    """Types for which JSON and msgpack have different words."""

    raw: bytes
    table: dict[int, bytes]
    at: datetime
    id: UUID
    price: Decimal


WHOLE = Everything(b"\x00\xff", {1: b"one"}, datetime(2026, 1, 31, tzinfo=UTC), UUID(int=7), Decimal("1.50"))


@workflow
async def everything() -> Everything:
    """Gives one of each."""
    return WHOLE


@tool(concurrency=1)
async def hold(name: str) -> None:
    """Wait for the gate."""
    HELD.append(name)
    await GATES[name].wait()


@workflow
async def holds() -> None:
    """Two calls at once, for one slot."""
    await asyncio.gather(hold("a"), hold("b"))


async def test_what_runs_now_is_asked_of_the_hosts(board: Board) -> None:
    """Each tells of the run's calls that it has: that it runs, that wait there, that it waits for itself."""
    HELD.clear()
    GATES.update(a=asyncio.Event(), b=asyncio.Event())
    driver = await board.host(holds)
    first = await board.host(hold)
    client = await board.client()
    run, other = await client.submit("holds"), await client.submit("everything")
    await until(lambda: HELD)

    async def both() -> list[RunCalls]:
        told = {one.host: one for one in await client.running(run, 0.05)}
        return [told[first.id], told[driver.id]] if len(told) == 2 and told[first.id].calls else []

    told, made = await eventually(both)
    assert (made.calls, {call.call for call in made.sent}) == ([], {"hold.call"})
    assert [call.executor for call in made.sent] == ["", ""]
    assert all(0 < call.waited < SOON for call in made.sent)
    begun = [call for call in told.calls if call.took is not None]
    assert (told.host, [call.call for call in begun]) == (first.id, ["hold.call"])
    assert {call.future.partition(":")[0] for call in told.calls} == {run}
    assert await client.running(other, 0.05) == []
    second = await board.host(hold)
    await until(lambda: len(HELD) == 2)

    async def on_two() -> bool:
        return {one.host for one in await client.running(run, 0.2) if one.calls} == {first.id, second.id}

    await eventually(on_two)
    for gate in GATES.values():
        gate.set()
    await client.result(run, SOON)

    async def nowhere() -> bool:
        return await client.running(run, 0.05) == []

    await eventually(nowhere)  # the last host may not have heard yet that its outcome is stored


@pytest.mark.parametrize("kind", [H.JSON, H.MSGPACK])
async def test_a_typed_result_is_the_same_in_either_encoding(kind: str, board: Board) -> None:
    """A request in JSON has its outcome in JSON; who asks for a type gets it from there too."""
    await board.host(everything)
    node, client = await board.node(), await board.client()
    body = b"{}" if kind == H.JSON else b"\x80"
    head = H.encode([(H.RUN, "r1"), (H.CONTENT_TYPE, kind)])
    await node.store.stored("cb.request.everything", body, head)
    assert await client.result("r1", SOON, type=Everything) == WHOLE


@tool
async def page(size: int) -> str:
    """So much text."""
    return "x" * size


@workflow
async def pages(sizes: list[int]) -> list[str]:
    """Large parts, passed on unread."""
    return await asyncio.gather(*(page(size) for size in sizes))


@pytest.mark.parametrize(
    ("sizes", "inline"), [([100_000], True), ([100_000, 100_000], True), ([200_000, 200_000], False)]
)
async def test_large_results_for_who_reads_json(board: Board, sizes: list[int], inline: bool) -> None:  # noqa: FBT001 - a case
    """All of it is there up to a third of what a message may have; else nothing of it, and its digest."""
    await board.host(page, pages)
    client = await board.client()
    run = await client.submit(pages.name, {"sizes": sizes}, as_json=True)
    assert await client.result(run, SOON) == ["x" * size for size in sizes]
    (entry,) = await board.entries(run, "done")
    told = json.loads(entry.body)
    assert told["value"] == (["x" * size for size in sizes] if inline else None)
    assert len(told.get("blobs", [])) == (0 if inline else 1)


@agent
class Clerk:
    """Keeps what it was told."""

    notes: ManagedList[str]

    @method
    async def note(self, text: str) -> int:
        """Keep it."""
        self.notes.append(text)
        return len(self.notes)


@workflow
async def noting(text: str) -> int:
    """Have it kept."""
    return await Clerk.note(text)


async def test_the_sync_client_has_all_that_the_async_one_has(board: Board) -> None:
    """Whatever can be asked for, also what is a part of it."""
    await board.host(noting, Clerk)

    def use() -> None:
        with connect_sync(settings=board.settings()) as client:
            run = client.submit("noting", {"text": "hello"}, session="anna")
            assert client.done(run, SOON).status == "completed"
            assert client.run("noting", {"text": "again"}, session="anna", type=float, timeout=10) == 2.0
            assert [state.session for state in client.state.all("Clerk")] == ["anna"]
            assert [list(commit.changed) for commit in client.state.history("Clerk", "anna")]
            document = client.state.export("Clerk", "anna")
            assert client.state.show("Clerk", "anna").attributes == {"notes": ["hello", "again"]}
            client.state.delete("Clerk", "anna")
            assert client.state.all("Clerk") == []
            client.state.import_(document)
            assert list(client.tokens(run)) == []
            assert [one.problem for one in client.check(noting, ended=1)] == [""]
            assert client.admit("noting", 5.0) is not None
            assert [limit.workflow for limit in client.admissions()] == ["noting"]

    await asyncio.to_thread(use)
    lacking = {name for name in dir(Client) if not name.startswith("_") and not hasattr(SyncClient, name)}
    assert lacking == {"close", "node"}


async def test_a_client_that_is_not_open(board: Board) -> None:
    """A typed error at once, before it was opened and after it was closed, and not a wait without end."""
    client = Client(board.settings())
    with pytest.raises(ClientClosed, match="async with connect"):
        await client.submit("everything")
    async with client:
        assert await client.runs() == []
    with pytest.raises(ClientClosed):
        await client.submit("everything")
    with pytest.raises(ClientClosed):
        await client.result("some-run")


def test_a_sync_client_that_is_not_open(nats_url: str) -> None:
    """The same; one that was closed may be opened again."""
    client = connect_sync(nats_url)
    for _ in range(2):
        with pytest.raises(ClientClosed, match="with connect_sync"):
            client.submit("everything")
        with client:
            assert client.runs() == []


async def test_waiting_for_a_run_that_nobody_has_submitted(board: Board) -> None:
    """It does not go on, and the error says so; one that waits for a driver does."""
    client = await board.client()
    with pytest.raises(ResultTimeout, match=r"nothing is known of run nobody after 0\.1 s"):
        await client.result("nobody", 0.1)
    run = await client.submit("everything")
    with pytest.raises(ResultTimeout, match="it goes on"):
        await client.result(run, 0.1)
    assert (await client.status(run)).session == run
