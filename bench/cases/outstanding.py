"""Very many calls that wait for a blocked worker."""

import time

from bench import jobs
from bench.accounting import CpuMeter, by_part, growth, memory_bytes
from bench.harness import Bound, Metric, Role, Sample, case
from bench.sides import open_side

CALLS = 131_072
WARM_UP = 256


@case(
    "outstanding",
    Metric("submit", "calls/s", Bound(at_least=5000)),
    Metric("memory", "bytes/call", Bound(at_most=2048), combine=max),
    Metric("lost_or_repeated", "calls", Bound(at_most=0), combine=max),
    timeout_s=600,
)
async def outstanding(role: Role) -> Sample:
    """131,072 calls stored while the worker is blocked, then all of them drained."""
    async with open_side(role, ["noop", "held"], ["gathered", "outstanding"]) as stage:
        await stage.side.concurrent(WARM_UP)
        parts = stage.side.parts()
        with CpuMeter(parts) as cpu:
            before = by_part(parts, memory_bytes)
            begun = time.perf_counter()
            answers = await stage.side.hold(CALLS)
            submitted_s = time.perf_counter() - begun
            grown = growth(before, by_part(parts, memory_bytes))
            begun = time.perf_counter()
            (stage.here.folder / "gate").touch()
            await answers
            drained_s = time.perf_counter() - begun
        ledger = jobs.LedgerReader(stage.here.folder / "ledger").fresh()
    executed = {entry.key for entry in ledger}
    return Sample(
        values={
            "submit": CALLS / submitted_s,
            "memory": sum(grown.values()) / CALLS,
            "lost_or_repeated": (CALLS - len(executed)) + (len(ledger) - len(executed)),
        },
        calls=CALLS,
        cpu_s=cpu.seconds,
        details={
            "drain_calls_per_s": CALLS / drained_s,
            **{f"memory_bytes_per_call_{part}": size / CALLS for part, size in grown.items()},
        },
    )
