import asyncio
from collections.abc import AsyncIterator

import psutil
import pytest

from bench import jobs
from bench.harness import Role
from bench.sides import Stage, open_side


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """The floor with a real server and a real worker process."""
    async with open_side(Role.FLOOR, [], []) as opened:
        yield opened


async def test_every_call_of_the_floor_is_answered(stage: Stage) -> None:
    """The few calls of each kind come back, and workflows take as long as their jobs."""
    assert len(await stage.side.sequential(3)) == 3
    assert await stage.side.fan_out(20) > 0
    load = await stage.side.workflows(6, at_once=3)
    assert len(load.latencies_s) == 6
    assert min(load.latencies_s) >= jobs.PLAN_S + jobs.TOOL_S + jobs.SUMMARY_S


async def test_held_calls_run_once_the_gate_opens(stage: Stage) -> None:
    """They are stored while the worker is blocked, and each enters the ledger once."""
    ledger = jobs.LedgerReader(stage.here.folder / "ledger")
    answers = asyncio.ensure_future(await stage.side.hold(50))
    assert not answers.done()
    assert ledger.fresh() == []
    (stage.here.folder / "gate").touch()
    await answers
    assert sorted(int(entry.key) for entry in ledger.fresh()) == list(range(50))


async def test_a_side_leaves_nothing_behind() -> None:
    """Server and worker end with the side, and its folder is gone."""
    async with open_side(Role.FLOOR, [], []) as opened:
        folder = opened.here.folder
        children = [worker.pid for worker in opened.side.workers()]
        assert psutil.pid_exists(children[0])
    assert not any(psutil.pid_exists(pid) for pid in children)
    assert not folder.exists()
