"""A driver process that dies with many runs in flight."""

import asyncio
import collections
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from bench import jobs
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import Child, place, until

if TYPE_CHECKING:
    from bench.callboard_side import CallboardSide

RUNS = 1000
STEPS = 6
PHASE_TIMEOUT_S = 60.0


@case(
    "driver_loss",
    Metric("unfinished", "runs", Bound(at_most=0), combine=max),
    Metric("executed_again", "calls", Bound(at_most=0), combine=max),
    Metric("first_progress", "s", Bound(at_most=3.0), combine=max),
    floor=False,
    timeout_s=300,
)
async def driver_loss(_: Role) -> Sample:
    """The driver is killed (-9) with 1,000 runs in flight, a second driver is alive."""
    from bench.callboard_side import open_apart, spawn_host

    async with place() as here, open_apart(here, ["relayed"], "relay") as (side, server, driver):
        runs = [await side.submit("relay", run=number, steps=STEPS) for number in range(RUNS)]
        ledger = here.folder / "ledger"
        await _until(ledger, "begin", RUNS)
        await spawn_host(here, server, ["relay"])
        (here.folder / "gate").touch()
        killed_at = await _kill_midway(driver, ledger)
        unfinished = await _unfinished(side, runs)
        finished_s = time.monotonic() - killed_at
        story = jobs.LedgerReader(ledger).fresh()
    verdict = judge(story, killed_at)
    values: dict[str, float] = {
        "unfinished": unfinished,
        "executed_again": verdict.executed_again,
    }
    if verdict.first_progress_s is not None:
        values["first_progress"] = verdict.first_progress_s
    return Sample(
        values=values,
        details={"all_finished_s": finished_s, "begun_twice": verdict.begun_twice},
    )


async def _kill_midway(driver: Child, ledger: Path) -> float:
    """Kill the driver when a third of the calls have ended; when that was, monotonic seconds."""
    await _until(ledger, "end", RUNS * STEPS // 3)
    killed_at = time.monotonic()
    await driver.kill()
    return killed_at


async def _until(ledger: Path, what: str, count: int) -> None:
    """Wait until the ledger holds `count` entries of a kind."""
    reader = jobs.LedgerReader(ledger)
    seen = 0

    def enough() -> bool:
        nonlocal seen
        seen += sum(entry.what == what for entry in reader.fresh())
        return seen >= count

    await until(enough, PHASE_TIMEOUT_S)


async def _unfinished(side: "CallboardSide", runs: Sequence[str]) -> int:
    results = await asyncio.gather(*(side.result(run) for run in runs), return_exceptions=True)
    return sum(isinstance(result, BaseException) for result in results)


class Verdict(msgspec.Struct, frozen=True):
    """What a ledger tells about a driver's death.

    Args:
        executed_again: calls that began once more after they had ended.
        begun_twice: calls that began more than once, ended before or not.
        first_progress_s: seconds from the death until a call began that only a new driver can
            have sent: its predecessor in the run ended after the death. None if none did.
    """

    executed_again: int
    begun_twice: int
    first_progress_s: float | None


def judge(story: Sequence[jobs.Entry], killed_at_s: float) -> Verdict:
    """Read a ledger of `<run>.<step>` entries, in the order in which they were written."""
    begun: collections.Counter[str] = collections.Counter()
    ended_at: dict[str, float] = {}
    again: set[str] = set()
    progress: list[float] = []
    for entry in story:
        if entry.what == "end":
            ended_at.setdefault(entry.key, entry.at_s)
            continue
        begun[entry.key] += 1
        if entry.key in ended_at:
            again.add(entry.key)
        if ended_at.get(_predecessor(entry.key), 0.0) > killed_at_s:
            progress.append(entry.at_s - killed_at_s)
    return Verdict(
        executed_again=len(again),
        begun_twice=sum(count > 1 for count in begun.values()),
        first_progress_s=min(progress, default=None),
    )


def _predecessor(key: str) -> str:
    run, step = key.split(".")
    return f"{run}.{int(step) - 1}"
