"""Many no-op calls at once."""

from bench.accounting import CpuMeter
from bench.harness import Bound, Metric, Role, Sample, case
from bench.sides import open_side

CALLS = 5000
WARM_UP = 200


@case("concurrent", Metric("", "calls/s", Bound(ratio_at_least=1.0)))
async def concurrent(role: Role) -> Sample:
    """5,000 no-op calls at once: calls per second."""
    async with open_side(role, ["noop"], ["gathered"]) as stage:
        await stage.side.concurrent(WARM_UP)
        with CpuMeter(stage.side.parts()) as cpu:
            elapsed_s = await stage.side.concurrent(CALLS)
    return Sample(values={"": CALLS / elapsed_s}, calls=CALLS, cpu_s=cpu.seconds)
