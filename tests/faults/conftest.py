"""The suite's own modules are imported by path from the root, here and in the processes it starts."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from tests.faults.board import Board  # noqa: E402 - needs the path above


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each scenario its seeds; ``CALLBOARD_FAULT_SEEDS=3,4,5`` gives all of them others."""
    if "seed" not in metafunc.fixturenames:
        return
    given = os.environ.get("CALLBOARD_FAULT_SEEDS")
    marker = metafunc.definition.get_closest_marker("fault")
    seeds = given.split(",") if given else marker.kwargs.get("seeds", (1,)) if marker else (1,)
    metafunc.parametrize("seed", [int(seed) for seed in seeds], ids=lambda seed: f"seed{seed}")


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember that a test has failed, for the fixture that tells what was going on."""
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


@pytest.fixture
def max_file_store() -> int | None:
    """Bytes that the server may store; a file of tests may say less."""
    return None


@pytest.fixture
async def board(
    request: pytest.FixtureRequest, seed: int, tmp_path: Path, max_file_store: int | None
) -> AsyncIterator[Board]:
    """A server, a client, and a place for processes; what is left running ends with the test."""
    async with Board(tmp_path, seed, max_file_store) as board:
        yield board
        if request.node.stash.get(_FAILED, default=False):
            await board.show()
