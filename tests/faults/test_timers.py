"""What comes due while nobody is there to do it: retries, time-outs, batches; and clocks that jump."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest
from tests.faults import app
from tests.faults.board import Board, Worker, until
from tests.faults.checker import Allowed
from tests.faults.ledger import START

pytestmark = pytest.mark.fault

_RUNS = 12
_OVERDUE = app.PATIENCE + 0.5
"""Seconds after which everything that waits for its time is due."""


async def waiting(board: Board) -> None:
    """Wait until retries are in the stream, and handlers hang."""
    begun = 2 * _RUNS
    await until(lambda: board.ledger.count(START) >= begun, "a first attempt of every call")
    await board.retries_scheduled(_RUNS // 3)


async def hosts_away(board: Board, hosts: list[Worker]) -> None:
    """All hosts are killed; others come when everything is overdue."""
    await asyncio.gather(*(host.kill() for host in hosts))
    await board.timers_fired()
    await again(board)


async def hosts_drained(board: Board, hosts: list[Worker]) -> None:
    """The same in good order."""
    await asyncio.gather(*(host.drain() for host in hosts))
    await board.timers_fired()
    await again(board)


async def server_away(board: Board, hosts: list[Worker]) -> None:
    """The server is dead across the time; the hosts live on."""
    await asyncio.to_thread(board.server.kill)
    await asyncio.sleep(_OVERDUE)  # the fault itself lasts so long
    await asyncio.to_thread(board.server.start)
    assert all(host.running for host in hosts)


async def everything_away(board: Board, hosts: list[Worker]) -> None:
    """Nothing at all runs at the time."""
    await asyncio.gather(*(host.kill() for host in hosts), asyncio.to_thread(board.server.kill))
    await asyncio.sleep(_OVERDUE)  # the fault itself lasts so long
    await asyncio.to_thread(board.server.start)
    await again(board)


async def server_frozen(board: Board, hosts: list[Worker]) -> None:
    """The server stands still across the time."""
    async with board.server_frozen():
        await asyncio.sleep(_OVERDUE)  # the fault itself lasts so long
    assert all(host.running for host in hosts)


async def hosts_frozen(board: Board, hosts: list[Worker]) -> None:
    """All hosts stand still across the time; when they come back everything is due at once."""
    for host in hosts:
        host.freeze()
    await board.timers_fired()
    for host in hosts:
        host.thaw()


async def again(board: Board) -> None:
    """Hosts as at the beginning."""
    await asyncio.gather(board.hosts(2, "tools", grace=0.2), board.hosts(1, "workflows", grace=0.2))


@pytest.mark.parametrize(
    "fault", [hosts_away, hosts_drained, server_away, everything_away, server_frozen, hosts_frozen]
)
async def test_due_while_away(board: Board, fault: Callable[[Board, list[Worker]], Awaitable[None]]) -> None:
    """Retries, time-outs and batches that were due while somebody was away happen when he is back."""
    await again(board)
    hosts = list(board.workers)
    for number in range(_RUNS):
        await board.submit("timed", number=number)
    await waiting(board)
    await fault(board, hosts)
    await board.verdict(Allowed(frozen=frozenset(host.pid for host in hosts)))


@pytest.mark.parametrize("seconds", [-3600.0, -2.0, 2.0])
async def test_a_clock_jumps(board: Board, seconds: float) -> None:
    """One host's clock is set while retries wait; then another host dies, and is taken over by that one."""
    (jumping,), (dying,), _ = await asyncio.gather(
        board.hosts(1, "tools", clock=seconds),
        board.hosts(1, "tools"),
        board.hosts(1, "workflows", clock=seconds),
    )
    for number in range(_RUNS):
        await board.submit("timed", number=number)
    await board.load(20, pause=0.05)
    await waiting(board)
    for worker in board.workers:
        if worker is not dying:
            worker.signal(signal.SIGUSR2)
    await until(lambda: jumping.said("clock_set") == 1, "the jump")
    await board.load(20, pause=0.05)
    await dying.kill()
    await board.verdict()
