"""Calls that wait where nothing goes on are taken by instances that have nothing to do."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.support.board import Board, call_headers, call_subject, instance, packed
from tests.support.waiting import SOON, until

from callboard import ManagedList, agent, method, options, tool, workflow
from callboard.actors.host import Host
from callboard.infra import subjects

BEGUN: Counter[int] = Counter()
GATE = asyncio.Event()
LONG = -1
"""The number of the call that waits for the gate."""


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has begun, the gate is shut."""
    global GATE  # noqa: PLW0603 - an event belongs to the loop of one test
    GATE = asyncio.Event()
    BEGUN.clear()


@tool(concurrency=1)
async def work(number: int) -> int:
    """Short, but for one."""
    BEGUN[number] += 1
    if number == LONG:
        await GATE.wait()
    return number


@agent(concurrency=1)
class Keeper:
    """The same with managed state."""

    kept: ManagedList[int]

    @method
    async def keep(self, number: int) -> int:
        """Keep the number."""
        BEGUN[number] += 1
        self.kept.append(number)
        if number == LONG:
            await GATE.wait()
        return len(self.kept)


@agent(stateful=True)
class Holder:
    """The same with state of its own."""

    @method
    async def hold(self, number: int) -> int:
        """Hold the number."""
        BEGUN[number] += 1
        if number == LONG:
            await GATE.wait()
        return number


@workflow
async def long_one(host: str) -> int:
    """A call that waits for the gate, in a host's lane."""
    with options(host=host):
        return await work(LONG)


@workflow
async def many(host: str, count: int) -> list[int]:
    """So many calls in a host's lane."""
    with options(host=host):
        return list(await asyncio.gather(*(work(number) for number in range(count))))


@workflow
async def keep_one(number: int) -> int:
    """One call that keeps something."""
    return await Keeper.keep(number)


@workflow
async def hold_one(number: int) -> int:
    """One call of the agent that has state of its own."""
    return await Holder.hold(number)


async def stuck(board: Board) -> Host:
    """A host whose one slot is taken until the gate opens."""
    host = await board.host(work)
    await board.submit(long_one, host=host.id)
    await until(lambda: BEGUN[LONG])
    return host


async def test_calls_behind_a_long_one_run_on_an_idle_host(board: Board) -> None:
    """All of them, once, while the long one goes on."""
    await board.host(long_one, many)
    victim = await stuck(board)
    idle = await board.host(work)
    run = await board.submit(many, host=victim.id, count=200)
    done = await board.done(run)
    assert (done.status, BEGUN[LONG], GATE.is_set()) == ("completed", 1, False)
    assert set(BEGUN.values()) == {1}
    assert Counter(result.host for result in await board.results(run)) == {idle.id: 200}
    left = instance(victim, work)
    await until(lambda: (len(left.running), len(left.mailbox), len(left.unbegun)) == (1, 0, 0))
    GATE.set()
    await board.emptied("CALLS")


async def test_what_is_taken_tells_where_it_was(board: Board) -> None:
    """The message names the host that it was taken from, and the one that it is with now."""
    await board.host(long_one, many)
    victim, node = await stuck(board), await board.node()
    seen: list[tuple[str, bytes]] = []
    node.connection.subscribe("cb.call.>", lambda s, _, __, head: seen.append((s.decode(), head or b"")))
    await node.connection.flush()
    idle = await board.host(work)
    await board.run(many, host=victim.id, count=1)
    await until(lambda: len(seen) >= 2)
    (first, _), (second, head) = seen
    assert (first, second) == (f"cb.call.work.{victim.id}.1", f"cb.call.work.{idle.id}.1")
    assert f"\r\nCb-Stolen: {victim.id}\r\n".encode() in head
    assert f"\r\nCb-Executor: {idle.id}\r\n".encode() in head
    assert b"Nats-Msg-Id" not in head
    GATE.set()


async def test_what_was_pulled_ahead_is_taken_too(board: Board) -> None:
    """Not only what was addressed to the host: a call from the shared lane that has begun to wait."""
    await board.host(long_one, many)
    victim = await stuck(board)
    node = await board.node()
    ahead = instance(victim, work)
    await node.store.stored(
        call_subject(work), packed({"number": 5}), call_headers("01RUN:1", Nats_Msg_Id="01RUN:1")
    )

    def pulled() -> int:
        if not ahead.pulls[1].asked:  # as an instance does that works quickly; a tick may withdraw it
            ahead.pulls[1].ask(1, wait=False)
        return len(ahead.unbegun)

    await until(pulled)
    idle = await board.host(work)
    await until(lambda: BEGUN[5])
    (result,) = await eventually_results(board, "01RUN")
    assert (result.host, BEGUN[5]) == (idle.id, 1)
    GATE.set()


async def eventually_results(board: Board, run: str) -> list[Any]:
    """The outcomes of a run, once there are any."""
    await board.entries(run, "result")
    return await board.results(run)


