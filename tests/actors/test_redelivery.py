"""Messages that come again: found done, found running, or found deadly."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.support.board import Board, call_headers, call_subject, instance, packed
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

import callboard
from callboard import ManagedList, agent, method, options, tool, workflow
from callboard.actors import managed
from callboard.actors.dead import DeadLetters
from callboard.actors.inbound import Call, kept
from callboard.actors.pulse import Heart
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import Poisoned, RunFailed
from callboard.infra.messages.run import Result
from callboard.infra.pull import Delivered

RAN: Counter[str] = anew(Counter())
DRAWN: list[str] = anew([])
GATE = Gate()


@tool
async def work(name: str) -> str:
    """Count how often it ran."""
    RAN[name] += 1
    return name


@tool
async def gated(name: str) -> str:
    """Wait for the gate."""
    RAN[name] += 1
    await GATE.wait()
    return name


@agent
class Nester:
    """Calls others."""

    @method
    async def steps(self, name: str) -> list[str]:
        """Two calls, of which the second waits."""
        RAN[f"{name} steps"] += 1
        return [await work(f"{name}.first"), await gated(f"{name}.second")]


@tool(name="drawing", retries=1, backoff=0.01)
async def drawing(name: str) -> str:
    """Draw a name, and fail once the gate is open, but for the second attempt."""
    DRAWN.append(str(callboard.uuid()))
    await GATE.wait()
    if len(set(DRAWN)) == 1:
        raise ValueError(name)
    return name


@workflow
async def drawing_flow(name: str) -> str:
    """One call."""
    return await drawing(name)


@agent(concurrency=1)
class Ledger:
    """Keeps names."""

    names: ManagedList[str]

    @method
    async def write(self, name: str) -> None:
        """Keep a name once the gate is open."""
        RAN[name] += 1
        await GATE.wait()
        self.names.append(name)


@workflow
async def flow(name: str) -> str:
    """One call."""
    return await gated(name)


@workflow
async def placed_flow(name: str, host: str) -> str:
    """One call, addressed to a host."""
    with options(host=host):
        return await gated(name)


@workflow
async def nested_flow(name: str) -> list[str]:
    """Nested ones."""
    return await Nester.steps(name)


async def test_the_same_call_published_again_is_not_run_again(board: Board) -> None:
    """Long after the server has forgotten the message's id: the host remembers it, or the journal does."""
    first = await board.host(work)
    node = await board.node()
    for _ in range(3):
        await node.store.stored(call_subject(work), packed({"name": "a"}), call_headers("r:1"))
    await board.entries("r", "result")
    await board.emptied("CALLS")
    await first.stop()
    await board.host(work)
    for _ in range(3):
        await node.store.stored(call_subject(work), packed({"name": "a"}), call_headers("r:1"))
    await board.emptied("CALLS")
    assert RAN == {"a": 1}
    assert len(await board.results("r")) == 1


async def test_copies_that_arrive_while_the_call_runs_join_it(board: Board) -> None:
    """One execution, one outcome; all copies are acked with it."""
    host = await board.host(gated)
    node = await board.node()
    for _ in range(4):
        await node.store.stored(call_subject(gated), packed({"name": "a"}), call_headers("r:1"))
    await until(lambda: RAN["a"] == 1 and len(next(iter(instance(host, gated).running.values())).copies) == 3)
    GATE.set()
    await board.emptied("CALLS")
    assert RAN == {"a": 1}
    assert len(await board.results("r")) == 1


