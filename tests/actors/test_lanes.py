"""Lanes of hosts that pull from them no more."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.board import Board, call_headers, instance, packed
from tests.support.gates import Gate, anew
from tests.support.waiting import eventually, until

from callboard import options, tool, workflow
from callboard.actors.host import Host
from callboard.actors.lanes import Lanes
from callboard.actors.node import Node
from callboard.infra import subjects
from callboard.infra.direct import Stored
from callboard.infra.messages.registry import InstanceInfo, Pulse

GATE = Gate()
BEGUN: list[int] = anew([])


@tool
async def double(number: int) -> int:
    """Twice as much."""
    return 2 * number


@tool
async def ask(number: int, host: str) -> int:
    """Calls the other one in a host's lane, when the gate opens."""
    BEGUN.append(number)
    await GATE.wait()
    with options(host=host):
        return await double(number)


@tool(retries=1, backoff=0.5)
async def flaky(number: int) -> int:
    """Fails the first time."""
    BEGUN.append(number)
    if len(BEGUN) == 1:
        raise ValueError(number)
    return number


@workflow
async def asking(number: int, host: str) -> int:
    """One call that makes another."""
    return await ask(number, host)


async def test_a_call_in_the_lane_of_nobody_is_run(board: Board) -> None:
    """It was stored there after the host had left, and its lane was emptied."""
    await board.host(double)
    node = await board.node()
    gone = subjects.call("double", "h-gone", 1)
    await node.store.stored(gone, packed({"number": 4}), call_headers("01RUN:1", Nats_Msg_Id="01RUN:1"))
    await board.emptied("CALLS")
    assert [result.future for result in await board.results("01RUN")] == ["01RUN:1"]


async def test_two_that_empty_a_lane_move_each_call_once(board: Board) -> None:
    """Both have read what lies there before one of them has moved anything."""
    nodes = [await board.node() for _ in range(2)]
    for number in range(5):
        gone = subjects.call("double", "h-gone", 1)
        await nodes[0].store.stored(gone, packed({"number": number}), call_headers(f"01RUN:{number}"))
    both = asyncio.Barrier(2)

    def emptying(node: Node) -> Lanes:
        async def read(*where: Any) -> list[Stored]:
            found = await node.reader.read(*where)
            await both.wait()
            return found

        reader = SimpleNamespace(read=read)
        held = SimpleNamespace(reader=reader, store=node.store, topology=node.topology)
        return Lanes(cast("Host", SimpleNamespace(node=held, recent=set())))

    assert await asyncio.gather(*(emptying(node).move("h-gone") for node in nodes)) == [5, 5]
    left = await nodes[0].reader.read(subjects.CALLS, "cb.call.double.any.>")
    assert [one.headers["Cb-Future"] for one in left] == [f"01RUN:{number}" for number in range(5)]


async def test_a_draining_host_does_not_wait_for_its_own_lane(board: Board) -> None:
    """Its handler's call was addressed to itself, where nothing is pulled any more: somebody else runs it."""
    leaving = await board.host(ask, double)
    await board.host(asking)
    client = await board.client()
    run = await client.submit(asking.name, {"number": 4, "host": leaving.id})
    await until(lambda: BEGUN == [4])
    await board.host(double)
    ending = asyncio.create_task(leaving.stop(grace=60.0))
    await until(lambda: leaving.draining)
    leaving.caller.is_alive = lambda _: True  # as long as the heartbeat has not said that it leaves
    GATE.set()
    assert await client.result(run, 10) == 8
    await ending
    assert BEGUN == [4]
    assert instance(leaving, ask).running == {}


async def test_an_ack_that_was_lost_with_the_server(board: Board) -> None:
    """Of a call in a host's own lane; it is looked for when the server is back, whoever else is silent."""
    host = await board.host(double)
    connection = host.node.connection
    publish = connection.publish_later
    connection.publish_later = lambda *_: None  # type: ignore[method-assign]
    node = await board.node()
    own = subjects.call("double", host.id, 1)
    await node.store.stored(own, packed({"number": 4}), call_headers("01RUN:1", Nats_Msg_Id="01RUN:1"))
    await board.entries("01RUN", "result")
    await until(lambda: instance(host, double).running == {})
    connection.publish_later = publish  # type: ignore[method-assign]
    silent = Pulse("h-silent", time.time(), instances={"double": InstanceInfo()})
    await node.store.stored(subjects.registry("host.h-silent"), packed(silent))
    await until(lambda: "h-silent" in host.watch.alive)
    host.watch._on_reconnect()
    await board.emptied("CALLS")


async def test_what_is_done_is_not_moved(board: Board) -> None:
    """A call whose ack is on its way when the lane is emptied: a failed attempt would run once more."""
    host = await board.host(flaky)
    node = await board.node()
    connection = host.node.connection
    connection.publish_later = lambda *_: None  # type: ignore[method-assign]
    own = subjects.call("flaky", host.id, 1)
    await node.store.stored(own, packed({"number": 4}), call_headers("01RUN:1", Nats_Msg_Id="01RUN:1"))
    await until(lambda: BEGUN == [4] and not instance(host, flaky).running)
    assert await host.lanes.move(host.id) == 0
    assert not await node.reader.read("CALLS", "cb.call.>")


@pytest.mark.parametrize(
    "rubbish", ["cb.call.double", "cb.call.double.h-gone", "cb.call.double.*.1", "cb.call.a.b.c.d"]
)
async def test_what_lies_in_no_lane_keeps_no_lane_from_being_emptied(board: Board, rubbish: str) -> None:
    """Anybody can publish there; a call in a lane of nobody is run all the same, whatever its band is called."""
    await board.host(double)
    node = await board.node()
    await node.store.stored(rubbish, b"rubbish")
    await node.store.stored("cb.call.double.h-gone.x", packed({"number": 4}), call_headers("01RUN:1"))
    await board.entries("01RUN", "result")

    async def only_rubbish() -> bool:
        return {one.body for one in await node.reader.read(subjects.CALLS, "cb.call.>")} == {b"rubbish"}

    await eventually(only_rubbish)
