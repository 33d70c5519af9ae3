"""Starting, sharing, draining, and servers that go and come."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter

import nats.errors
import pytest
from structlog.testing import capture_logs
from tests.actors.gateway.support import WORKFLOWS, Asker, gates, greet
from tests.support.board import Board
from tests.support.waiting import SOON, eventually, until

from callboard.actors.gateway import Gateway
from callboard.actors.gateway.discovery import Discovery
from callboard.infra.errors import ConnectFailed, ConnectionLost
from callboard.infra.server import EmbeddedServer


async def test_starts_and_stops_once(ask: Asker, board: Board) -> None:
    """Both are idempotent; before and after nobody answers."""
    await board.host(greet)
    gateway = Gateway(board.settings())
    await gateway.stop()
    with pytest.raises(nats.errors.NoRespondersError):
        await ask("health", "all")
    await asyncio.gather(gateway.start(), gateway.start())
    await gateway.start()
    assert (await ask("run", "greet", {"name": "Ada"})).body["value"] == "Hello Ada"
    await asyncio.gather(gateway.stop(), gateway.stop())
    await gateway.stop()
    with pytest.raises(nats.errors.NoRespondersError):
        await ask("health", "all")


async def test_one_connection(ask: Asker, board: Board) -> None:
    """FastStream, discovery and the client share a connection: one watchdog, one way to reconnect."""
    async with Gateway(board.settings()) as gateway:
        assert gateway._broker.connection is gateway._client.node.connection.client
        options = gateway._client.node.connection.client.options
        assert (options["max_reconnect_attempts"], options["ping_interval"]) == (-1, 10)


async def test_no_server() -> None:
    """Told as for any process on the board; it can be tried again with another gateway."""
    with pytest.raises(ConnectFailed):
        await Gateway("nats://127.0.0.1:1").start()


async def test_connection_lost_while_starting(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told as an error of Callboard's, and nothing is left behind."""

    async def lost(_: object) -> None:
        raise nats.errors.FlushTimeoutError

    monkeypatch.setattr(Discovery, "start", lost)
    gateway = Gateway(board.settings())
    with pytest.raises(ConnectFailed, match="while the gateway started"):
        await gateway.start()
    assert gateway._connection.client.is_closed


async def test_two_share_the_work(ask: Asker, board: Board) -> None:
    """Each request is answered by one of them."""
    await board.host(greet)
    async with Gateway(board.settings()) as one, Gateway(board.settings()) as two:
        await asyncio.gather(*(ask("run", "greet", {"name": str(n)}) for n in range(200)))
        taken = [gateway._tallies["run"].taken for gateway in (one, two)]
        assert sum(taken) == 200
        assert min(taken) > 20
        told = Counter([(await ask("health", "all")).body["gateway"] for _ in range(50)])
        assert set(told) == {one.id, two.id}


async def test_nothing_is_lost_when_one_of_two_stops(ask: Asker, board: Board) -> None:
    """Under load: what the leaving one was sent it answers, the rest goes to the other."""
    await board.host(greet)
    async with Gateway(board.settings()):
        leaving = Gateway(board.settings())
        await leaving.start()
        asked = [asyncio.ensure_future(ask("run", "greet", {"name": str(n)})) for n in range(600)]
        await until(lambda: leaving._tallies["run"].taken > 20)
        await leaving.stop()
        assert leaving._tallies["run"].answered == leaving._tallies["run"].taken
        answers = await asyncio.gather(*asked)
        assert [one.body["value"] for one in answers] == [f"Hello {n}" for n in range(600)]


