"""Sessions that wait behind calls of others move to a host that has nothing to do."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.support.board import Board, instance
from tests.support.waiting import until

from callboard import ManagedList, agent, method, options, workflow
from callboard.actors.client import Client
from callboard.actors.host import Host

BEGUN: Counter[str] = Counter()
GATE = asyncio.Event()
LONG = "long"


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has begun, the gate is shut."""
    global GATE  # noqa: PLW0603 - an event belongs to the loop of one test
    GATE = asyncio.Event()
    BEGUN.clear()


@agent(concurrency=1)
class Desk:
    """Keeps what it is told, one call at a time."""

    kept: ManagedList[str]

    @method
    async def keep(self, text: str) -> list[str]:
        """Keep it; one text waits for the gate."""
        BEGUN[text] += 1
        self.kept.append(text)
        if text == LONG:
            await GATE.wait()
        return list(self.kept)


@workflow
async def keeping(texts: list[str], host: str) -> list[str]:
    """Calls in turn; the first one in a host's lane, if one is named."""
    kept: list[str] = []
    for place, text in enumerate(texts):
        with options(host=host if place == 0 and host else None):
            kept = await Desk.keep(text)
    return kept


async def keep(client: Client, session: str, *texts: str, host: str = "") -> str:
    """Submit a run of a session; its id."""
    return await client.submit("keeping", {"texts": list(texts), "host": host}, session=session)


async def two_sessions(board: Board, **settings: float) -> tuple[Client, Host]:
    """A host that holds two sessions, in one of which a call waits for the gate."""
    await board.host(keeping, **settings)  # with the same idea of when a host is dead
    host, client = await board.host(Desk, **settings), await board.client()
    await board.done(await keep(client, "chat", "one"))
    await keep(client, "report", LONG)
    await until(lambda: BEGUN[LONG])
    return client, host


async def test_a_session_behind_a_long_call_moves_to_an_idle_host(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that it keeps, and with all of its calls, each once and in order; the long one stays."""
    monkeypatch.setattr("callboard.actors.instance.STUCK", 600.0)  # what has come stays until it is moved
    client, host = await two_sessions(board)
    runs: list[str] = []
    for number in range(5):  # of several makers, whose order is that in which their calls have come
        runs.append(await keep(client, "chat", f"{number}"))
        await until(lambda: len(instance(host, Desk).running) == 1 + len(runs))
    idle = await board.host(Desk)
    ends = [await board.done(run) for run in runs]
    assert (GATE.is_set(), {one.status for one in ends}) == (False, {"completed"})
    for run in runs:
        assert {result.host for result in await board.results(run)} == {idle.id}
    assert await client.run("keeping", {"texts": ["last"], "host": ""}, session="chat") == [
        "one", "0", "1", "2", "3", "4", "last",
    ]  # fmt: skip
    assert set(BEGUN.values()) == {1}
    assert instance(host, Desk).running_in("report")
    GATE.set()
    await board.emptied("CALLS")


async def test_it_goes_on_where_it_has_gone(board: Board) -> None:
    """Further calls of the run are sent to the new holder at once, and the state has both halves."""
    client, host = await two_sessions(board)
    idle = await board.host(Desk)
    run = await keep(client, "chat", "two", "three", host=host.id)
    assert (await board.done(run)).status == "completed"
    assert [result.host for result in await board.results(run)] == [idle.id, idle.id]
    GATE.set()


async def test_nobody_takes_sessions_where_that_is_switched_off(board: Board) -> None:
    """``steal_after = 0``: they wait for the end of the long call."""
    client, host = await two_sessions(board, steal_after=0.0)
    idle = await board.host(Desk)
    run = await keep(client, "chat", "two")
    await until(lambda: len(instance(host, Desk).mailbox))
    beat = idle.watch.alive[host.id].at
    await until(lambda: idle.watch.alive[host.id].at > beat + 0.15)
    assert (idle.watch.alive[host.id].instances["Desk"].overdue, BEGUN["two"]) == (0, 0)
    GATE.set()
    await board.done(run)
    assert {result.host for result in await board.results(run)} == {host.id}


async def test_a_session_that_a_route_keeps_stays(board: Board) -> None:
    """Others may go."""
    client, host = await two_sessions(board)
    await client.route("Desk", {host.id: 1.0}, session="chat")
    idle = await board.host(Desk)
    pinned = await keep(client, "chat", "two")
    free = await keep(client, "other", "three", host=host.id)
    assert (await board.done(free)).status == "completed"
    assert {result.host for result in await board.results(free)} == {idle.id}
    assert BEGUN["two"] == 0
    GATE.set()
    await board.done(pinned)
    assert {result.host for result in await board.results(pinned)} == {host.id}


async def test_it_is_told_anew_each_time(board: Board) -> None:
    """Idle hosts hear at once also of the next session that waits, long before the next beat is due."""
    client, host = await two_sessions(board, pulse_every=60.0, dead_after=200.0)
    idle = await board.host(Desk, dead_after=200.0)
    for number in range(6):
        run = await keep(client, f"s{number}", f"{number}", host=host.id)
        assert (await board.done(run)).status == "completed"
        assert {result.host for result in await board.results(run)} == {idle.id}
    GATE.set()
