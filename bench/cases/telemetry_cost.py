"""What telemetry costs a host."""

import callboard
from bench import app
from bench.accounting import cpu_of
from bench.callboard_side import spawn_host
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import place, start_server
from callboard.actors.host import Host

CALLS = 3000
RATE = 2000.0
TURNS = 6
WARM_UP = 1500
TIMEOUT_S = 60.0


@case("telemetry_cost", Metric("", "x", Bound(at_most=1.03)), floor=False)
async def telemetry_cost(role: Role) -> Sample:
    """CPU per call of a host at 2,000 calls/s, with telemetry by without it: the same load in turn."""
    spent = {True: 0.0, False: 0.0}
    async with place() as here:
        server = await start_server(here)
        hosts = {
            True: await spawn_host(here, server, ["noop"]),
            False: await spawn_host(here, server, ["untold"], CALLBOARD_TELEMETRY_EVERY="0"),
        }
        driver = Host([app.steady], server.url)
        await driver.start()
        try:
            async with callboard.connect(server.url) as client:

                async def load(count: int, *, told: bool) -> None:
                    run = await client.submit("steady", {"count": count, "rate": RATE, "told": told})
                    await client.result(run, timeout=TIMEOUT_S)

                for told in (True, False):
                    await load(WARM_UP, told=told)
                for turn in range(2 * TURNS):
                    told = turn % 4 in {0, 3}
                    before = cpu_of(hosts[told].pid)
                    await load(CALLS, told=told)
                    spent[told] += cpu_of(hosts[told].pid) - before
        finally:
            await driver.stop()
    calls = TURNS * CALLS
    return Sample(
        values={"": spent[True] / spent[False]},
        calls=calls,
        cpu_s={"worker": spent[True]},
        details={"us_with": spent[True] / calls * 1e6, "us_without": spent[False] / calls * 1e6},
    )
