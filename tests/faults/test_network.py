"""A network that is slow, torn, silent or gone, between processes and the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from tests.faults.board import STUCK, Board, until
from tests.faults.checker import Allowed
from tests.faults.ledger import RAISED
from tests.faults.proxy import Proxy

from callboard.infra.errors import RunCancelled

pytestmark = pytest.mark.fault


@pytest.fixture
async def proxy(board: Board) -> AsyncIterator[Proxy]:
    """Between a process and the server."""
    async with Proxy(urlsplit(board.server.url).port or 0, board.chance.randrange(1000)) as proxy:
        yield proxy


@pytest.mark.fault(seeds=(1, 2))
async def test_delays_and_pieces(board: Board, proxy: Proxy) -> None:
    """All messages are late, and arrive in pieces of a few bytes."""
    await asyncio.gather(
        board.hosts(2, "tools", url=proxy.url),
        board.hosts(1, "workflows", url=proxy.url),
        board.hosts(1, "tools"),
    )
    proxy.delay, proxy.piece = 0.002, 1000
    await board.load(30)
    await board.progress(100)
    proxy.delay, proxy.piece = 0.0, 7
    await board.verdict()


@pytest.mark.fault(seeds=(1, 2))
async def test_host_cut_off(board: Board, proxy: Proxy) -> None:
    """A host is partitioned for longer than it may be silent, and comes back with late results."""
    ((host,), _, _) = await asyncio.gather(
        board.hosts(1, "tools", url=proxy.url), board.hosts(1, "tools"), board.hosts(1, "workflows")
    )
    await board.load(60, pause=0.05)
    await board.progress(board.chance.randint(20, 150))
    proxy.partition()
    await board.said("host_dead")
    proxy.heal()
    await board.verdict(Allowed(frozen=frozenset({host.pid})))


async def test_driver_cut_off(board: Board, proxy: Proxy) -> None:
    """A driver is partitioned; its runs are taken over; its late writes are fenced off."""
    await asyncio.gather(board.hosts(2, "tools"), board.hosts(1, "workflows", url=proxy.url))
    await board.hold()  # the driver that will be cut off has a run then, however late that is
    await board.hosts(1, "workflows")
    await board.load(60, pause=0.05)
    await board.progress(board.chance.randint(20, 150))
    proxy.partition()
    await board.said("run_taken_over")
    proxy.heal()
    board.open_gate()
    await board.verdict()


@pytest.mark.fault(seeds=(1, 2))
async def test_connections_lost(board: Board, proxy: Proxy) -> None:
    """Connections of hosts and of a driver are cut again and again; what was on its way is lost."""
    await asyncio.gather(board.hosts(2, "tools", url=proxy.url), board.hosts(1, "workflows", url=proxy.url))
    await board.load(60, pause=0.05)
    for ends in (30, 80, 130, 180):
        await board.progress(ends + board.chance.randint(0, 40))
        proxy.cut()
    await board.verdict()
    assert all(worker.running for worker in board.workers)


async def test_cut_after_silence(board: Board, proxy: Proxy) -> None:
    """First nothing passes, then the connection is gone: what was sent in between is lost on both sides."""
    ((host,), _, _) = await asyncio.gather(
        board.hosts(1, "tools", url=proxy.url),
        board.hosts(1, "tools"),
        board.hosts(1, "workflows", url=proxy.url),
    )
    await board.load(50, pause=0.05)
    for ends in (30, 120):
        await board.progress(ends)
        proxy.partition()
        await asyncio.sleep(0.3)  # the fault itself lasts so long
        proxy.cut()
        proxy.heal()
    await board.verdict(Allowed(frozen=frozenset({host.pid})))


async def test_slow_consumers(board: Board, proxy: Proxy) -> None:
    """A host and a driver can take far less than they are sent."""
    await asyncio.gather(
        board.hosts(1, "tools", url=proxy.url),
        board.hosts(1, "workflows", url=proxy.url),
        board.hosts(1, "tools"),
    )
    proxy.rate = 60_000
    await board.load(40)
    await board.progress(100)
    proxy.rate = 0
    await board.verdict()


async def test_no_second_connection(board: Board, proxy: Proxy) -> None:
    """A host whose heart cannot connect at first is none without a heart: its calls are taken over."""
    await board.hosts(1, "workflows")
    proxy.most = 1
    host = await board.spawn("held", url=proxy.url)
    await until(lambda: proxy.connections > 1, "the heart's connection")
    proxy.most = None
    await host.ready()
    await board.submit("holding", number=1)
    await board.begun(1)
    await board.hosts(1, "held")
    await host.kill()
    await board.begun(2)
    board.open_gate()
    await board.verdict(Allowed(starts=2))


async def test_cancellation_missed(board: Board, proxy: Proxy) -> None:
    """A host has no connection when a run is cancelled: the call runs to its end, and nobody looks at it."""
    (host,), _ = await asyncio.gather(board.hosts(1, "held", url=proxy.url), board.hosts(1, "workflows"))
    run = await board.submit("holding", number=1)
    board.accepted[-1] = board.accepted[-1]._replace(expected=RunCancelled)
    await board.begun(1)
    proxy.refusing = True
    proxy.cut()
    await until(lambda: host.said("disconnected") > 0, "the loss of the connection")
    await board.client.cancel(run, "nobody wants it")
    await board.settled()
    proxy.refusing = False
    await until(lambda: host.said("reconnected") > 0, "the connection")
    assert board.ledger.count(RAISED) == 0, "it was stopped"
    board.open_gate()
    await board.progress(1)
    await board.verdict(Allowed(late=STUCK))
    assert host.running
