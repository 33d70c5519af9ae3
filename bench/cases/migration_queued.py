"""Moving sessions whose calls wait behind a long call of another session."""

import asyncio
import time

from bench.harness import Bound, Metric, Role, Sample, case

QUEUED = 200
LONG_S = 10.0


@case(
    "migration_queued",
    Metric("first", "ms", Bound(at_most=100.0)),
    floor=False,
    rounds=3,
)
async def migration_queued(_: Role) -> Sample:
    """From asking for 200 sessions, a call in each behind one of 10 s, to the first start elsewhere."""
    from bench.moving import open_moving

    async with open_moving({"CALLBOARD_STEAL_AFTER": "0"}) as moving:  # else nobody has to ask
        source, other = moving.hosts
        sessions = await moving.sessions(QUEUED, source)
        await moving.file("busy")
        await moving.move(["busy"], source)
        long = asyncio.create_task(moving.file("busy", LONG_S))
        await moving.until_held(source, 1)
        calls = [asyncio.create_task(moving.file(session)) for session in sessions]
        await moving.until_held(source, QUEUED + 1)
        asked, begun = time.time(), time.perf_counter()
        followed = await moving.move(sessions, other)
        moved_s = time.perf_counter() - begun
        assert followed == QUEUED, f"only {followed} calls waited"
        starts = sorted([await call - asked for call in calls])
        assert not long.done(), "the long call was over"
        await long
    return Sample(
        values={"first": starts[0] * 1000},
        calls=QUEUED,
        details={
            "all_moved_ms": moved_s * 1000,
            "half_started_ms": starts[QUEUED // 2] * 1000,
            "all_started_ms": starts[-1] * 1000,
        },
    )
