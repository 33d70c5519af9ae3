"""Migrations that policies decide."""

from __future__ import annotations

import asyncio

import msgspec
from tests.support.board import Board, instance
from tests.support.waiting import until

from callboard import Managed, agent, method, workflow
from callboard.actors.entries import STREAM
from callboard.controller.controller import Controller
from callboard.infra import subjects
from callboard.infra.messages.policy import Round

GATES: list[asyncio.Event] = []


@agent(concurrency=1)
class Desk:
    """Serves one visitor at a time, and remembers each."""

    visits: Managed[int]

    @method
    async def visit(self, wait: bool) -> int:  # noqa: FBT001 - it travels
        """Count; with ``wait``, at the gate."""
        if wait:
            await GATES[-1].wait()
        self.visits += 1
        return self.visits


@workflow
async def visit(wait: bool) -> int:  # noqa: FBT001 - it travels
    """One visit."""
    return await Desk.visit(wait)


async def test_a_session_behind_a_long_call_runs_elsewhere(board: Board) -> None:
    """With what it keeps, while the long call still runs; the decision and its reason are on record."""
    GATES[:] = [asyncio.Event()]
    await board.host(visit)
    full = await board.host(Desk, steal_after=0.0)  # else the idle host takes the session by itself
    client = await board.client()
    for session in ("long", "short"):
        await client.run("visit", {"wait": False}, session=session, timeout=30)
    long = await client.submit("visit", {"wait": True}, session="long")
    await until(lambda: instance(full, Desk).slots.busy == 1)
    short = await client.submit("visit", {"wait": False}, session="short")
    await until(lambda: len(instance(full, Desk).mailbox) == 1)
    free = await board.host(Desk)
    async with Controller(board.settings(dead_after=3.0), policies=["head_of_line"]):
        assert await client.result(short, 30) == 2
        (result,) = await board.results(short)
        assert result.host == free.id
    GATES[-1].set()
    assert await client.result(long, 30) == 2
    node = await board.node()
    found = await node.reader.read(STREAM, subjects.decided("*"))
    (told,) = [msgspec.msgpack.decode(one.body, type=Round) for one in found]
    (decision,) = told.decisions
    assert (decision.key, decision.source) == (subjects.state("Desk", "short"), full.id)
    assert decision.reason == f"{full.id} is busy"
