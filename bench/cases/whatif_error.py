"""How far what `callboard whatif` says is from what was."""

import asyncio
import random
from collections.abc import Sequence

import callboard
from bench import app
from bench.callboard_side import CallboardSide
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import place, start_server
from callboard.actors.host import Host
from callboard.controller import recording
from callboard.controller.arrivals import Arrival, poisson
from callboard.controller.load import Load
from callboard.controller.whatif import Outcome, Scenario, WhatIf

SECONDS = 12.0
RATE = 22.0
SEED = 11
FIRST_S = 0.04
PART_S = 0.05
PARTS = 3
SETTLES_S = 30.0
POLL_S = 0.1
TOOLS = ("brief", "part", "parent")


@case(
    "whatif_error",
    Metric("p50", "%", Bound(at_most=15.0)),
    Metric("p99", "%", Bound(at_most=15.0)),
    floor=False,
    rounds=3,  # a stall of the machine spoils one
    timeout_s=240,
)
async def whatif_error(role: Role) -> Sample:
    """Three recorded live loads, played as they were: by how much P50 and P99 are off, at worst."""
    loads = {
        "two": await _recorded("fans_out", 2, RATE),
        "one": await _recorded("fans_out", 1, RATE),
        "nested": await _recorded("nests", 2, RATE / 2),
    }
    errors = {"p50": list[float](), "p99": list[float]()}
    details: dict[str, float] = {}
    for name, playing in loads.items():
        measured, played = playing.measured(), playing.play(Scenario())
        details |= {f"{name}_measured_p50_s": measured.p50, f"{name}_measured_p99_s": measured.p99}
        for figure, off in _off(measured, played).items():
            errors[figure].append(off)
            details[f"{name}_{figure}_off_pct"] = off
    other = _off(loads["one"].measured(), loads["two"].play(Scenario(hosts=1)))
    details |= {f"one_from_two_{figure}_off_pct": off for figure, off in other.items()}
    return Sample(values={figure: max(off) for figure, off in errors.items()}, details=details)


def _off(measured: Outcome, played: Outcome) -> dict[str, float]:
    """Percent of the measured figures."""
    return {
        "p50": abs(played.p50 / measured.p50 - 1) * 100,
        "p99": abs(played.p99 / measured.p99 - 1) * 100,
    }


def _plan(rate: float) -> list[Arrival]:
    """The same for each load of this rate, the times of its calls included."""
    rng = random.Random(SEED)
    plan = poisson(rate, SECONDS, SEED)
    for arrival in plan:
        parts = [rng.expovariate(1 / PART_S) for _ in range(PARTS)]
        arrival.arguments = {"first": rng.uniform(0.5, 1.5) * FIRST_S, "parts": parts}
    return plan


async def _recorded(workflow: str, hosts: int, rate: float) -> WhatIf:
    """Make a load on so many hosts; what they have told of it."""
    plan = _plan(rate)
    calls = len(plan) * (1 + PARTS + (workflow == "nests"))
    async with place() as here:
        server = await start_server(here)
        driver = Host([getattr(app, workflow)], server.url)
        await driver.start()
        try:
            async with callboard.connect(server.url) as client:
                side = CallboardSide(here, server, client, TOOLS)
                for _ in range(hosts):
                    await side.add_worker()
                load = Load(client, workflow, plan, {})
                await load.submit()
                await load.settle(SETTLES_S)
                if load.done != len(plan):
                    raise RuntimeError(f"of {len(plan)} requests {load.done} are done")
                recorded = await _told(client, len(plan), calls)
        finally:
            await driver.stop()
    return WhatIf(recorded)


async def _told(client: callboard.Client, runs: int, calls: int) -> recording.Recorded:
    """What was told, once all of it was."""
    reports: Sequence[recording.Report] = []
    async with asyncio.timeout(SETTLES_S):
        while True:
            reports = await recording.from_stream(client.node)
            ended = sum(len(report.ended.future) for report in reports if report.ended is not None)
            over = sum(len(report.runs_ended.run) for report in reports if report.runs_ended is not None)
            if ended >= calls and over >= runs:
                return recording.read(reports, "the stream TELEMETRY")
            await asyncio.sleep(POLL_S)
