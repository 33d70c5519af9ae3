"""Why a call ran where and when it did."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.board import Board
from tests.support.waiting import eventually, until

from callboard import ManagedList, agent, method, signal, tool, workflow
from callboard.actors.entries import STREAM
from callboard.controller.decisions import Decisions
from callboard.controller.why import Why, why
from callboard.infra import subjects
from callboard.infra.errors import FutureUnknown
from callboard.infra.messages.policy import Decision


@tool
async def add(number: int) -> int:
    """One more."""
    return number + 1


@tool
async def stays() -> None:
    """Waits for a signal that nobody sends here."""


@agent
class Notes:
    """Keeps what it is told."""

    kept: ManagedList[str]

    @method
    async def keep(self, text: str) -> int:
        """How many there are."""
        self.kept.append(text)
        return len(self.kept)


@workflow
async def adding(number: int) -> int:
    """One call."""
    return await add(number)


@workflow
async def noting(text: str) -> int:
    """Two calls."""
    await Notes.keep(text)
    return await Notes.keep(text)


@workflow
async def never() -> None:
    """A call that nobody serves."""
    await stays()
    await signal("x")


def text(found: Why) -> str:
    """The answer in one line."""
    return " | ".join(found.lines())


async def test_by_whose_decision(board: Board) -> None:
    """The policies behind lane and priority, with their reasons."""
    driver, host = await board.host(adding), await board.host(add)
    client, node = await board.client(), await board.node()
    decisions = Decisions(node, "c-1", lambda _: None, host.caller.spawn)
    await decisions.lead(1)
    token = subjects.session_token("chat/7")
    route = Decision("route", subjects.session_route("add", token), {host.id: 1.0}, policy="a", reason="room")
    rank = Decision("priority", subjects.priority(token), value=2, policy="b", reason="it is old")
    first, second = await decisions.write([route]), await decisions.write([rank])
    await until(lambda: driver.routes.all() and len(driver.priorities))
    run = await client.submit("adding", {"number": 1}, session="chat/7")
    assert await client.result(run, 10) == 2
    found = await why(node, f"{run}:1")
    assert (found.policy, found.ranked, found.host) == (first, second, host.id)
    assert f"a has routed it to {host.id} (epoch {first}): room" in text(found)
    assert f"b gave its session priority 2 (epoch {second}): it is old" in text(found)
    await node.topology.api(f"STREAM.PURGE.{STREAM}", {"filter": subjects.decided("*")})
    assert text(await why(node, f"{run}:1")) == text(found)  # what holds is known for longer than an hour


async def test_by_hand_and_by_nobody(board: Board) -> None:
    """A route that people have set is found as long as it holds; a call without decisions says so."""
    driver, host = await board.host(adding), await board.host(add)
    client, node = await board.client(), await board.node()
    free = await client.submit("adding", {"number": 1})
    await client.result(free, 10)
    assert "no decision; whoever had a free slot first" in text(await why(node, f"{free}:1"))
    assert "nobody has decided its priority" in text(await why(node, f"{free}:1"))
    route = await client.route("add", host.id, reason="a test")
    await until(lambda: driver.routes.all() == [route])
    run = await client.submit("adding", {"number": 1})
    await client.result(run, 10)
    assert f"by hand has routed it to {host.id} (epoch {route.epoch}): a test" in text(
        await why(node, f"{run}:1")
    )
    await client.clear_route("add")
    assert f"a route of epoch {route.epoch}, of which nothing is known" in text(await why(node, f"{run}:1"))
    assert await node.reader.read(STREAM, subjects.decided("*")) == []


async def test_a_session_that_is_held(board: Board) -> None:
    """Its calls run where it is held."""
    host = await board.host(Notes)
    await board.host(noting)
    client, node = await board.client(), await board.node()
    run = await client.submit("noting", {"text": "a"}, session="chat")
    await client.result(run, 10)
    assert f"{host.id} holds session chat at this agent" in text(await why(node, f"{run}:2"))


async def test_what_was_told_is_found_among_many_reports(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a call that has its outcome, however many have come since."""
    await board.host(noting, telemetry_every=0.02)
    host = await board.host(Notes, telemetry_every=0.02)
    client, node = await board.client(), await board.node()
    runs: list[str] = []

    async def held() -> list[Why]:
        found = [await why(node, f"{run}:2") for run in runs]
        return [one for one in found if one.told.lane == host.id]

    async def one_more() -> list[Why]:
        """A call is told of only if it is open when a report is due."""
        runs.append(await client.submit("noting", {"text": "a"}, session="chat"))
        await client.result(runs[-1], 20)
        return await held()

    seen = await eventually(one_more)
    last = (await board.stream(subjects.TELEMETRY))["last_seq"]
    monkeypatch.setattr("callboard.controller.why.REPORTS", 512)
    await asyncio.gather(*(node.store.stored("cb.telemetry.nobody", b"rubbish") for _ in range(600)))
    assert (await board.stream(subjects.TELEMETRY))["last_seq"] >= last + 600
    assert {one.future for one in await held()} == {one.future for one in seen}


async def test_one_without_an_outcome(board: Board) -> None:
    """Telemetry tells of it; of what was never made nobody does."""
    await board.host(never)
    client, node = await board.client(), await board.node()
    run = await client.submit("never", {})

    async def known() -> Why | None:
        try:
            return await why(node, f"{run}:1")
        except FutureUnknown:
            return None

    found = await eventually(known)
    assert found is not None
    assert (found.call, found.told.lane, found.done) == ("stays.call", "any", False)
    assert "has no outcome yet" in text(found)
    with pytest.raises(FutureUnknown):
        await why(node, f"{run}:9")
