"""What the controller's view costs."""

import gc
import statistics
import time

import numpy as np
import psutil

from bench.harness import Bound, Metric, Role, Sample, case
from bench.reports import Source
from callboard.controller.view import View

FEW = 1024
MANY = 131_072
MOST = 1_048_576
CHANGED = 100
ROUNDS = 50
MB = 1e6
HOST = "h-bench"


@case(
    "view",
    Metric("collect_1024", "ms", Bound(at_most=1.0)),
    Metric("collect_131072", "ms", Bound(at_most=10.0)),
    Metric("memory_1048576", "MB", Bound(at_most=500.0)),
    floor=False,
)
async def view(role: Role) -> Sample:
    """With so many open futures: 200 changes since the last look, and the deepest stage of each session."""
    few, _ = _collect(FEW)
    many, per_future = _collect(MANY)
    return Sample(
        values={"collect_1024": few, "collect_131072": many, "memory_1048576": _memory(MOST)},
        details={"read_us_per_future": per_future},
    )


def _collect(count: int) -> tuple[float, float]:
    """Milliseconds of one look, and microseconds for each future that is made."""
    seen, source = View(), Source(HOST)
    begun = time.process_time()
    for body in source.made(0, count):
        seen.read(HOST, body)
    read_s = time.process_time() - begun
    took = []
    for turn in range(ROUNDS):
        reports = [*source.made(count + turn * CHANGED, CHANGED), source.ended(turn * CHANGED, CHANGED)]
        begun = time.process_time()
        for body in reports:
            seen.read(HOST, body)
        _deepest(seen)
        took.append(time.process_time() - begun)
    if len(seen.futures) != count:
        raise RuntimeError(f"the view has {len(seen.futures)} futures instead of {count}")
    return statistics.median(took) * 1000, read_s / count * 1e6


def _deepest(seen: View) -> None:
    """What a policy reads that prefers sessions by their stage."""
    futures = seen.futures
    there = futures.rows
    stages = np.zeros(len(seen.sessions.keys), np.uint16)
    np.maximum.at(stages, futures["session"][there], futures["stage"][there])


def _memory(count: int) -> float:
    """MB that a view of so many open futures takes."""
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    seen, source = View(), Source(HOST)
    for body in source.made(0, count):
        seen.read(HOST, body)
    grown = (process.memory_info().rss - before) / MB
    if len(seen.futures) != count:
        raise RuntimeError(f"the view has {len(seen.futures)} futures instead of {count}")
    return grown
