"""What the control plane costs the calls: telemetry, and a controller that decides by it."""

import os
import signal
import statistics
from typing import TYPE_CHECKING

from bench.harness import Bound, Metric, Role, Sample, case

if TYPE_CHECKING:
    import callboard
    from bench.processes import Child, Place
    from callboard.actors.host import Host

BLOCKS = 8
CONCURRENT = 5000
REPEATS = 4
SEQUENTIAL = 300
WARM_UP = 4000
TIMEOUT_S = 60.0


@case(
    "control_cost",
    Metric("concurrent", "x", Bound(at_least=0.95)),
    Metric("sequential", "x", Bound(at_most=1.05)),
    floor=False,
    rounds=2,
    timeout_s=240,
)
async def control_cost(_: Role) -> Sample:
    """Calls a second, and latency, with telemetry and a controller that follows srtf, by without both."""
    import callboard
    from bench import app
    from bench.processes import place, start_server
    from callboard.actors.host import Host

    rates: dict[bool, list[float]] = {True: [], False: []}
    latencies: dict[bool, list[float]] = {True: [], False: []}
    async with place() as here:
        server = await start_server(here)
        host = await here.spawn_python("bench.telemetry_worker", server.url)
        await host.until_logged("ready")
        driver = Host([app.gathered, app.sequential], server.url)
        await driver.start()
        try:
            control = Control(here, server.url, host, driver)
            async with callboard.connect(server.url) as client:
                await _rate(client, WARM_UP)
                for block in range(BLOCKS):
                    on = block % 4 in {0, 3}  # on, off, off, on: what drifts meets both alike
                    await control.turn(on=on)
                    rates[on] += [await _rate(client, CONCURRENT) for _ in range(REPEATS)]
                    latencies[on] += await client.run("sequential", {"count": SEQUENTIAL}, timeout=TIMEOUT_S)
        finally:
            await driver.stop()
    return _sample(rates, latencies)


def _sample(rates: dict[bool, list[float]], latencies: dict[bool, list[float]]) -> Sample:
    rate, alone = (statistics.median(rates[on]) for on in (True, False))
    latency, latency_alone = (statistics.median(latencies[on]) for on in (True, False))
    return Sample(
        values={"concurrent": rate / alone, "sequential": latency / latency_alone},
        details={
            "calls_per_s_with": rate,
            "calls_per_s_without": alone,
            "sequential_p50_ms_with": latency * 1000,
            "sequential_p50_ms_without": latency_alone * 1000,
        },
    )


async def _rate(client: "callboard.Client", count: int) -> float:
    """Calls a second, of so many at once."""
    seconds: float = await client.run("gathered", {"count": count}, timeout=TIMEOUT_S)
    return count / seconds


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
