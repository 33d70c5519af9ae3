"""kill -9 of hosts between every two steps of an effect; ``CALLBOARD_FAULT_KILLS=1000`` kills so many.

With less than ``MANY`` kills only the steps that each call comes to are sure to have had their deaths.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Self

import pytest
from tests.faults import mortal
from tests.faults.board import ROOT, STUCK, Board

KILLS = int(os.environ.get("CALLBOARD_FAULT_KILLS", "36"))
AT_ONCE = 4
MANY = 300
"""Kills after which some have died at each later step, too; with fewer that is not demanded."""
FEEDERS = 3
EFFECTS = 20
"""Of a run."""

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300 + KILLS)]


class Nursery:
    """Hosts that kill themselves at a step; see :mod:`tests.faults.mortal`.

    Args:
        process: of the nursery; log: the file that holds its and their standard error.

    Attributes:
        living: what is to become of each; died: how many have, at each step.
    """

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.living: list[str] = []
        self.died: Counter[str] = Counter()

    @classmethod
    async def start(cls, board: Board) -> Self:
        """The nursery alone."""
        log = board.folder / "nursery.log"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
            "FAULTS_LEDGER": str(board.folder / "ledger"),
            "CALLBOARD_ACK_WAIT": str(board.settings().ack_wait),
            "CALLBOARD_TELEMETRY_MAX_BYTES": str(board.settings().telemetry_max_bytes),
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, mortal.__file__, board.server.url),
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
            )
        return cls(process, log)

    def bear(self, fate: str) -> None:
        """One host more."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{fate}\n".encode())
        self.living.append(fate)

    async def death(self) -> None:
        """Wait until one has died as it was to."""
        assert self._process.stdout is not None
        async with asyncio.timeout(STUCK):
            line = (await self._process.stdout.readline()).decode()
        code, _, fate = line.partition(" ")
        assert code == str(-signal.SIGKILL), self._log.read_text(errors="replace")[-5000:]
        self.living.remove(fate.strip())
        self.died[fate.rpartition(" ")[0]] += 1

    async def end(self) -> None:
        """Of it and all hosts."""
        self._process.kill()
        await self._process.wait()


async def kill(board: Board, nursery: Nursery) -> None:
    """Some hosts work, each until it comes to its step; then two that live finish what is left."""
    every, first = itertools.cycle((*mortal.LATER, *mortal.FIRST)), itertools.cycle(mortal.FIRST)
    for _ in range(KILLS + AT_ONCE):
        # Without deaths no call comes to a later step, so that some have to be there that die in any case.
        late = sum(fate.startswith(mortal.LATER) for fate in nursery.living)
        step = next(every if late < AT_ONCE // 2 else first)
        nursery.bear(f"{step} {board.chance.randint(1, 3)}")
        if len(nursery.living) > AT_ONCE:
            await nursery.death()
    for _ in range(2):
        nursery.bear("lives")


async def feed(board: Board, feeder: int, killing: asyncio.Task[None], told: dict[str, str]) -> None:
    """Runs, one after the other, as long as hosts are killed."""
    number = 0
    while not killing.done():
        names = [f"{feeder} {number} {effect}" for effect in range(EFFECTS)]
        run = await board.client.submit("buying", {"names": names})
        told |= await board.client.result(run, 2 * STUCK)
        number += 1


async def test_hosts_are_killed_between_any_two_steps(board: Board) -> None:
    """Of each effect the ledger has one entry at most; who was not told its result was told so."""
    await board.hosts(1, "buying")
    nursery = await Nursery.start(board)
    told: dict[str, str] = {}
    try:
        async with asyncio.TaskGroup() as group:
            killing = group.create_task(kill(board, nursery))
            for feeder in range(FEEDERS):
                group.create_task(feed(board, feeder, killing, told))
    finally:
        await nursery.end()
    with closing(sqlite3.connect(board.folder / "effects")) as base:
        times = Counter(name for (name,) in base.execute("SELECT name FROM done"))
    assert [name for name, count in times.items() if count > 1] == []
    assert set(told.values()) <= {"done", "unknown", "never"}
    assert [name for name, what in told.items() if what == "never" and times[name]] == []
    assert [name for name, what in told.items() if what == "done" and times[name] != 1] == []
    assert {"done", "unknown"} <= set(told.values())
    assert sum(nursery.died.values()) >= KILLS
    assert set(nursery.died) >= set(mortal.FIRST)
    if KILLS >= MANY:
        assert set(nursery.died) >= set(mortal.LATER), "nobody died at some later step"
