"""Dependent calls: passed on as unresolved futures, against awaited each in turn."""

import statistics

from bench.accounting import CpuMeter
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import place

CALLS = 100
REPEATS = 5
WORKFLOWS = {Role.FLOOR: "chain_awaited", Role.CALLBOARD: "chain_passed"}


@case("chain", Metric("", "ms", Bound(ratio_at_most=1.2)))
async def chain(role: Role) -> Sample:
    """100 dependent calls passed as unresolved futures; the floor here: awaited each in turn."""
    from bench.callboard_side import open_side

    workflow = WORKFLOWS[role]
    async with place() as here, open_side(here, ["increment"], [workflow]) as side:
        await side.run(workflow, count=CALLS)
        with CpuMeter(side.parts()) as cpu:
            elapsed_s = [await side.run(workflow, count=CALLS) for _ in range(REPEATS)]
    return Sample(values={"": statistics.median(elapsed_s) * 1000}, calls=CALLS * REPEATS, cpu_s=cpu.seconds)