async def test_a_finished_call_delivered_again_is_acked_without_running(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its host died between storing the outcome and acking the call."""
    first = await board.host(gated, flow)
    with monkeypatch.context() as patch:
        patch.setattr(Delivered, "ack", lambda self: None)
        run = await board.submit(flow, name="a")
        await until(lambda: RAN["a"] == 1)
        GATE.set()
        await board.entries(run, "result")
        await board.kill(first)
    await board.host(gated)
    await board.emptied("CALLS")
    assert RAN == {"a": 1}


async def test_an_outcome_is_stored_before_its_call_is_acked(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it is on its way the call stays in the stream."""
    host, node = await board.host(work), await board.node()
    journal = host.node.journal
    store, held = journal.put_result, list[tuple[Any, ...]]()
    monkeypatch.setattr(journal, "put_result", lambda *given: held.append(given))
    await node.store.stored(call_subject(work), packed({"name": "a"}), call_headers("r:1"))
    await until(lambda: held)
    await host.node.connection.flush()
    assert (await board.stream("CALLS"))["messages"] == 1
    store(*held[0])
    await board.emptied("CALLS")
    assert [result.future for result in await board.results("r")] == ["r:1"]


async def test_a_call_of_a_run_that_has_ended_is_not_run(board: Board) -> None:
    """Nobody waits for it."""
    node = await board.node()
    await board.host(flow, gated)
    run = await board.submit(flow, name="a")
    GATE.set()
    await board.done(run)
    head = call_headers(f"{run}:77")
    await node.store.stored(call_subject(work), packed({"name": "late"}), head)
    await board.host(work)
    await board.emptied("CALLS")
    assert RAN == {"a": 1}


async def test_a_host_that_dies_is_replaced_within_its_time(board: Board) -> None:
    """Its calls run elsewhere soon after its heart stops, long before the ack wait."""
    first = await board.host(gated)
    await board.host(flow)
    run = await board.submit(flow, name="a")
    await until(lambda: RAN["a"] == 1)
    second = await board.host(gated)
    await board.kill(first)
    await until(lambda: RAN["a"] == 2, timeout=15.0)  # half of the ack wait
    GATE.set()
    assert (await board.done(run)).status == "completed"
    (result,) = await board.results(run)
    assert result.host == second.id
    await until(lambda: first.id not in second.watch.alive)
    await board.emptied("CALLS")


async def test_a_call_that_died_with_its_host_does_not_repeat_what_it_had_done(board: Board) -> None:
    """Calls of its own that have their outcome are not made again when it runs again."""
    first = await board.host(Nester)
    worker = await board.host(work, gated, nested_flow)
    run = await board.submit(nested_flow, name="a")
    await until(lambda: RAN["a.second"] == 1)
    await board.kill(first)
    await board.host(Nester)
    await until(lambda: RAN["a steps"] == 2)
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert RAN == {"a steps": 2, "a.first": 1, "a.second": 1}
    await until(lambda: instance(worker, gated).running == {})


async def test_a_call_that_is_delivered_again_draws_the_same(board: Board) -> None:
    """``uuid()`` in a handler is the same on the next host, and another one in a retry."""
    first = await board.host(drawing)
    await board.host(drawing_flow)
    run = await board.submit(drawing_flow, name="a")
    await until(lambda: len(DRAWN) == 1)
    await board.kill(first)
    await board.host(drawing)
    await until(lambda: len(DRAWN) == 2)
    GATE.set()
    assert (await board.done(run)).status == "completed"
    again, retried = DRAWN[1:]
    assert DRAWN[0] == again != retried


async def test_a_call_that_kills_its_hosts_goes_to_the_dead_letters(board: Board) -> None:
    """After so many deliveries without an outcome; its caller gets a typed error, its letter the history."""
    await board.host(flow)
    run = await board.submit(flow, name="deadly")
    for number in range(1, 4):
        victim = await board.host(gated, max_deliver=3)
        await until(lambda number=number: RAN["deadly"] == number)  # type: ignore[misc]
        await board.kill(victim)
        await board.emptied_of_host(victim)
    await board.host(gated, max_deliver=3)
    with pytest.raises(RunFailed) as caught:
        await (await board.client()).result(run, SOON)
    error = caught.value.__cause__
    assert isinstance(error, Poisoned)
    assert error.fields["delivered"] == 3
    (letter,) = await board.letters()
    assert (letter.actor, letter.reason) == ("gated", "too_many_deliveries")
    assert letter.headers[H.FUTURE] == f"{run}:1"
    await board.emptied("CALLS")
    assert RAN == {"deadly": 3}


async def test_a_copy_that_comes_while_its_call_is_buried_goes_with_it(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its host would keep it, un-acked, for as long as it lives."""
    host = await board.host(gated)
    buried, go_on = asyncio.Event(), asyncio.Event()
    read = host.node.journal.attempts

    async def attempts(run: str, future: str) -> list[Any]:
        buried.set()
        await go_on.wait()
        return await read(run, future)

    monkeypatch.setattr(host.node.journal, "attempts", attempts)
    node = await board.node()
    subject, body = call_subject(gated), packed({"name": "deadly"})
    await node.store.stored(subject, body, call_headers("01RUN:1", "call", Cb_Deliveries="9"))
    await buried.wait()
    await node.store.stored(subject, body, call_headers("01RUN:1", "call", Nats_Msg_Id="second"))
    (call,) = instance(host, gated).running.values()
    await until(lambda: len(call.copies) == 1)
    go_on.set()
    await board.emptied("CALLS")
    assert len(await board.letters()) == 1
    assert RAN == {}


async def test_a_copy_that_follows_its_session_is_not_deadly(board: Board) -> None:
    """However often the session moves: the copy comes again each time, and nobody has died of it."""
    host = await board.host(Ledger, max_deliver=3)
    node, place = await board.node(), instance(host, Ledger)
    lane = subjects.call("Ledger", host.id, 1)
    moved: list[Call] = []

    def withdrawn() -> bool:
        if any(call.copies for call in place.running.values()):
            moved.extend(place.withdraw(["01RUN"]))
        return bool(moved)

    for future, name in (("01RUN:1", "held"), ("01RUN:2", "moved"), ("01RUN:2", "moved")):
        await node.store.stored(lane, packed({"name": name}), call_headers(future, "write"))
        await until(lambda: RAN["held"] == 1)
    for _ in range(6):
        await until(withdrawn)
        await managed.pass_on(place, moved.pop(), host.id, 1, "migrated")
    GATE.set()
    await board.emptied("CALLS")
    assert RAN == {"held": 1, "moved": 1}
    assert {result.error for result in await board.results("01RUN")} == {None}


async def test_deliveries_count_in_whatever_lane(board: Board) -> None:
    """Of a call that was addressed to its first victim; an operator may send it again all the same."""
    victims = [await board.host(gated, max_deliver=3)]
    await board.host(placed_flow)
    run = await board.submit(placed_flow, name="deadly", host=victims[0].id)
    for number in range(1, 4):
        await until(lambda number=number: RAN["deadly"] == number)  # type: ignore[misc]
        victims.append(await board.host(gated, max_deliver=3))
        await board.kill(victims[-2])
        await board.emptied_of_host(victims[-2])
    with pytest.raises(RunFailed) as caught:
        await (await board.client()).result(run, SOON)
    error = caught.value.__cause__
    assert isinstance(error, Poisoned)
    assert error.fields["delivered"] == 3
    assert RAN == {"deadly": 3}
    (letter,) = await board.letters()
    assert letter.headers[H.DELIVERIES] == "1"
    node = await board.node()
    await DeadLetters(node.store, node.reader, "test").requeue(letter, again=True)
    await until(lambda: RAN["deadly"] == 4)
    GATE.set()
    await board.emptied("CALLS")


def test_what_goes_along_where_a_call_is_stored_anew() -> None:
    """What the server says of the old message does not."""
    headers = {H.FUTURE: "r:1", H.DELIVERIES: "1", H.MESSAGE_ID: "r:1", "traceparent": "00", "X": "y"}
    assert kept(headers) == {H.FUTURE: "r:1", H.DELIVERIES: "1", "traceparent": "00"}


@tool(concurrency=1)
async def busy(name: str, seconds: float) -> str:
    """Hold the only slot for a while."""
    RAN[name] += 1
    await asyncio.sleep(seconds)
    return name


@workflow
async def busy_flow(rounds: int) -> Any:
    """Bursts of quick calls and then a long one, again and again, while a patient call waits."""
    with options(priority=-1):
        patient = [busy(f"patient {n}", 0.0) for n in range(3)]
    for number in range(rounds):
        await asyncio.gather(*(busy(f"{number}.{n}", 0.0) for n in range(30)), busy(f"long {number}", 0.09))
    return await asyncio.gather(*patient)


async def test_a_call_that_is_given_back_often_is_not_taken_for_deadly(board: Board) -> None:
    """A busy host gives back what it cannot start soon; that says nothing against the call."""
    await board.host(busy, max_deliver=2)
    await board.host(busy_flow)
    assert await board.run(busy_flow, rounds=6, timeout=SOON) == [f"patient {n}" for n in range(3)]
    assert set(RAN.values()) == {1}


@workflow
async def stuck_flow() -> list[str]:
    """Quick calls, so that a host pulls ahead, then one that holds its only slot among further ones."""
    for _ in range(4):
        await asyncio.gather(*(narrow(f"quick {RAN.total()}.{n}") for n in range(60)))
    calls = [narrow("held"), *(narrow(f"behind {n}") for n in range(40))]
    return await asyncio.gather(*calls)


@tool(concurrency=1)
async def narrow(name: str) -> str:
    """One at a time."""
    RAN[name] += 1
    if name == "held":
        await GATE.wait()
    return name


async def test_calls_that_wait_behind_a_long_one_go_to_another_host(board: Board) -> None:
    """What was pulled ahead is given back as soon as it is stuck: nobody waits for one slow call."""
    await board.host(narrow)
    await board.host(stuck_flow)
    run = await board.submit(stuck_flow)
    await until(lambda: RAN["held"] == 1)
    await board.host(narrow)
    await until(lambda: sum(name.startswith("behind") for name in RAN) == 40)
    assert not GATE.is_set()
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert set(RAN.values()) == {1}


async def test_a_host_that_drains_does_not_make_its_calls_look_deadly(board: Board) -> None:
    """However often hosts come and go with a call in hand that outlasts their grace."""
    await board.host(flow)
    run = await board.submit(flow, name="a")
    for number in range(1, 5):
        host = await board.host(gated, max_deliver=10)
        await until(lambda number=number: RAN["a"] == number)  # type: ignore[misc]
        await host.stop(grace=0.0)
    await board.host(gated, max_deliver=10)
    GATE.set()
    assert (await board.done(run)).status == "completed"


async def test_a_result_that_is_stored_twice_counts_once(board: Board) -> None:
    """The first one in the journal wins, whatever a late host says."""
    await board.host(flow, gated)
    node = await board.node()
    run = await board.submit(flow, name="a")
    await until(lambda: RAN["a"] == 1)
    for value in ("first", "second"):
        result = Result(f"{run}:1", "gated.call", host="h-late")
        result.value = type(result.value)(packed(value))
        await node.store.stored(f"cb.run.{run}.result", packed(result))
    assert await (await board.client()).result(run, SOON) == "first"
    GATE.set()
    await board.emptied("CALLS")


async def test_a_long_call_is_kept_alive_beyond_the_ack_wait(board: Board) -> None:
    """Its heart tells the server that somebody works on it, so that it is not delivered again."""
    await board.host(gated, ack_wait=0.3)
    await board.host(flow)
    run = await board.submit(flow, name="a")
    await until(lambda: RAN["a"] == 1)
    node = await board.node()
    beats: list[bytes] = []
    node.connection.subscribe("$KV.cb_registry.host.*", lambda subject, reply, data, head: beats.append(data))
    await until(lambda: len(beats) >= 16)
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert RAN == {"a": 1}


async def test_a_heart_that_is_stopped_at_once_has_stopped(board: Board) -> None:
    """Even before its thread has begun: nothing beats on."""
    host = await board.host(work)
    for _ in range(20):
        heart = Heart(host)
        heart.start()
        await asyncio.to_thread(heart.stop)
        assert heart._thread is None
