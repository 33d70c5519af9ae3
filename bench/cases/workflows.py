"""Many small workflows."""

from bench.accounting import CpuMeter, percentile
from bench.harness import Bound, Metric, Role, Sample, case
from bench.sides import open_side

WORKFLOWS = 500
AT_ONCE = 100
WARM_UP = 500
CALLS_EACH = 5


@case(
    "workflows",
    Metric("rate", "workflows/s", Bound(ratio_at_least=0.9)),
    Metric("p99", "ms", Bound(ratio_at_most=1.1)),
)
async def workflows(role: Role) -> Sample:
    """500 workflows (plan 5 ms, three tools 10 ms, summary 5 ms), 100 at a time."""
    async with open_side(role, ["plan", "lookup", "summary"], ["answer"]) as stage:
        await stage.side.workflows(WARM_UP, AT_ONCE)
        with CpuMeter(stage.side.parts()) as cpu:
            load = await stage.side.workflows(WORKFLOWS, AT_ONCE)
    return Sample(
        values={
            "rate": WORKFLOWS / load.elapsed_s,
            "p99": percentile(load.latencies_s, 99) * 1000,
        },
        calls=WORKFLOWS * CALLS_EACH,
        cpu_s=cpu.seconds,
        details={
            "p50_ms": percentile(load.latencies_s, 50) * 1000,
            "cpu_ms_per_workflow": sum(cpu.seconds.values()) * 1000 / WORKFLOWS,
        },
    )
