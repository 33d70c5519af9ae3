"""Two controllers that start hosts, each in a process of its own: whatever happens to them, none is doubled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.controller import fleet_app
from tests.support.board import Board
from tests.support.waiting import eventually, until

from callboard.actors.app import load
from callboard.actors.declared import Workflow
from callboard.actors.node import Node
from callboard.controller import lease
from callboard.controller.follow import Follower
from callboard.controller.view import View

APP = f"{Path(fleet_app.__file__)}:work"
LEAST = 2
WITHIN = 30.0


class Watched:
    """What a third one sees: how many hosts take calls, and the most there ever were.

    Args:
        node: of a process that looks.
    """

    def __init__(self, node: Node) -> None:
        self.view = View()
        self._follower = Follower(node, self.view)
        self._task: asyncio.Task[None] | None = None
        self.most = 0

    async def start(self) -> None:
        """Look all the time."""
        await self._follower.start()
        self._task = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """Idempotent."""
        self._follower.stop()
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        while True:
            self.most = max(self.most, len(self.pids()))
            await asyncio.sleep(0.005)

    def pids(self) -> set[int]:
        """Of the hosts that take calls."""
        view = self.view
        return {
            pid
            for host, (_, pid) in view.processes.items()
            if f"work@{host}" in view.instances and not view.hosts["draining"][view.hosts.row(host)]
        }


@pytest.fixture
async def watched(board: Board) -> AsyncIterator[Watched]:
    """Looks at the board, as slowly as the hosts beat."""
    node = Node(board.settings(pulse_every=0.4, dead_after=1.3), "watcher")
    watched = Watched(await node.open())
    await watched.start()
    yield watched
    await watched.stop()
    await node.close()


async def spawn(url: str, tmp_path: Path, app: str = APP) -> asyncio.subprocess.Process:
    """A controller that starts hosts."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CALLBOARD_")}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "callboard", "controller", "--nats", url, "--app", app, "--hosts", "8",
        "--log-level", "warning",
        env={**kept, "FLEET_LEDGER": str(tmp_path / "ledger"), "CALLBOARD_GRACE": "2"},
    )  # fmt: skip


@pytest.fixture
async def two(nats_url: str, tmp_path: Path) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """The first leads."""
    first = await spawn(nats_url, tmp_path)
    started = [first]
    yield started
    for one in started:
        with contextlib.suppress(ProcessLookupError):
            one.send_signal(signal.SIGCONT)
            one.terminate()
        await one.wait()


async def ready(board: Board, started: list[asyncio.subprocess.Process], tmp_path: Path) -> None:
    """Start the second when the first leads."""
    node = await board.node()
    await eventually(lambda: lease.leader(node), WITHIN)
    started.append(await spawn(board.url, tmp_path))


@pytest.mark.fault
async def test_the_leader_is_killed(
    board: Board, two: list[asyncio.subprocess.Process], watched: Watched, tmp_path: Path
) -> None:
    """With ``kill -9``: its hosts drain and end by themselves, the other one starts as many, and no more."""
    await ready(board, two, tmp_path)
    await until(lambda: len(watched.pids()) == LEAST, WITHIN)
    old = watched.pids()
    await board.host(fleet_app.working, pulse_every=0.4, dead_after=1.3)
    run = await board.submit(fleet_app.working, count=200)
    two[0].kill()
    await until(lambda: len(watched.pids() - old) == LEAST, WITHIN)
    await until(lambda: not any(map(psutil.pid_exists, old)), WITHIN)
    assert watched.most == LEAST
    assert (await board.done(run, WITHIN)).status == "completed"


@pytest.mark.fault
async def test_the_leader_stands_still(
    board: Board, two: list[asyncio.subprocess.Process], watched: Watched, tmp_path: Path
) -> None:
    """And wakes up: its hosts go on, the one that leads meanwhile starts none, and neither does it."""
    await ready(board, two, tmp_path)
    await until(lambda: len(watched.pids()) == LEAST, WITHIN)
    old, node = watched.pids(), await board.node()
    before = await lease.leader(node)
    two[0].send_signal(signal.SIGSTOP)

    async def another() -> bool:
        return await lease.leader(node) not in {"", before}

    await eventually(another, WITHIN)
    await reports(watched, 8)
    two[0].send_signal(signal.SIGCONT)
    await reports(watched, 8)
    await until(lambda: watched.pids() == old, WITHIN)
    assert watched.most == LEAST


async def reports(watched: Watched, count: int) -> None:
    """Wait until the hosts have told so much."""
    seen = int(watched.view.hosts["sequence"].sum())
    await until(lambda: int(watched.view.hosts["sequence"].sum()) >= seen + count, WITHIN)


@pytest.mark.fault
async def test_the_leader_is_ended(
    board: Board, two: list[asyncio.subprocess.Process], watched: Watched, tmp_path: Path
) -> None:
    """Gently: the other one starts as many at once, while the first drains its own; it leaves none behind."""
    await ready(board, two, tmp_path)
    await until(lambda: len(watched.pids()) == LEAST, WITHIN)
    old = watched.pids()
    two[0].terminate()
    assert await two[0].wait() == 0
    assert not any(map(psutil.pid_exists, old))
    await until(lambda: len(watched.pids() - old) == LEAST, WITHIN)
    assert watched.most <= LEAST
    assert len(watched.pids()) == LEAST


STUCK = """
import time
from pathlib import Path
from callboard import tool, workflow

@tool(min_instances=1)
async def stuck() -> None:
    (Path(__file__).parent / "stuck").touch()
    time.sleep(300)

@workflow
async def sticking() -> None:
    await stuck()
"""


@pytest.mark.fault
@pytest.mark.parametrize("hangs", ["while it starts", "later on"])
async def test_a_host_that_hangs_does_not_outlive_its_controller(
    board: Board, tmp_path: Path, hangs: str
) -> None:
    """Its event loop is blocked, so it cannot drain: it ends when its grace is over."""
    app = tmp_path / f"stuck_{hangs.split(maxsplit=1)[0]}.py"  # a module of its own
    app.write_text(STUCK)

    async def call() -> None:
        await board.host(loaded(str(app)), pulse_every=0.4, dead_after=1.3)
        run = await (await board.client()).submit("sticking", {})
        await board.entries(run, "owner")

    if hangs == "while it starts":
        await call()
    controller = await spawn(board.url, tmp_path, str(app))
    try:
        if hangs == "later on":
            await call()
        await until((tmp_path / "stuck").exists, WITHIN)
        hosts = psutil.Process(controller.pid).children()
        assert len(hosts) == 1
    finally:
        controller.kill()
        await controller.wait()
    await until(lambda: not any(host.is_running() for host in hosts), WITHIN)


def loaded(app: str) -> Workflow[..., object]:
    """The workflow of an application."""
    return load(app).workflow("sticking")
