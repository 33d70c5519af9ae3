"""A host that cannot start leaves nothing behind; it can be stopped at any moment, and started again."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.board import Board, instance
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, eventually, until

from callboard import agent, method, tool, workflow
from callboard.actors import registry
from callboard.actors.app import AppUnloadable
from callboard.actors.declared import declaration
from callboard.actors.host import Host
from callboard.actors.instance import Instance
from callboard.infra.errors import ConnectFailed, StoreRefused
from callboard.infra.server import EmbeddedServer

LICENCES: list[str] = anew([])
GATE = Gate()


@tool
async def echo(number: int) -> int:
    """The same again."""
    return number


@tool
async def gated(number: int) -> int:
    """Wait for the gate."""
    await GATE.wait()
    return number


@agent
class Licensed:
    """Cannot be made without a licence."""

    def __init__(self) -> None:
        if not LICENCES:
            raise RuntimeError("no licence")

    @method
    async def work(self) -> str:
        """Tell of the licence."""
        return LICENCES[0]


@workflow
async def echo_flow() -> int:
    """One call."""
    return await echo(7)


@workflow
async def licensed_flow() -> str:
    """One call of the agent."""
    return await Licensed.work()


@workflow
async def gated_flow() -> int:
    """One call that waits."""
    return await gated(1)


def declared(board: Board, *things: Any, **settings: Any) -> Host:
    """A host that was not started yet; it ends with the test."""
    found = [declaration(thing) for thing in things]
    host = Host([one for one in found if one is not None], board.settings(**settings))
    board._hosts.append(host)
    return host


async def nothing_is_left(host: Host, tasks: int) -> None:
    """Wait until no connection, thread or task of the host is there any more."""
    assert host.node.connection.client.is_closed or not host.node.connection.client.is_connected
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await until(lambda: "callboard-pulse" not in [thread.name for thread in threading.enumerate()])


async def test_it_can_be_started_when_there_is_a_server_at_last(
    board: Board, nats_server: EmbeddedServer
) -> None:
    """Without one it says so, can be stopped, and starts as if nothing had been."""
    await asyncio.to_thread(nats_server.kill)
    tasks = len(asyncio.all_tasks())
    host = declared(board, echo, echo_flow)
    for _ in range(2):
        with pytest.raises(ConnectFailed):
            await host.start()
        await nothing_is_left(host, tasks)
        await host.stop()
    await asyncio.to_thread(nats_server.start)
    await host.start()
    assert await board.run(echo_flow) == 7


async def test_refused_streams_leave_nothing_behind(board: Board) -> None:
    """Three replicas on one server: an error each time, and nothing goes on."""
    host = declared(board, echo, replicas=3)
    tasks = len(asyncio.all_tasks())
    for _ in range(2):
        with pytest.raises(StoreRefused, match="replicas"):
            await host.start()
        await nothing_is_left(host, tasks)
    await host.stop()


@pytest.mark.parametrize("most", [0, 1, 3, 4], ids=["first", "second", "workflow's", "lane's"])
async def test_a_refused_consumer_leaves_nothing_behind(
    board: Board, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Wherever it stops: no heart, no connection, no entry in the registry; then it starts after all."""
    host = declared(board, echo, echo_flow)
    tasks = len(asyncio.all_tasks())
    renew = host.renew
    made = 0

    async def refusing(*args: Any) -> None:
        nonlocal made
        made += 1
        if made > most:
            raise StoreRefused("maximum consumers limit reached")
        await renew(*args)

    with monkeypatch.context() as patch:
        patch.setattr(host, "renew", refusing)
        with pytest.raises(StoreRefused, match="maximum consumers"):
            await host.start()
    await nothing_is_left(host, tasks)
    assert await registry.hosts(await board.node()) == []
    await host.start()
    assert await board.run(echo_flow) == 7


async def test_a_server_that_takes_no_more_consumers(board: Board) -> None:
    """The error is the server's own."""
    host = declared(board, echo, max_consumers=2)
    tasks = len(asyncio.all_tasks())
    with pytest.raises(StoreRefused, match="consumer"):
        await host.start()
    await nothing_is_left(host, tasks)


