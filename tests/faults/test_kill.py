"""kill -9, of everything, under load."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest
from tests.faults.board import PATIENT, Board, until
from tests.faults.checker import Allowed, Evidence
from tests.faults.ledger import START

pytestmark = pytest.mark.fault


async def test_nothing(board: Board) -> None:
    """Without a fault every call runs once: what the other scenarios are measured against."""
    await asyncio.gather(
        board.hosts(2, "tools", dead_after=PATIENT), board.hosts(2, "workflows", dead_after=PATIENT)
    )
    await board.load(60)
    await board.verdict(Allowed(starts=1, late=0.0))


@pytest.mark.fault(seeds=(1, 2))
async def test_host(board: Board) -> None:
    """Two of three hosts die, one after the other; a new one takes their place."""
    (first, second, _), _ = await asyncio.gather(board.hosts(3, "tools"), board.hosts(1, "workflows"))
    await board.load(60, pause=0.05)
    await board.progress(board.chance.randint(20, 100))
    await first.kill()
    spare = await board.spawn("tools")
    await board.progress(board.chance.randint(120, 200))
    await second.kill()
    await spare.ready()
    await board.verdict()


@pytest.mark.fault(seeds=(1, 2))
async def test_driver(board: Board) -> None:
    """The driver dies with runs in flight: another goes on, and no finished call runs again."""
    slowly = 3.0  # on a busy machine nobody alive may be taken for dead: each call is to run once
    _, (driver,) = await asyncio.gather(
        board.hosts(2, "tools", dead_after=slowly), board.hosts(1, "workflows", dead_after=slowly)
    )
    await board.hold()  # it has a run in flight when it dies, however late that is
    await board.hosts(1, "workflows", dead_after=slowly)
    await board.load(80, pause=0.1)
    await board.progress(board.chance.randint(50, 150))
    killed_at = time.time()
    await driver.kill()
    board.open_gate()
    report_progress(await board.verdict(Allowed(starts=1, late=0.0)), killed_at)


def report_progress(found: Evidence, since: float) -> None:
    """Say when the first run that was taken over went on: its first result after a new owner's lease."""
    taken = {e.run: e.sequence for e in reversed(found.journal) if e.kind == "owner" and e.body.epoch > 1}
    results = [
        e.at
        for e in found.journal
        if e.kind in {"result", "done"} and e.sequence > taken.get(e.run, e.sequence)
    ]
    assert results, "the driver had no run in flight"
    sys.stdout.write(f"{len(taken)} runs taken over, first progress after {min(results) - since:.2f} s\n")


@pytest.mark.fault(seeds=(1, 2))
async def test_host_and_driver(board: Board) -> None:
    """A host and a driver die at the same moment."""
    (first, _), (driver, _) = await asyncio.gather(board.hosts(2, "tools"), board.hosts(2, "workflows"))
    await board.load(60, pause=0.05)
    await board.progress(board.chance.randint(50, 200))
    await asyncio.gather(first.kill(), driver.kill())
    await board.verdict()


async def test_host_that_drives(board: Board) -> None:
    """Hosts that do both, tools and workflows: all but one die, one after the other."""
    hosts = await board.hosts(3, "tools", "workflows")
    await board.load(60, pause=0.05)
    for ends, host in ((60, hosts[0]), (150, hosts[1])):
        await board.progress(ends + board.chance.randint(0, 40))
        await host.kill()
    await board.verdict()


@pytest.mark.fault(seeds=(1, 2))
async def test_server(board: Board) -> None:
    """The server dies while requests come in, and starts again on its store."""
    await asyncio.gather(board.hosts(2, "tools"), board.hosts(2, "workflows"))
    load = asyncio.create_task(board.load(80, pause=0.05))
    await board.progress(board.chance.randint(5, 150))
    await asyncio.to_thread(board.server.kill)
    await asyncio.to_thread(board.server.start)
    await load
    await board.verdict()


async def test_server_again_and_again(board: Board) -> None:
    """The server dies three times in a row, the last times while processes are still coming back."""
    await asyncio.gather(board.hosts(2, "tools"), board.hosts(1, "workflows"))
    load = asyncio.create_task(board.load(60, pause=0.05))
    for ends in (10, 60, 61):
        await board.progress(ends)
        await asyncio.to_thread(board.server.kill)
        await asyncio.to_thread(board.server.start)
    await load
    await board.verdict()


@pytest.mark.fault(seeds=(1, 2))
async def test_server_and_host(board: Board) -> None:
    """The server and a host die at the same moment."""
    (first, _), _ = await asyncio.gather(board.hosts(2, "tools"), board.hosts(1, "workflows"))
    await board.load(60, pause=0.05)
    await board.progress(board.chance.randint(20, 200))
    await asyncio.gather(first.kill(), asyncio.to_thread(board.server.kill))
    await asyncio.to_thread(board.server.start)
    await board.verdict()


async def test_everything(board: Board) -> None:
    """All processes and the server die; all of them start again."""
    workers = await board.hosts(2, "tools", "workflows")
    await board.load(50, pause=0.05)
    await board.progress(board.chance.randint(50, 150))
    await asyncio.gather(*(w.kill() for w in workers), asyncio.to_thread(board.server.kill))
    await asyncio.to_thread(board.server.start)
    await board.hosts(2, "tools", "workflows")
    await board.verdict()


async def test_takeover_times(board: Board) -> None:
    """Hosts die in mid-call, each in another phase of its heartbeat: every call runs again."""
    hosts, _ = await asyncio.gather(board.hosts(5, "held"), board.hosts(1, "workflows"))
    for number in range(5):
        await board.submit("holding", number=number)
    await until(lambda: len(holders(board)) == 5, "five calls begun, each on a host of its own")
    killed = {}
    for host in hosts[:4]:
        await asyncio.sleep(board.chance.uniform(0.0, 0.3))  # the phase of the heartbeat, not a wait
        killed[host.pid] = time.time()
        await host.kill()
    lost = {future: killed[pid] for future, (pid, _) in holders(board).items() if pid in killed}
    await board.hosts(4, "held")
    await until(
        lambda: not any(holders(board)[future][0] in killed for future in lost), "their calls begun again"
    )
    waits = sorted(holders(board)[future][1] - at for future, at in lost.items())
    sys.stdout.write(f"takeover after {', '.join(f'{wait:.2f}' for wait in waits)} s\n")
    board.open_gate()
    await board.verdict()


def holders(board: Board) -> dict[str, tuple[int, float]]:
    """Who has begun each call last, and when."""
    begun = [entry for entry in board.ledger.refresh() if entry.what == START]
    return {entry.future: (entry.pid, entry.at) for entry in begun}
