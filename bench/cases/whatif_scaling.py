"""How far what `callboard whatif` says of hosts that come and go is from what was."""

import random
from collections.abc import Sequence
from pathlib import Path

import callboard
from bench import scaled
from bench.cases.whatif_error import told
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import place, start_server
from callboard.actors.host import Host
from callboard.controller.arrivals import Arrival, poisson
from callboard.controller.controller import Controller
from callboard.controller.load import Load
from callboard.controller.provisioning.local import LocalProcesses
from callboard.controller.recording import Recorded
from callboard.controller.whatif import Outcome, Scenario, WhatIf
from callboard.infra.settings import Settings

APP = str(Path(scaled.__file__).resolve())
POLICY = f"{APP}:Quick"
STAGES = 4
BUSY_RATE, BUSY_S = 9.0, 14.0
"""Requests a second: twice what one host can do."""
CALM_RATE, CALM_S = 1.5, 16.0
SEED = 5
SETTLES_S = 60.0
MOST = 4


@case(
    "whatif_scaling",
    Metric("p50", "%", Bound(at_most=15.0)),
    Metric("p99", "%", Bound(at_most=15.0)),
    Metric("host_seconds", "%", Bound(at_most=15.0)),
    floor=False,
    rounds=3,  # a stall of the machine spoils one
    timeout_s=240,
)
async def whatif_scaling(role: Role) -> Sample:
    """A live load under a policy that starts and ends hosts, played from one host on: how far it is off."""
    playing = WhatIf(await _recorded())
    measured = playing.measured()
    played = playing.play(Scenario(hosts=1, policies=(POLICY,), most=MOST))
    fixed = playing.play(Scenario(hosts=1))
    details = {"startup_s": playing.startup, "without_p50_s": fixed.p50, "without_p99_s": fixed.p99}
    for name, one in (("measured", measured), ("played", played)):
        details |= {f"{name}_{figure}": float(getattr(one, figure)) for figure in _TOLD}
    return Sample(values=_off(measured, played), details=details)


_FIGURES = ("p50", "p99", "host_seconds")
_TOLD = (*_FIGURES, "makespan", "most", "started", "ended")


def _off(measured: Outcome, played: Outcome) -> dict[str, float]:
    """Percent of the measured figures."""
    return {name: abs(getattr(played, name) / getattr(measured, name) - 1) * 100 for name in _FIGURES}


def _plan() -> Sequence[Arrival]:
    """Many requests for a while, then few."""
    rng = random.Random(SEED)
    calm = poisson(CALM_RATE, CALM_S, SEED + 1)
    for arrival in calm:
        arrival.at += BUSY_S
    plan = [*poisson(BUSY_RATE, BUSY_S, SEED), *calm]
    for arrival in plan:
        arrival.arguments = {"times": [rng.uniform(0.1, 0.3) for _ in range(STAGES)]}
    return plan


async def _recorded() -> Recorded:
    """Make the load on hosts that a controller starts and ends; what they have told of it."""
    plan = _plan()
    async with place() as here:
        server = await start_server(here)
        settings = Settings.load(nats_url=server.url, resources={"cpu": MOST})
        hosts = LocalProcesses([f"{APP}:staged"], settings, MOST, ["--log-level", "error"])
        controller = Controller(settings, policies=(POLICY,), provisioner=hosts)
        driver = Host([scaled.in_stages], server.url)
        await driver.start()
        await controller.start()
        try:
            await controller.led()
            async with callboard.connect(server.url) as client:
                await client.run(scaled.in_stages.name, {"times": [0.0]})  # somebody is there
                load = Load(client, scaled.in_stages.name, plan, {})
                await load.submit()
                await load.settle(SETTLES_S)
                if load.done != len(plan):
                    raise RuntimeError(f"of {len(plan)} requests {load.done} are done")
                return await told(client, len(plan) + 1, STAGES * len(plan) + 1)
        finally:
            await controller.stop()
            await driver.stop()
