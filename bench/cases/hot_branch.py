"""A branch that is hot, and then the other one is."""

import random

from bench.harness import Bound, Metric, Role, Sample, case

RATE = 43.0
SECONDS = 18.0
SHIFT_S = 6.0
SEED = 5
MEAN_S = 0.2


@case(
    "hot_branch",
    Metric("p50", "ms", Bound(ratio_at_most=1.0)),
    Metric("p99", "ms", Bound(ratio_at_most=0.26)),
    rounds=3,
    alike=True,
)
async def hot_branch(role: Role) -> Sample:
    """90 % of the load on one of two agents, switching; the floor: each is routed to four of eight hosts.

    Three rounds: which of its four hosts a call goes to is drawn, and a tail depends on how it was drawn.
    """
    from bench.fleet import WITHOUT, latencies, open_fleet
    from callboard.controller.arrivals import Skew, poisson

    rng = random.Random(SEED)
    skew = Skew("hot:0.9", SHIFT_S)
    plan = poisson(RATE, SECONDS, SEED, vary={"branch": ["chat", "code"]}, skew=skew)
    for arrival in plan:
        arrival.arguments["seconds"] = rng.uniform(0.5, 1.5) * MEAN_S
    fixed = role is Role.FLOOR
    policies, env = ([], WITHOUT) if fixed else (["srtf"], {})
    async with open_fleet(["chat", "code", "classify"], ["routed"], policies, env) as fleet:
        if fixed:
            half = len(fleet.hosts) // 2
            await fleet.client.route("chat", dict.fromkeys(fleet.hosts[:half], 1.0))
            await fleet.client.route("code", dict.fromkeys(fleet.hosts[half:], 1.0))
        figures = await fleet.under("routed", plan)
    values = latencies(figures)
    details = {"mean_ms": values.pop("mean"), "max_ms": figures.latency.max * 1000, "late": figures.late}
    return Sample(values=values, details=details)
