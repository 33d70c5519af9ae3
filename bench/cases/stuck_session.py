"""A session whose host is busy with a long call of another one."""

import statistics

from bench.harness import Bound, Metric, Role, Sample, case

SESSIONS = 200
LONG_S = 60.0


@case(
    "stuck_session",
    Metric("p50", "ms", Bound(at_most=50.0)),
    Metric("p99", "ms", Bound(at_most=50.0)),
    floor=False,
    rounds=3,
)
async def stuck_session(_: Role) -> Sample:
    """200 times: from making a call in a session behind a long one until it begins on an idle host."""
    from bench.moving import open_moving

    async with open_moving() as moving:
        source = moving.hosts[0]
        sessions = await moving.sessions(SESSIONS, source)
        await moving.file("busy")
        await moving.move(["busy"], source)
        long = await moving.submit("busy", LONG_S)
        await moving.until_held(source, 1)
        took = [await moving.file_timed(session) for session in sessions]
        await moving.cancel(long)
    cuts = statistics.quantiles(took, n=100)
    return Sample(
        values={"p50": cuts[49] * 1000, "p99": cuts[98] * 1000},
        details={"max_ms": max(took) * 1000},
    )