async def test_an_agent_that_cannot_be_made_at_first(board: Board) -> None:
    """Its error comes out; the same host starts when it can be made."""
    host = declared(board, licensed_flow, Licensed, echo)
    tasks = len(asyncio.all_tasks())
    with pytest.raises(
        AppUnloadable, match="agent Licensed cannot be made: RuntimeError: no licence"
    ) as caught:
        await host.start()
    assert isinstance(caught.value.__cause__, RuntimeError)
    await nothing_is_left(host, tasks)
    LICENCES.append("for all")
    await host.start()
    assert await board.run(licensed_flow) == "for all"


async def test_a_host_without_actors_starts_once_and_stops(board: Board) -> None:
    """It is a host like any: known while it runs, gone afterwards."""
    host = declared(board)
    tasks = len(asyncio.all_tasks())
    await host.start()
    heart = host._heart
    await host.start()
    assert host._heart is heart
    await host.stop()
    async with asyncio.timeout(SOON):
        await host.stopped()
    await nothing_is_left(host, tasks)
    assert await registry.hosts(await board.node()) == []


async def start_without_server(
    host: Host, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> asyncio.Task[None]:
    """A start that hangs: the server is gone before the first consumer is made."""
    begin = Instance.start

    async def with_server_gone(instance: Instance) -> None:
        await asyncio.to_thread(server.kill)
        await until(lambda: not host.node.connection.connected.is_set())
        await begin(instance)

    with monkeypatch.context() as patch:
        patch.setattr(Instance, "start", with_server_gone)
        starting = asyncio.create_task(host.start())
        await until(lambda: hasattr(host, "node") and host.node.connection.connected.is_set())
        await until(lambda: not host.node.connection.connected.is_set())
    return starting


async def test_a_server_that_goes_midway_is_waited_for(
    board: Board, nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host goes on starting when it is back."""
    host = declared(board, echo, echo_flow)
    starting = await start_without_server(host, nats_server, monkeypatch)
    await asyncio.to_thread(nats_server.start)
    async with asyncio.timeout(2 * SOON):
        await starting
    assert await board.run(echo_flow) == 7


@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_start_that_is_given_up_midway(
    board: Board, nats_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Stopped or cancelled while the server is gone: it undoes what it did, and may begin anew."""
    tasks = len(asyncio.all_tasks())
    host = declared(board, echo, echo_flow)
    starting = await start_without_server(host, nats_server, monkeypatch)
    if how == "stop":
        async with asyncio.timeout(SOON):
            await host.stop()
    else:
        starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(SOON):
            await starting
    await nothing_is_left(host, tasks)
    await asyncio.to_thread(nats_server.start)
    await host.start()
    assert await board.run(echo_flow) == 7


async def test_a_stopped_host_may_start_again(board: Board) -> None:
    """With all that it had."""
    host = declared(board, echo, echo_flow)
    await host.start()
    await host.stop()
    assert await registry.hosts(await board.node()) == []
    await host.start()
    assert await board.run(echo_flow) == 7
    assert [pulse.host for pulse in await registry.hosts(await board.node())] == [host.id]


async def test_who_stops_a_host_that_is_stopping_waits_for_it(board: Board) -> None:
    """And a stop that is given up by one who waits goes on for the others."""
    host = declared(board, gated, gated_flow)
    await host.start()
    run = await board.submit(gated_flow)
    await until(lambda: instance(host, gated).info().busy)
    given_up = asyncio.create_task(host.stop(grace=2 * SOON))
    await until(lambda: host.draining)
    given_up.cancel()
    second = asyncio.create_task(host.stop())
    with pytest.raises(asyncio.CancelledError):
        await given_up
    assert not second.done()
    GATE.set()
    async with asyncio.timeout(SOON):
        await second
    assert host.node.connection.client.is_closed
    assert (await board.done(run)).status == "completed"


async def test_a_heart_that_stumbles_beats_on(board: Board) -> None:
    """An error that nobody has foreseen is logged; the host must not be taken for dead while it works."""
    host = declared(board, echo, echo_flow)
    await host.start()
    node = await board.node()
    pulls = host.pulls
    failed = threading.Event()

    def failing() -> Any:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("arrhythmia")
        return pulls()

    with capture_logs() as logs:
        host.pulls = failing  # type: ignore[method-assign]
        await until(lambda: "heart_failed" in [log["event"] for log in logs])
        (known,) = await registry.hosts(node)

        async def later() -> bool:
            found = await registry.hosts(node)
            return bool(found) and found[0].at > known.at

        await eventually(later)
