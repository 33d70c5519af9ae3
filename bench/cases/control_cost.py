"""What the control plane costs the calls: telemetry, and a controller that decides by it."""

import dataclasses
import os
import signal
import statistics
import time
from typing import TYPE_CHECKING

from bench.harness import Bound, Metric, Role, Sample, case
from bench.sides import closed_loop

if TYPE_CHECKING:
    import callboard
    from bench.processes import Child, Place
    from callboard.actors.host import Host

BLOCKS = 8
CONCURRENT = 5000
REPEATS = 4
SEQUENTIAL = 300
FAN_OUT = 1000
FAN_OUTS = 8
WORKFLOWS = 500
AT_ONCE = 100
WARM_UP = 4000
TIMEOUT_S = 60.0
TOOLS = ("noop", "plan", "lookup", "summary")


@case(
    "control_cost",
    Metric("concurrent", "x", Bound(at_least=0.95)),
    Metric("sequential", "x", Bound(at_most=1.05)),
    Metric("fan_out", "x", Bound(at_least=0.95)),
    Metric("workflows", "x", Bound(at_least=0.95)),
    floor=False,
    rounds=2,
    timeout_s=300,
)
async def control_cost(_: Role) -> Sample:
    """Rates and latency of calls with telemetry and a controller that follows srtf, by without both."""
    import callboard
    from bench import app
    from bench.processes import place, start_server
    from callboard.actors.host import Host

    took = Took(), Took()
    async with place() as here:
        server = await start_server(here)
        host = await here.spawn_python("bench.telemetry_worker", server.url, *TOOLS)
        await host.until_logged("ready")
        driver = Host([app.gathered, app.sequential, app.answer], server.url)
        await driver.start()
        try:
            control = Control(here, server.url, host, driver)
            async with callboard.connect(server.url) as client:
                await _rate(client, WARM_UP)
                await _workflows(client)
                for block in range(BLOCKS):
                    on = block % 4 in {0, 3}  # on, off, off, on: what drifts meets both alike
                    await control.turn(on=on)
                    await _block(client, took[on])
        finally:
            await driver.stop()
    return _sample(*took)


@dataclasses.dataclass
class Took:
    """What all blocks of one kind came to.

    Attributes:
        rates, fan_outs: calls a second; latencies: seconds of a call; workflows: a second.
    """

    rates: list[float] = dataclasses.field(default_factory=list)
    latencies: list[float] = dataclasses.field(default_factory=list)
    fan_outs: list[float] = dataclasses.field(default_factory=list)
    workflows: list[float] = dataclasses.field(default_factory=list)


async def _block(client: "callboard.Client", took: Took) -> None:
    took.rates += [await _rate(client, CONCURRENT) for _ in range(REPEATS)]
    took.latencies += await client.run("sequential", {"count": SEQUENTIAL}, timeout=TIMEOUT_S)
    took.fan_outs += [await _fan_out(client) for _ in range(FAN_OUTS)]
    took.workflows += [await _workflows(client) for _ in range(REPEATS)]


def _sample(alone: Took, controlled: Took) -> Sample:
    rate, rate_alone = _medians(controlled.rates, alone.rates)
    latency, latency_alone = _medians(controlled.latencies, alone.latencies)
    fan_out, fan_out_alone = _medians(controlled.fan_outs, alone.fan_outs)
    workflows, workflows_alone = _medians(controlled.workflows, alone.workflows)
    return Sample(
        values={
            "concurrent": rate / rate_alone,
            "sequential": latency / latency_alone,
            "fan_out": fan_out / fan_out_alone,
            "workflows": workflows / workflows_alone,
        },
        details={
            "calls_per_s_with": rate,
            "calls_per_s_without": rate_alone,
            "sequential_p50_ms_with": latency * 1000,
            "sequential_p50_ms_without": latency_alone * 1000,
            "fan_out_calls_per_s_with": fan_out,
            "fan_out_calls_per_s_without": fan_out_alone,
            "workflows_per_s_with": workflows,
            "workflows_per_s_without": workflows_alone,
        },
    )


def _medians(*figures: list[float]) -> tuple[float, ...]:
    return tuple(statistics.median(some) for some in figures)


async def _rate(client: "callboard.Client", count: int) -> float:
    """Calls a second, of so many at once."""
    seconds: float = await client.run("gathered", {"count": count}, timeout=TIMEOUT_S)
    return count / seconds


async def _fan_out(client: "callboard.Client") -> float:
    """Calls a second, from submitting the run that makes them until the client has its result."""
    begun = time.perf_counter()
    await client.run("gathered", {"count": FAN_OUT}, timeout=TIMEOUT_S)
    return FAN_OUT / (time.perf_counter() - begun)


async def _workflows(client: "callboard.Client") -> float:
    """Runs a second of a plan, three tools and a summary."""

    async def one(_: int) -> None:
        await client.run("answer", {}, timeout=TIMEOUT_S)

    return WORKFLOWS / (await closed_loop(one, WORKFLOWS, AT_ONCE)).elapsed_s


class Control:
    """The control plane, turned on and off; it begins with telemetry, and without a controller.

    Args:
        here: where the controller is started; url: of the server.
        host: the worker; driver: in this process.
    """

    def __init__(self, here: "Place", url: str, host: "Child", driver: "Host") -> None:
        self._here, self._url, self._host, self._driver = here, url, host, driver
        self._every = driver.telemetry.every
        self._told, self._turns = True, 0
        self._controller: Child | None = None

    async def turn(self, *, on: bool) -> None:
        """Idempotent."""
        if on != self._told:
            self._told, self._turns = on, self._turns + 1
            self._driver.telemetry.every = self._every if on else 0.0
            os.kill(self._host.pid, signal.SIGUSR1)
            await self._host.until_logged(f"turned {self._turns}.")
        if on and self._controller is None:
            command = ("callboard", "controller", "--nats", self._url, "--policy", "srtf")
            self._controller = await self._here.spawn_python(*command)
            await self._controller.until_logged('"event": "policies"', timeout_s=30)
        elif not on and self._controller is not None:
            await self._controller.stop()
            self._controller = None
