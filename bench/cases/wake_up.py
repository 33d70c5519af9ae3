"""Runs that were put aside, and come back for a signal."""

import os
import statistics
import time
from typing import TYPE_CHECKING

from bench.harness import Bound, Metric, Role, Sample, case

if TYPE_CHECKING:
    from bench.waiting import Waiting

WAITING = int(os.environ.get("WAITING", "100000"))
"""Runs that wait; fewer for a quick look: WAITING=10000 make bench ARGS="--case wake_up"."""
WOKEN = 200


@case(
    "wake_up",
    Metric("p50", "ms", Bound(at_most=20.0)),
    Metric("stored", "bytes/run", Bound(at_most=2048)),
    floor=False,
    rounds=1,
    timeout_s=1800,
)
async def wake_up(_: Role) -> Sample:
    """From sending a signal to the result of a run that was put aside, with 100,000 waiting."""
    from bench.waiting import open_waiting

    async with open_waiting() as waiting:
        before = waiting.memory()
        begun = time.perf_counter()
        runs = await waiting.put_aside(WAITING)
        took_s = time.perf_counter() - begun
        step = max(1, WAITING // WOKEN)
        stored = await waiting.stored_bytes()
        grown = {
            f"{part}, bytes/run": (now - before[part]) / WAITING for part, now in waiting.memory().items()
        }
        times = [await _woken(waiting, run) for run in runs[::step][:WOKEN]]
    cuts = statistics.quantiles(times, n=100)
    return Sample(
        values={"p50": cuts[49] * 1000, "stored": stored / WAITING},
        calls=len(times),
        details={"p99_ms": cuts[98] * 1000, "waiting": WAITING, "put_aside_per_s": WAITING / took_s} | grown,
    )


async def _woken(waiting: "Waiting", run: str) -> float:
    begun = time.perf_counter()
    await waiting.wake(run)
    return time.perf_counter() - begun
