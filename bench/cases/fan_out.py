"""One workflow that fans out and joins."""

import statistics

from bench.accounting import CpuMeter
from bench.harness import Bound, Metric, Role, Sample, case
from bench.sides import open_side

CALLS = 1000
REPEATS = 5
WARM_UP = 100


@case("fan_out", Metric("", "calls/s", Bound(ratio_at_least=1.0)))
async def fan_out(role: Role) -> Sample:
    """One workflow fans out 1,000 no-op calls and joins: calls per second of the whole run."""
    async with open_side(role, ["noop"], ["gathered"]) as stage:
        await stage.side.fan_out(WARM_UP)
        with CpuMeter(stage.side.parts()) as cpu:
            elapsed_s = [await stage.side.fan_out(CALLS) for _ in range(REPEATS)]
    return Sample(
        values={"": CALLS / statistics.median(elapsed_s)},
        calls=CALLS * REPEATS,
        cpu_s=cpu.seconds,
    )
