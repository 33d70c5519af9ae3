"""How far what `callboard whatif` says is from what was, policies included."""

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
from callboard.controller.controller import Controller
from callboard.controller.load import Load
from callboard.controller.whatif import Outcome, Scenario, WhatIf
from callboard.infra.messages.telemetry import Report
from callboard.infra.settings import Settings

SECONDS = 12.0
RATE = 22.0
SEED = 11
POLICY = "srtf"
SLOWER = 4
"""Under the policy calls take so many times as long: it looks four times a second."""
STEPS_RATE = 14.0
LONGER = 16.0
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
    """Four recorded live loads, played as they were: by how much P50 and P99 are off, at worst."""
    loads = {
        "two": await _recorded("fans_out", 2, RATE),
        "one": await _recorded("fans_out", 1, RATE),
        "nested": await _recorded("nests", 2, RATE / 2),
        POLICY: await _recorded("goes_on", 2, STEPS_RATE, SLOWER, (POLICY,)),
    }
    errors = {"p50": list[float](), "p99": list[float]()}
    details: dict[str, float] = {}
    for name, playing in loads.items():
        scenario = Scenario(policies=(POLICY,)) if name == POLICY else Scenario()
        measured, played = playing.measured(), playing.play(scenario)
        details |= {f"{name}_measured_p50_s": measured.p50, f"{name}_measured_p99_s": measured.p99}
        for figure, off in _off(measured, played).items():
            errors[figure].append(off)
            details[f"{name}_{figure}_off_pct"] = off
    without = loads[POLICY].play(Scenario())
    details |= {f"without_{POLICY}_p50_s": without.p50, f"without_{POLICY}_p99_s": without.p99}
    other = _off(loads["one"].measured(), loads["two"].play(Scenario(hosts=1)))
    details |= {f"one_from_two_{figure}_off_pct": off for figure, off in other.items()}
    return Sample(values={figure: max(off) for figure, off in errors.items()}, details=details)


def _off(measured: Outcome, played: Outcome) -> dict[str, float]:
    """Percent of the measured figures."""
    return {
        "p50": abs(played.p50 / measured.p50 - 1) * 100,
        "p99": abs(played.p99 / measured.p99 - 1) * 100,
    }


def _plan(rate: float, slower: float) -> list[Arrival]:
    """The same for each load of this rate, the times of its calls included."""
    rng = random.Random(SEED)
    plan = poisson(rate, SECONDS if slower == 1 else LONGER, SEED)
    for arrival in plan:
        parts = [slower * rng.expovariate(1 / PART_S) for _ in range(PARTS)]
        arrival.arguments = {"first": slower * rng.uniform(0.5, 1.5) * FIRST_S, "parts": parts}
    return plan


async def _recorded(
    workflow: str, hosts: int, rate: float, slower: float = 1, policies: Sequence[str] = ()
) -> WhatIf:
    """Make a load on so many hosts, under policies; what they have told of it."""
    plan = _plan(rate, slower)
    calls = len(plan) * (1 + PARTS + (workflow == "nests"))
    async with place() as here:
        server = await start_server(here)
        driver = Host([getattr(app, workflow)], server.url)
        await driver.start()
        controller = Controller(Settings.load(nats_url=server.url), policies=policies)
        await controller.start()
        try:
            async with callboard.connect(server.url) as client:
                side = CallboardSide(here, server, client, TOOLS)
                for _ in range(hosts):
                    await side.add_worker()
                await controller.led()
                load = Load(client, workflow, plan, {})
                await load.submit()
                await load.settle(SETTLES_S)
                if load.done != len(plan):
                    raise RuntimeError(f"of {len(plan)} requests {load.done} are done")
                recorded = await told(client, len(plan), calls)
        finally:
            await controller.stop()
            await driver.stop()
    return WhatIf(recorded)


async def told(client: callboard.Client, runs: int, calls: int) -> recording.Recorded:
    """What was told, once all of it was."""
    reports: Sequence[Report] = []
    async with asyncio.timeout(SETTLES_S):
        while True:
            reports = await recording.from_stream(client.node)
            ended = sum(len(report.ended.future) for report in reports if report.ended is not None)
            over = sum(len(report.runs_ended.run) for report in reports if report.runs_ended is not None)
            if ended >= calls and over >= runs:
                return recording.read(reports, "the stream TELEMETRY")
            await asyncio.sleep(POLL_S)
