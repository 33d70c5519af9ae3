"""Calls behind a long one, and an idle host beside it."""

from typing import TYPE_CHECKING

from bench import jobs
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import place, until

if TYPE_CHECKING:
    from bench.callboard_side import CallboardSide

CALLS = 200
LONG_S = 10.0
BLOCKED_S = 3.0
PATIENCE_S = 30.0


@case(
    "steal",
    Metric("last", "ms", Bound(at_most=100.0)),
    Metric("blocked", "ms", Bound(at_most=1000.0)),
    floor=False,
    timeout_s=120,
)
async def steal(_: Role) -> Sample:
    """200 calls in the lane of a host whose one slot is taken: until the last has begun on an idle host."""
    values: dict[str, float] = {}
    details: dict[str, float] = {}
    for name, seconds in (("last", LONG_S), ("blocked", BLOCKED_S)):
        times = await _measured(seconds, blocks=name == "blocked")
        values[name] = times[-1] * 1000
        details[f"{name}_first_ms"] = times[0] * 1000
        details[f"{name}_median_ms"] = times[len(times) // 2] * 1000
    return Sample(values=values, calls=2 * CALLS, details=details)


async def _measured(seconds: float, *, blocks: bool) -> list[float]:
    """Seconds from making each call to its beginning, in order; the last one is the longest."""
    from bench.callboard_side import open_side

    async with place() as here, open_side(here, ["lone"], ["long_call", "behind"]) as side:
        await side.add_worker()
        ledger = jobs.LedgerReader(here.folder / "ledger")
        return await _behind(side, ledger, seconds, blocks=blocks)


async def _behind(
    side: "CallboardSide", ledger: jobs.LedgerReader, seconds: float, *, blocks: bool
) -> list[float]:
    begun: dict[str, jobs.Entry] = {}

    def read(count: int) -> bool:
        begun.update((entry.key, entry) for entry in ledger.fresh())
        return len(begun) >= count

    host = (await side.hosts("lone"))[0]
    await side.submit("long_call", host=host, number=-1, seconds=seconds, blocks=blocks)
    await until(lambda: read(1), PATIENCE_S)
    (long_one,) = begun.values()
    made = await side.run("behind", host=host, first=0, count=CALLS)
    await until(lambda: read(1 + CALLS), PATIENCE_S)
    stayed = [entry for entry in begun.values() if entry is not long_one and entry.pid == long_one.pid]
    if stayed:
        raise RuntimeError(f"{len(stayed)} calls began on the host that was busy")
    return sorted(entry.at_s - made for entry in begun.values() if entry is not long_one)
