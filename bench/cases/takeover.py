"""A worker process that dies in the middle of a call."""

import asyncio
import random
import statistics
import time

from bench import jobs
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import Child, until
from bench.sides import Stage, open_side

TRIALS = {Role.FLOOR: 1, Role.CALLBOARD: 20}
"""The floor waits for the server's ack wait of 30 s every time; once is enough."""
CALL_TIMEOUT_S = 45.0
MID_CALL_S = (0.0, 1.5)
"""The kill comes this long after the handler's start: it meets every phase of a heartbeat."""
SEED = 20


@case(
    "takeover",
    Metric("median", "s", Bound(at_most=2.0)),
    Metric("worst", "s", Bound(at_most=3.0), combine=max),
    rounds=1,
    timeout_s=600,
)
async def takeover(role: Role) -> Sample:
    """A host is killed (-9) in mid-call, a sibling is alive: seconds until the call runs again."""
    chance = random.Random(SEED)
    async with open_side(role, ["interrupted"], ["interruptible"]) as stage:
        workers = {worker.pid: worker for worker in stage.side.workers()}
        waits = []
        for trial in range(TRIALS[role]):
            spare = await stage.side.add_worker()
            workers[spare.pid] = spare
            waits.append(await _trial(stage, trial, chance.uniform(*MID_CALL_S), workers))
    return Sample(values={"median": statistics.median(waits), "worst": max(waits)})


async def _trial(stage: Stage, trial: int, mid_call_s: float, workers: dict[int, Child]) -> float:
    """Kill the worker that runs the call; seconds from the kill until its handler starts again."""
    starts = jobs.LedgerReader(stage.here.folder / "ledger", key=str(trial))
    call = asyncio.create_task(stage.side.interruptible(trial))
    first = await _next(starts)
    await asyncio.sleep(mid_call_s)
    killed_at = time.monotonic()
    await workers.pop(first.pid).kill()
    second = await _next(starts)
    async with asyncio.timeout(CALL_TIMEOUT_S):
        await call
    return second.at_s - killed_at


async def _next(starts: jobs.LedgerReader) -> jobs.Entry:
    """The next entry of the trial, once it is there."""
    found: list[jobs.Entry] = []

    def any_new() -> bool:
        found.extend(starts.fresh())
        return bool(found)

    await until(any_new, CALL_TIMEOUT_S)
    return found[0]
