"""One no-op call after the other."""

import statistics

from bench.accounting import CpuMeter
from bench.harness import Bound, Metric, Role, Sample, case
from bench.sides import open_side

CALLS = 300
WARM_UP = 30


@case("sequential", Metric("p50", "ms", Bound(ratio_at_most=0.8)))
async def sequential(role: Role) -> Sample:
    """300 no-op calls, one after the other: median latency."""
    async with open_side(role, ["noop"], ["sequential"]) as stage:
        await stage.side.sequential(WARM_UP)
        with CpuMeter(stage.side.parts()) as cpu:
            latencies = await stage.side.sequential(CALLS)
    return Sample(values={"p50": statistics.median(latencies) * 1000}, calls=CALLS, cpu_s=cpu.seconds)
