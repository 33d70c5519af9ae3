"""A driver in a process of its own, without the agents' code, calls agents on a real server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.actors.stubs.support import SAMPLES
from tests.support.waiting import SOON

from callboard.actors.client import Client, connect
from callboard.infra.errors import CallFailed, RunFailed


@asynccontextmanager
async def driving(project: Path, url: str, *path: Path) -> AsyncIterator[str]:
    """A driver process in a project; gives what it says of its modules."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "main.py",
        url,
        cwd=project,
        env={"PYTHONPATH": ":".join(map(str, path)), "PATH": "/usr/bin:/bin"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    told = []
    try:
        while not (line := (await process.stderr.readline()).decode()).startswith("ready"):
            told.append(line)
            assert line, "".join(told)
        yield line.strip()
    finally:
        async with asyncio.timeout(2 * SOON):
            await process.communicate(b"")
    assert process.returncode == 0


async def outcome(client: Client, workflow: str) -> tuple[str, list[tuple[str, str]]]:
    """The result of a run, and which call was made where."""
    run = await client.submit(workflow, {"question": "Compare AAPL and MSFT"})
    result = await client.result(run, timeout=SOON)
    events = [event async for event in client.events(run, follow=False)]
    calls = [(e.data["future"].partition(":")[2], e.data["call"]) for e in events if e.kind == "result"]
    return str(result), sorted(calls)


@pytest.fixture
def over_stubs(tmp_path: Path, board: str) -> Path:
    """A driver's repository with stubs in it."""
    return project(tmp_path / "stubs", board)


@pytest.fixture
def over_declarations(tmp_path: Path) -> Path:
    """The same driver's, with the agents' own module."""
    return project(tmp_path / "declarations", "from market import *\n")


def project(path: Path, board: str) -> Path:
    """A folder with a driver in it, and what it calls `board`."""
    path.mkdir()
    for name in ("driver", "main"):
        (path / f"{name}.py").write_text((SAMPLES / f"{name}.py.txt").read_text())
    (path / "board.py").write_text(board)
    return path


@pytest.mark.slow
async def test_a_driver_without_the_agents_code_gets_the_same_results(
    hosted: str, over_stubs: Path, over_declarations: Path
) -> None:
    """The same workflow over stubs and over declarations: results and calls are the same."""
    async with connect(hosted) as client:
        async with driving(over_stubs, hosted) as told:
            assert told == "ready [] False"
            first = [await outcome(client, name) for name in ("research", "research_in_thread")]
            run = await client.submit("failing", {"why": "holiday"})
            with pytest.raises(RunFailed) as caught:
                await client.result(run, timeout=SOON)
        async with driving(over_declarations, hosted, SAMPLES) as told:
            assert told == "ready ['market', 'numpy'] True"
            second = [await outcome(client, name) for name in ("research", "research_in_thread")]
    assert first == second
    text, calls = first[0]
    assert text.startswith("AAPL +20.0 HIGH ['x']\nMSFT +20.0 HIGH ['x']\nAAPL=20.0\nlast=20.0\n")
    assert text.endswith("-22 [0.0] leaf 1.50 HIGH set")
    assert ("1", "Analyst.plan") in calls
    cause = caught.value.__cause__
    assert isinstance(cause, CallFailed)
    assert cause.fields["remote_type"] == "market:MarketClosed"
