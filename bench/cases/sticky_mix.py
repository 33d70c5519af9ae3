"""Long and short jobs, mixed in sessions that stick to their host."""

import asyncio
import random

from bench.harness import Bound, Metric, Role, Sample, case

RATE = 17.0
SECONDS = 22.0
SEED = 5
SESSIONS = 400
CALLS = 4
SHORT_S = 0.05
LONG_S = 0.5
LONG = 0.1
"""The share of long ones among the calls."""


@case(
    "sticky_mix",
    Metric("p50", "ms", Bound(ratio_at_most=1.0)),
    Metric("p99", "ms", Bound(ratio_at_most=0.26)),
    Metric("mean", "ms", Bound(ratio_at_most=1.0)),
    rounds=1,
    alike=True,
)
async def sticky_mix(role: Role) -> Sample:
    """400 sessions at eight hosts, one call in ten is long; the floor: sticky, first come first served."""
    from bench.fleet import WITHOUT, latencies, open_fleet
    from callboard.controller.arrivals import poisson

    rng = random.Random(SEED)
    plan = poisson(RATE, SECONDS, SEED, sessions=SESSIONS)
    for arrival in plan:
        arrival.arguments = {"calls": [_seconds(rng) for _ in range(CALLS)]}
    policies, env = ([], WITHOUT) if role is Role.FLOOR else (["srtf"], {})
    async with open_fleet(["Analyst"], ["opened", "analysed"], policies, env) as fleet:
        begun = [
            fleet.client.run("opened", {"host": fleet.hosts[place % len(fleet.hosts)]}, session=f"s{place}")
            for place in range(SESSIONS)
        ]
        await asyncio.gather(*begun)
        figures = await fleet.under("analysed", plan)
    details = {"max_ms": figures.latency.max * 1000, "per_s": figures.rate, "late": figures.late}
    return Sample(values=latencies(figures), details=details)


def _seconds(rng: random.Random) -> float:
    return rng.uniform(0.5, 1.5) * (LONG_S if rng.random() < LONG else SHORT_S)
