"""Two messages of one call, which the server could not know for one: it runs once."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.support.board import Board, call_headers, call_subject, instance, packed
from tests.support.waiting import until

from callboard import tool, workflow
from callboard.actors import addressing, copies, maker
from callboard.infra import topology
from callboard.infra.messages.run import ErrorInfo, Result

RAN: Counter[str] = Counter()
GATE = asyncio.Event()
RUN = "01RUN"


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run, the gate is shut."""
    global GATE  # noqa: PLW0603 - an event belongs to the loop of one test
    RAN.clear()
    GATE = asyncio.Event()


@tool(concurrency=1)
async def long(name: str) -> str:
    """Count, then wait for the gate."""
    RAN[name] += 1
    await GATE.wait()
    return name


@workflow
async def long_flow() -> str:
    """One call."""
    return await long("one")


async def put(board: Board, number: int = 1, message_id: str = "", **headers: str) -> None:
    """Publish a message of one and the same call."""
    node = await board.node()
    await node.store.stored(
        call_subject(long),
        packed({"name": "one"}),
        call_headers(f"{RUN}:1", Nats_Msg_Id=message_id or f"copy {number}", **headers),
    )


async def test_a_copy_of_a_running_call_does_not_run(board: Board) -> None:
    """One host runs it, the other one is given the copy: it asks, and drops it."""
    first = await board.host(long)
    await put(board, 1)
    await until(lambda: RAN["one"] == 1)
    assert instance(first, long).info().busy == 1
    await board.host(long)
    await put(board, 2, Cb_Again="1")
    node = await board.node()

    async def left() -> int:
        return int((await node.topology.api("STREAM.INFO.CALLS"))["state"]["messages"])

    while await left() > 1:
        await asyncio.sleep(0)
    GATE.set()
    await board.emptied("CALLS")
    assert RAN["one"] == 1
    assert [result.future for result in await board.results(RUN)] == [f"{RUN}:1"]


async def test_two_copies_given_to_two_hosts_at_once(board: Board) -> None:
    """Both ask each other: the one stored first runs."""
    await put(board, 1, Cb_Again="1")
    await put(board, 2, Cb_Again="1")
    await asyncio.gather(board.host(long), board.host(long))
    await until(lambda: RAN["one"] == 1)
    GATE.set()
    await board.emptied("CALLS")
    assert RAN["one"] == 1
    assert len(await board.results(RUN)) == 1


async def test_the_same_message_twice_is_left_to_who_has_it(board: Board) -> None:
    """It was delivered again although its host lives: the other one neither runs it nor acks it."""
    first = await board.host(long)
    await put(board, 1, Cb_Again="1")
    await until(lambda: RAN["one"] == 1)
    second = await board.host(long)
    (held,) = instance(first, long).pulls[1].held.values()
    node = await board.node()
    node.connection.publish(held.reply, b"-NAK")
    asked = second.copies
    await until(lambda: asked.rounds > 0)
    await until(lambda: not instance(second, long).running)
    assert (await board.stream("CALLS"))["messages"] == 1
    GATE.set()
    await board.emptied("CALLS")
    assert RAN["one"] == 1


async def test_a_copy_of_a_call_that_is_to_be_repeated_is_dropped(board: Board) -> None:
    """Its first attempt has failed, and a schedule brings the second one."""
    node = await board.node()
    node.journal.put_attempt(
        RUN, Result(f"{RUN}:1", "long.call", error=ErrorInfo("call_failed", "Oops", "no"))
    )
    await board.entries(RUN, "attempt")
    await board.host(long)
    await put(board, 1, Cb_Again="1")
    await board.emptied("CALLS")
    assert RAN["one"] == 0


async def test_a_call_without_a_copy_runs(board: Board) -> None:
    """Asking finds nothing, also where a host does not answer since it has died."""
    GATE.set()
    await board.host(long)
    other = await board.host(long)
    await board.kill(other)
    await put(board, 1, Cb_Again="1")
    await board.emptied("CALLS")
    assert RAN["one"] == 1


async def test_a_host_that_does_not_answer_does_not_keep_a_copy_from_running(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ten seconds, or as many as it takes here, the call runs on two hosts; one outcome counts."""
    assert copies._PATIENCE == 10.0
    monkeypatch.setattr(copies, "_PATIENCE", 0.2)
    await board.host(long)
    driver = await board.host(long_flow)
    run = await board.submit(long_flow)
    await until(lambda: RAN["one"] == 1)
    second = await board.host(long)
    await until(lambda: len(second.watch.serving("long")) == 2)

    async def silence(host: str, query: bytes) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(second.copies, "_ask", silence)
    head = call_headers(f"{run}:1", Nats_Msg_Id="a copy", Cb_Again="1", Cb_Run=run)
    await driver.node.store.stored(call_subject(long), packed({"name": "one"}), head)
    await until(lambda: RAN["one"] == 2)
    GATE.set()
    done = await board.done(run)
    assert bytes(done.value) == packed("one")
    await board.emptied("CALLS")


async def test_a_driver_that_goes_on_late_does_not_double_a_running_call(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends the call again when the server has forgotten its id."""
    monkeypatch.setattr(topology, "_DEDUPE", 0.1)
    for module in (maker, addressing, copies):
        monkeypatch.setattr(module, "KNOWN_IDS", 0.2)
    await board.host(long)
    driver = await board.host(long_flow)
    run = await board.submit(long_flow)
    await until(lambda: RAN["one"] == 1)
    await board.host(long)
    await asyncio.sleep(0.3)  # the server's memory for ids ends by the clock alone
    await board.kill(driver)
    node = await board.node()
    sent: list[str] = []
    node.connection.subscribe("cb.call.>", lambda subject, *_: sent.append(subject.decode()))
    await node.connection.flush()
    await board.host(long_flow)
    await until(lambda: sent)
    GATE.set()
    assert (await board.done(run)).status == "completed"
    await board.emptied("CALLS")
    assert RAN["one"] == 1
