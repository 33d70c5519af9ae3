"""What telemetry costs a host."""

import os
import signal
import statistics

import callboard
from bench import app
from bench.accounting import cpu_of
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import Child, place, start_server
from callboard.actors.host import Host

CALLS = 1000
RATE = 2000.0
TURNS = 16
WARM_UP = 4000
TIMEOUT_S = 60.0


@case("telemetry_cost", Metric("", "x", Bound(at_most=1.03)), floor=False, timeout_s=240)
async def telemetry_cost(role: Role) -> Sample:
    """CPU per call of a host at 2,000 calls/s, with telemetry by without it: turned off and on again."""
    spent: dict[bool, list[float]] = {True: [], False: []}
    async with place() as here:
        server = await start_server(here)
        host = await here.spawn_python("bench.telemetry_worker", server.url)
        await host.until_logged("ready")
        driver = Host([app.steady], server.url)
        await driver.start()
        try:
            async with callboard.connect(server.url) as client:

                async def load(count: int) -> float:
                    before = cpu_of(host.pid)
                    run = await client.submit("steady", {"count": count, "rate": RATE})
                    await client.result(run, timeout=TIMEOUT_S)
                    return cpu_of(host.pid) - before

                await load(WARM_UP)
                told, turns = True, 0
                for turn in range(4 * TURNS):
                    if told != (turn % 4 in {0, 3}):  # on, off, off, on: what drifts meets both alike
                        told, turns = not told, turns + 1
                        await _turned(host, turns)
                    spent[told].append(await load(CALLS))
        finally:
            await driver.stop()
    # Each four by themselves: how fast the machine is changes with what its neighbours do.
    pairs = {
        told: [a + b for a, b in zip(spent[told][::2], spent[told][1::2], strict=True)] for told in spent
    }
    told_s, untold_s = (statistics.median(spent[told]) for told in (True, False))
    return Sample(
        values={"": statistics.median(a / b for a, b in zip(pairs[True], pairs[False], strict=True))},
        calls=2 * TURNS * CALLS,
        cpu_s={"worker": sum(spent[True])},
        details={"us_with": told_s / CALLS * 1e6, "us_without": untold_s / CALLS * 1e6},
    )


async def _turned(host: Child, turns: int) -> None:
    """Turn its telemetry off, or on."""
    os.kill(host.pid, signal.SIGUSR1)
    await host.until_logged(f"turned {turns}.")
