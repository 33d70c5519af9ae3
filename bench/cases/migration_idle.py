"""Moving a session in which nothing runs."""

import statistics
import time

from bench.harness import Bound, Metric, Role, Sample, case

MOVES = 300


@case(
    "migration_idle",
    Metric("p50", "ms", Bound(at_most=10.0)),
    Metric("p99", "ms", Bound(at_most=50.0)),
    floor=False,
)
async def migration_idle(_: Role) -> Sample:
    """From asking for it until the other host has the session open; 300 moves there and back."""
    from bench.moving import open_moving

    async with open_moving() as moving:
        sessions = await moving.sessions(10, moving.hosts[0])
        times = []
        for number in range(MOVES):
            to = moving.hosts[(number // len(sessions) + 1) % 2]
            begun = time.perf_counter()
            await moving.move([sessions[number % len(sessions)]], to)
            times.append(time.perf_counter() - begun)
    cuts = statistics.quantiles(times, n=100)
    return Sample(values={"p50": cuts[49] * 1000, "p99": cuts[98] * 1000}, calls=len(times))