async def test_drain_answers_who_waits(ask: Asker, board: Board) -> None:
    """Within the grace the outcome, whenever it comes; new requests find nobody."""
    await board.host(*WORKFLOWS)
    gateway = Gateway(board.settings())
    await gateway.start()
    asked = [asyncio.ensure_future(ask("run", "hold", {"name": str(n)})) for n in range(20)]
    await until(lambda: len(gates.entered) == 20)
    stopping = asyncio.ensure_future(gateway.stop(grace=2 * SOON))
    await until(lambda: all(one.subscription is None for one in gateway._subscribers))
    with pytest.raises(nats.errors.NoRespondersError):
        await ask("health", "all")
    assert not stopping.done()
    gates.open.set()
    assert sorted(one.body["value"] for one in await asyncio.gather(*asked)) == sorted(gates.entered)
    await stopping


async def test_drain_beyond_the_grace(ask: Asker, board: Board) -> None:
    """Who still waits then is told that the run goes on; it does."""
    await board.host(*WORKFLOWS)
    gateway = Gateway(board.settings())
    await gateway.start()
    asked = asyncio.ensure_future(ask("run", "hold", {"name": "a"}))
    await until(lambda: gates.entered)
    await gateway.stop(grace=0.1)
    answer = await asked
    assert (answer.code, answer.body["status"]) == ("result_timeout", "running")
    assert "being stopped" in answer.body["error"]["message"]
    gates.open.set()
    async with Gateway(board.settings()):
        assert (await ask("result", answer.body["run"])).body["value"] == "a"


async def test_server_restarts(ask: Asker, board: Board, nats_server: EmbeddedServer) -> None:
    """The gateway reconnects for ever, and answers again; nothing is told twice in the log."""
    await board.host(greet)
    with capture_logs() as logs:
        async with Gateway(board.settings()) as gateway:
            connection = gateway._client.node.connection
            await asyncio.to_thread(nats_server.kill)
            await until(lambda: not connection.client.is_connected)
            await asyncio.to_thread(nats_server.start)
            async with asyncio.timeout(SOON):
                await connection.connected.wait()
            await until(lambda: ask.connection.is_connected)
            assert (await ask("run", "greet", {"name": "Ada"})).body["value"] == "Hello Ada"

            async def well() -> bool:
                return bool((await ask("health", "all")).body["status"] == "ok")

            await eventually(well)  # the host's heart has a connection of its own, which may come later
    told = Counter(log["event"] for log in logs if log.get("name") == gateway.id)
    assert (told["disconnected"], told["reconnected"]) == (1, 1)
    assert not [log for log in logs if log.get("component") == "faststream" and log["log_level"] != "debug"]


async def test_stops_without_a_server(board: Board, nats_server: EmbeddedServer) -> None:
    """Nobody can be answered then, so it does not wait."""
    gateway = Gateway(board.settings())
    await gateway.start()
    await asyncio.to_thread(nats_server.kill)
    await until(lambda: not gateway._client.node.connection.client.is_connected)
    async with asyncio.timeout(SOON):
        await gateway.stop(grace=3 * SOON)
    assert gateway._connection.client.is_closed


async def test_serves_until_told(ask: Asker, board: Board) -> None:
    """For a command: it answers, and returns once it has drained."""
    stop = asyncio.Event()
    gateway = Gateway(board.settings())
    await gateway.start()
    serving = asyncio.create_task(gateway.serve(stop))
    assert (await ask("health", "all")).body["gateway"] == gateway.id
    stop.set()
    await serving
    assert gateway._state == "stopped"


async def test_connection_lost_for_good(board: Board) -> None:
    """A closed connection ends serving with an error, so that the process ends; whoever asked is told."""
    told: list[ConnectionLost] = []

    async def on_lost(error: ConnectionLost) -> None:
        told.append(error)

    gateway = Gateway(board.settings(), on_lost)
    await gateway.start()
    serving = asyncio.create_task(gateway.serve(asyncio.Event()))
    await gateway._client.node.connection.client.close()
    with pytest.raises(ConnectionLost):
        await serving
    assert len(told) == 1


def test_loads_when_used() -> None:
    """Hosts and clients pay nothing for FastStream."""
    code = (
        "import sys, callboard.actors.host, callboard.actors.client, callboard.cli;"
        "assert not {'faststream', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
