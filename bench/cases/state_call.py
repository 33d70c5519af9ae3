"""What managed state adds to a call."""

import statistics

from bench.accounting import CpuMeter
from bench.callboard_side import open_side
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import place
from bench.states import bucket, updates

CALLS = 300


@case("state_call", Metric("p50", "ms", Bound(ratio_at_most=1.0)))
async def state_call(role: Role) -> Sample:
    """What managed state (read, append, commit) adds to a call, p50; the floor: one KV update."""
    if role is Role.FLOOR:
        async with bucket() as (kv, _):
            latencies = await updates(kv, "key", CALLS)
            return Sample(values={"p50": statistics.median(latencies) * 1000}, calls=CALLS, cpu_s={})
    async with place() as here, open_side(here, ["Keeper", "Forgetter"], ["keeping"]) as side:
        taken = {}
        with CpuMeter(side.parts()) as cpu:
            for managed in (True, False, True, False):
                latencies = await side.run("keeping", count=CALLS, managed=managed)
                taken[managed] = statistics.median(latencies) * 1000
    return Sample(
        values={"p50": taken[True] - taken[False]},
        calls=4 * CALLS,
        cpu_s=cpu.seconds,
        details={"with_ms": taken[True], "without_ms": taken[False]},
    )
