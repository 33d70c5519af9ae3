"""How far off the runtime table is, of tools whose time depends on the size of their input."""

import hashlib
import random
import re
import time
from collections.abc import Callable

import numpy as np

from bench.harness import Bound, Metric, Role, Sample, case
from callboard.state.runtimes import Runtimes

LEARNT = 100
JUDGED = 200
SMALLEST, LARGEST = 10, 20
"""As powers of two, in bytes."""
_WORD = re.compile(rb"[a-f]+[0-9]{2}x?")


def _sort(data: bytes) -> object:
    return sorted(data)


def _hash(data: bytes) -> object:
    return hashlib.sha256(data).digest()


def _search(data: bytes) -> object:
    return _WORD.findall(data)


TOOLS: dict[str, Callable[[bytes], object]] = {"sort": _sort, "hash": _hash, "regex": _search}


@case(
    "runtime_error",
    Metric("sort", "%", Bound(at_most=20.0)),
    Metric("hash", "%", Bound(at_most=20.0)),
    Metric("regex", "%", Bound(at_most=20.0)),
    floor=False,
)
async def runtime_error(role: Role) -> Sample:
    """Median absolute error of 200 calls after 100 others, of inputs of 1 KB to 1 MB; by processor time.

    Details have the same by the clock on the wall, which counts what else the machine does, and of the median
    of all calls with inputs of as many bits, by processor time.
    """
    draw = random.Random(7)
    data = draw.randbytes(1 << LARGEST - 1).hex().encode()
    values: dict[str, float] = {}
    details: dict[str, float] = {}
    for name, tool in TOOLS.items():
        curve, octave = _errors(draw, data, tool, time.thread_time)
        wall, _ = _errors(draw, data, tool, time.perf_counter)
        values[name] = curve
        details |= {f"{name}_wall_percent": wall, f"{name}_by_octave_percent": octave}
    return Sample(values=values, details=details)


def _errors(
    draw: random.Random, data: bytes, tool: Callable[[bytes], object], clock: Callable[[], float]
) -> tuple[float, float]:
    """Median absolute errors in percent: of what is expected, and of the median by bits."""
    table = Runtimes()
    errors: list[float] = []
    octaves: list[float] = []
    for number in range(LEARNT + JUDGED):
        size = int(2 ** draw.uniform(SMALLEST, LARGEST))
        given = data[:size]
        begun = clock()
        tool(given)
        took = clock() - begun
        if number < LEARNT:
            table.learn(["bench.tool"], np.array([size], np.uint32), np.array([took]))
            continue
        errors.append(abs(table.expect("bench", "tool", size) - took) / took)
        known = table.predict("bench", "tool", size)
        octaves.append(abs(known.seconds - took) / took if known is not None else 1.0)
    return float(np.median(errors)) * 100, float(np.median(octaves)) * 100
