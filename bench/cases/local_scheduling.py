"""Scheduling in an instance: a call comes into its mailbox, and the one that goes next is taken."""

import dataclasses
import random
import statistics
import time

from bench.harness import Bound, Metric, Role, Sample, case
from callboard.actors.mailbox import Mailbox

FEW = 1024
MANY = 131_072
CALLS = 20_000
AT_ONCE = 100
SEED = 3


@dataclasses.dataclass(slots=True)
class Waiting:
    """What a mailbox looks at."""

    band: int
    priority: int
    since: float
    longer: float = 0.0


@case(
    "local_scheduling",
    Metric("queued_1024", "ms", Bound(at_most=0.01)),
    Metric("queued_131072", "ms", Bound(at_most=0.02)),
    floor=False,
)
async def local_scheduling(_: Role) -> Sample:
    """With so many calls queued: put one of any band and priority, and take the next."""
    values: dict[str, float] = {}
    details: dict[str, float] = {}
    for count in (FEW, MANY):
        took = _measured(count)
        values[f"queued_{count}"] = statistics.fmean(took) * 1000
        details[f"worst_hundred_{count}_ms"] = max(took) * 1000
    return Sample(values=values, details=details)


def _measured(count: int) -> list[float]:
    """Seconds for each, as the mean of a hundred at a time."""
    rng, mailbox = random.Random(SEED), Mailbox[Waiting]()
    for number in range(count):
        mailbox.push(_call(rng, number / count))
    took = []
    for turn in range(CALLS // AT_ONCE):
        calls = [_call(rng, 1.0 + turn) for _ in range(AT_ONCE)]
        begun = time.perf_counter()
        for call in calls:
            mailbox.push(call)
            mailbox.pop()
        took.append((time.perf_counter() - begun) / AT_ONCE)
    if len(mailbox) != count:
        raise RuntimeError(f"the mailbox has {len(mailbox)} calls instead of {count}")
    return took


def _call(rng: random.Random, since: float) -> Waiting:
    return Waiting(rng.randrange(3), rng.randint(-9, 9), since)
