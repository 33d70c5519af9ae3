"""Opening a session with a long list."""

import statistics
import time

from bench.harness import Bound, Metric, Role, Sample, case
from bench.states import LONG, VALUE, board, bucket, filled, keeper_of
from callboard.state.managed import within

OPENS = 50
TOUCHED = 10


@case("state_open", Metric("p50", "ms", Bound(ratio_at_most=3.0)))
async def state_open(role: Role) -> Sample:
    """Open a session of 100,000 items and touch the last 10; the floor: one KV read."""
    if role is Role.FLOOR:
        async with bucket() as (kv, _):
            await kv.put("key", VALUE)
            latencies = []
            for _ in range(OPENS):
                begun = time.perf_counter()
                await kv.get("key")
                latencies.append(time.perf_counter() - begun)
    else:
        async with board() as (_, sessions):
            keeper, rules = keeper_of()
            await filled(sessions, "s", LONG)
            await sessions.rested()
            latencies = []
            for _ in range(OPENS):
                sessions.forget("Keeper", "s")
                begun = time.perf_counter()
                session = await sessions.open("Keeper", "s", rules)
                with within(session.begin()):
                    assert len(keeper.lines[-10:]) == TOUCHED
                latencies.append(time.perf_counter() - begun)
                session.rollback()
    return Sample(values={"p50": statistics.median(latencies) * 1000})