async def test_nobody_takes_calls_where_that_is_switched_off(board: Board) -> None:
    """``steal_after = 0``: they wait, and the host says of none that it waits too long."""
    await board.host(long_one, many)
    victim = await board.host(work, steal_after=0.0)
    await board.submit(long_one, host=victim.id)
    await until(lambda: BEGUN[LONG])
    idle = await board.host(work)
    run = await board.submit(many, host=victim.id, count=5)
    await until(lambda: len(instance(victim, work).mailbox) == 5)
    beat = idle.watch.alive[victim.id].at
    await until(lambda: idle.watch.alive[victim.id].at > beat + 0.15)
    assert idle.watch.alive[victim.id].instances["work"].overdue == 0
    GATE.set()
    await board.done(run)
    assert {result.host for result in await board.results(run)} == {victim.id}


@pytest.mark.parametrize("kind", ["managed", "stateful"])
async def test_calls_of_a_session_stay_with_what_is_kept_for_it(board: Board, kind: str) -> None:
    """No call leaves a session that runs: of an agent with state its host does not even tell of such calls."""
    kept, flow = (Keeper, keep_one) if kind == "managed" else (Holder, hold_one)
    await board.host(flow)
    holder = await board.host(kept)
    client = await board.client()
    runs = [await client.submit(flow.name, {"number": LONG}, session="s")]
    await until(lambda: BEGUN[LONG])
    other = await board.host(kept)
    await until(lambda: kind == "managed" or instance(other, kept).standby)
    runs += [await client.submit(flow.name, {"number": number}, session="s") for number in range(5)]
    held = instance(holder, kept)
    await until(lambda: len(held.running) == 6)
    assert (len(held.unbegun), holder.stealable()) == (0, [held] if kind == "managed" else [])
    assert held.stuck is None or held.stuck.overdue() == []
    GATE.set()
    for run in runs:
        assert (await board.done(run)).status == "completed"
        assert {result.host for result in await board.results(run)} == {holder.id}


async def test_of_loop_and_heart_one_has_a_call(board: Board) -> None:
    """Who takes it out of those that wait has it: the other one leaves it alone."""
    await board.host(long_one, many)
    victim = await stuck(board)
    run = await board.submit(many, host=victim.id, count=3)
    here = instance(victim, work)
    await until(lambda: len(here.unbegun) == 3)
    first, second, third = here.unbegun.overdue(0.0)
    assert here.unbegun.take(first)
    assert not here.unbegun.take(first)
    assert not here.claim(first)
    assert here.claim(second)
    assert here.claim(second)
    assert not here.unbegun.take(second)
    assert here.unbegun.overdue(0.0) == [third]
    here.gone([first], "h-other")
    assert (first.key in here.running, len(here.mailbox)) == (False, 2)
    first.delivered.pull.held[first.delivered.sequence] = first.delivered
    first.delivered.nak()  # nobody has stored it elsewhere in this test
    GATE.set()
    done = await board.done(run)
    assert (done.status, BEGUN) == ("completed", Counter({LONG: 1, 0: 1, 1: 1, 2: 1}))


async def test_a_host_that_leaves_gives_nothing_away_by_itself(board: Board) -> None:
    """It gives back what waits, as ever; nothing runs twice."""
    await board.host(long_one, many)
    victim = await stuck(board)
    run = await board.submit(many, host=victim.id, count=50)
    await until(lambda: len(instance(victim, work).unbegun) == 50)
    idle = await board.host(work)
    leaving = asyncio.create_task(victim.stop(grace=SOON))
    done = await board.done(run)
    GATE.set()
    await leaving
    assert (done.status, set(BEGUN.values())) == ("completed", {1})
    assert {result.host for result in await board.results(run)} == {idle.id}


async def test_who_asks_for_calls_and_cannot_run_them_gets_none(board: Board) -> None:
    """Nobody, a host without the actor, and what is no question at all; the heart goes on."""
    driver = await board.host(long_one, many)
    victim, node = await stuck(board), await board.node()
    run = await board.submit(many, host=victim.id, count=3)
    await until(lambda: len(instance(victim, work).unbegun.overdue(0.1)) == 3)
    subject = subjects.steal(victim.id)
    node.connection.publish(subject, b"\xc1")
    for by in ("h-nobody", driver.id, "h.x"):
        node.connection.publish(subject, packed({"actor": "work", "by": by, "most": 100}))
    await node.connection.flush()
    beat = driver.watch.alive[victim.id].at
    await until(lambda: driver.watch.alive[victim.id].at > beat + 0.15)
    assert driver.watch.alive[victim.id].instances["work"].overdue == 3
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert {result.host for result in await board.results(run)} == {victim.id}


async def test_two_who_ask_at_once_are_not_given_the_same(board: Board) -> None:
    """What the blocked loop has not read, and both have found in the lane."""
    host = await board.host(work)
    giving = host._heart._giving
    assert giving.take_unread(5, host.beat)
    assert not giving.take_unread(5, host.beat)
    assert giving.take_unread(6, host.beat)
