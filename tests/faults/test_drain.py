"""SIGTERM under load, and servers that start with work in their streams and nobody to do it."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from tests.faults import evidence
from tests.faults.board import PATIENT, STUCK, Board
from tests.faults.checker import Allowed

from callboard.infra.messages.control import Acknowledged, Drain

pytestmark = pytest.mark.fault


@pytest.mark.fault(seeds=(1, 2))
async def test_rolling_restart(board: Board) -> None:
    """All hosts are restarted, one after the other: nothing is lost, and nothing runs twice."""
    hosts, drivers = await asyncio.gather(
        board.hosts(2, "tools", dead_after=PATIENT), board.hosts(2, "workflows", dead_after=PATIENT)
    )
    load = asyncio.create_task(board.load(100, pause=0.05))
    for number, worker in enumerate([*hosts, *drivers]):
        await board.progress(40 * (number + 1))
        kind = "tools" if worker in hosts else "workflows"
        successor = await board.spawn(kind, dead_after=PATIENT)
        await successor.ready()
        await worker.drain()
    await load
    await board.verdict(Allowed(starts=1, late=0.0))


@pytest.mark.fault(seeds=(1, 2))
async def test_no_grace(board: Board) -> None:
    """Handlers and runs that do not end within the grace period are given back and go on elsewhere."""
    hosts = await board.hosts(2, "tools", "workflows", grace=0.1)
    await board.load(40, pause=0.2)
    await board.progress(board.chance.randint(30, 100))
    successors = await board.hosts(2, "tools", "workflows")
    await asyncio.gather(*(host.drain() for host in hosts))
    assert all(worker.running for worker in successors)
    await board.verdict()


async def test_held_call_is_given_back(board: Board) -> None:
    """A call in the middle of a drain without grace begins elsewhere at once."""
    (first,), _ = await asyncio.gather(
        board.hosts(1, "held", grace=0.1, dead_after=PATIENT), board.hosts(1, "workflows", dead_after=PATIENT)
    )
    await board.submit("holding", number=1)
    await board.begun(1)
    await board.hosts(1, "held", dead_after=PATIENT)
    await first.drain()
    await board.begun(2)
    board.open_gate()
    await board.verdict(Allowed(starts=2))


async def test_drain_by_message(board: Board) -> None:
    """A host that is told to drain over NATS ends like one that got SIGTERM."""
    (host,), _, _ = await asyncio.gather(
        board.hosts(1, "tools", "workflows", dead_after=PATIENT),
        board.hosts(1, "tools", dead_after=PATIENT),
        board.hosts(1, "workflows", dead_after=PATIENT),
    )
    await board.load(40, pause=0.05)
    await board.progress(60)
    async with evidence.connected(board.server.url) as client:
        told = msgspec.msgpack.encode(Drain())
        answer = await client.request(f"cb.control.{host.host}", told, timeout=STUCK)
        assert msgspec.msgpack.decode(answer.data, type=Acknowledged).host == host.host
    await host.ended()
    await board.verdict(Allowed(starts=1, late=0.0))


async def test_server_gone(board: Board) -> None:
    """SIGTERM ends a host within seconds even while there is no server; the work goes on without it."""
    workers = await board.hosts(1, "tools", "workflows", grace=0.5)
    await board.load(30, pause=0.05)
    await board.progress(40)
    await asyncio.to_thread(board.server.kill)
    await workers[0].drain()
    await asyncio.to_thread(board.server.start)
    await board.hosts(1, "tools", "workflows")
    await board.verdict()


@pytest.mark.fault(seeds=(1, 2))
async def test_backlog_without_hosts(board: Board) -> None:
    """The server restarts with full streams and nobody there; hosts that come later do all of it."""
    (first,) = await board.hosts(1, "tools", "workflows")  # makes the streams
    await first.drain()
    await board.load(150)
    (driver,) = await board.hosts(1, "workflows")  # fills CALLS, too
    await board.calls_waiting(100)
    await driver.kill()
    await asyncio.to_thread(board.server.restart)
    await asyncio.to_thread(board.server.kill)
    await asyncio.to_thread(board.server.start)
    await board.hosts(2, "tools", "workflows")
    await board.verdict()
