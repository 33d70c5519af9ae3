"""Effects of which nobody knows: who says so, who asks ``reconcile`` and when, and what calling again does."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest
from tests.support.board import Board, call_headers, call_subject, packed
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import NotDone, OutcomeUnknown, effect_key, tool, workflow

DONE: Counter[str] = anew(Counter())
KEYS: list[str] = anew([])
GATE = Gate()
LATE = threading.Event()


@tool(effect=True, retries=3, backoff=0.01)
async def unsure(order: str) -> str:
    """Does not know itself what has become of it."""
    DONE[order] += 1
    raise OutcomeUnknown("the bank has not answered")


@tool(effect=True)
async def pay(order: str) -> str:
    """An effect without a key; ends when the gate opens."""
    DONE[order] += 1
    KEYS.append(effect_key())
    await GATE.wait()
    return f"paid {order}"


@tool(effect=True, key="order")
async def book(order: str) -> str:
    """An effect with a key; ends when the gate opens."""
    DONE[order] += 1
    KEYS.append(effect_key())
    await GATE.wait()
    return f"booked {order}"


@tool(effect=True)
async def send(order: str) -> str:
    """Can tell whether it has happened; ends when the gate opens."""
    DONE[order] += 1
    await GATE.wait()
    return f"sent {order}"


@send.reconcile
async def sent(order: str) -> str:
    """Makes a note of being asked."""
    DONE["asked"] += 1
    return f"found {order}"


@tool(effect=True, key="order")
def act(order: str) -> str:
    """Blocks its thread, which cannot be stopped, and only then acts."""
    DONE["begun"] += 1
    LATE.wait(SOON)
    DONE[order] += 1
    return f"acted {order}"


@act.reconcile
def acted(order: str) -> str:
    """Looks whether it has happened so far."""
    DONE["asked"] += 1
    if not DONE[order]:
        raise NotDone
    return f"found {order}"


@tool(effect=True, concurrency=1)
async def linger(order: str) -> str:
    """Acts when the gate opens."""
    DONE["begun"] += 1
    await GATE.wait()
    DONE[order] += 1
    return f"lingered {order}"


@linger.reconcile
async def lingered(order: str) -> str:
    """Looks whether it has happened so far."""
    DONE["asked"] += 1
    if not DONE[order]:
        raise NotDone
    return f"found {order}"


@workflow
async def lingering(order: str) -> str:
    """One call."""
    return await linger(order)


@workflow
async def doubting(order: str) -> str:
    """One call of which nobody knows."""
    try:
        return await unsure(order)
    except OutcomeUnknown as error:
        return f"unknown: {error.message}"


@workflow
async def paying_again(order: str) -> str:
    """Calls once more what it was not told of."""
    try:
        return await pay(order)
    except OutcomeUnknown:
        return f"again {await pay(order)}"


@workflow
async def booking(order: str) -> str:
    """One call."""
    return await book(order)


@workflow
async def cancelling(order: str) -> str:
    """Cancels a call that runs, and calls again."""
    first = book(order)
    await until(lambda: DONE[order] == 1)
    first.cancel()
    try:
        return await book(order)
    except OutcomeUnknown as error:
        return f"unknown {error.fields['key']}"


@workflow
async def cancelling_a_thread(order: str) -> str:
    """Cancels a call whose thread goes on, and calls again."""
    first = act(order)
    await until(lambda: DONE["begun"] == 1)
    first.cancel()
    return await act(order)


async def test_a_handler_may_say_that_nobody_knows(board: Board) -> None:
    """Its own word is the outcome; it is not tried again."""
    await board.host(unsure, doubting)
    assert await board.run(doubting, order="a") == "unknown: the bank has not answered"
    assert DONE == {"a": 1}


async def test_without_a_key_calling_again_runs_the_handler(board: Board) -> None:
    """Each call is an effect of its own; its id is its key."""
    first = await board.host(pay)
    await board.host(paying_again)
    client = await board.client()
    run = await client.submit(paying_again.name, {"order": "a"})
    await until(lambda: DONE["a"] == 1)
    await board.kill(first)
    GATE.set()
    await board.host(pay)
    assert await client.result(run, SOON) == "again paid a"
    assert DONE == {"a": 2}
    assert [f"{run}:1", f"{run}:2"] == KEYS


async def test_a_key_is_the_same_in_every_run(board: Board) -> None:
    """For whoever carries the effect out, and knows keys; here each run has an effect of its own."""
    await board.host(book, booking)
    GATE.set()
    for _ in range(2):
        assert await board.run(booking, order="a") == "booked a"
    assert KEYS == ["a", "a"]


async def test_reconcile_is_not_asked_while_the_host_has_the_call(board: Board) -> None:
    """Copies of its call come to two hosts that live: the effect is left to the one that has begun it."""
    for _ in range(2):
        await board.host(send)
    node = await board.node()
    for number in range(20):
        for copy in (1, 2):
            head = call_headers(f"01RUN:{number}", Nats_Msg_Id=f"{number} {copy}")
            await node.store.stored(call_subject(send), packed({"order": str(number)}), head)
    await until(lambda: DONE.total() >= 20)
    GATE.set()
    await board.emptied("CALLS")
    assert {str(number): 1 for number in range(20)} == DONE


async def test_cancelling_an_effect_that_runs_leaves_it_unknown(board: Board) -> None:
    """Who calls again with its key is told so, and the handler does not run."""
    await board.host(book)
    await board.host(cancelling)
    assert await board.run(cancelling, order="a") == "unknown a"
    assert DONE == {"a": 1}


async def test_a_cancelled_thread_may_still_act_after_reconcile_was_asked(board: Board) -> None:
    """Nobody can stop it: where ``NotDone`` is said meanwhile, both act."""
    LATE.clear()
    await board.host(act)
    await board.host(cancelling_a_thread)
    run = await board.submit(cancelling_a_thread, order="a")
    try:
        await until(lambda: DONE["begun"] == 2)
    finally:
        LATE.set()
    assert (await board.done(run)).status == "completed"
    await until(lambda: DONE["a"] == 2)
    assert DONE["asked"] == 1


async def test_a_host_that_is_not_heard_may_still_act_after_reconcile_was_asked(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It neither beats nor answers, as one that is frozen or cut off: another one has its call, and both act."""
    first = await board.host(linger)
    await board.host(lingering)
    run = await board.submit(lingering, order="a")
    await until(lambda: DONE["begun"] == 1)
    second = await board.host(linger)
    monkeypatch.setattr(second.copies, "_ask", lambda host, query: asyncio.sleep(0))
    first._heart._beat_once = lambda connection: None  # type: ignore[method-assign]
    await until(lambda: DONE["begun"] == 2)
    GATE.set()
    assert (await board.done(run)).status == "completed"
    await until(lambda: DONE["a"] == 2)
    assert DONE["asked"] == 1
