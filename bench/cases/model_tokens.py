"""What streaming through Callboard costs, by the token."""

import statistics

from bench.accounting import cpu_of
from bench.harness import Bound, Metric, Role, Sample, case
from bench.model_side import open_models

TOKENS = 800
TURNS = 3


@case("model_tokens", Metric("overhead", "%", Bound(at_most=1.0)), floor=False, timeout_s=180)
async def model_tokens(_: Role) -> Sample:
    """An answer of 800 tokens, streamed by an emulated H100: how much longer it takes through Callboard."""
    direct: list[float] = []
    heard: list[float] = []
    async with open_models(["streams"], "--profile", "h100-llama-3.1-8b") as models:
        await models.side.run("streams", count=1, tokens=10)
        cpu = 0.0
        for _turn in range(TURNS):
            direct.append((await models.ask(TOKENS))[1])
            before = cpu_of(models.host.pid)
            heard += [whole for _, whole in await models.side.run("streams", count=1, tokens=TOKENS)]
            cpu += cpu_of(models.host.pid) - before
        lag = await models.lag_s()
    of_direct, of_heard = statistics.median(direct), statistics.median(heard)
    return Sample(
        values={"overhead": (of_heard / of_direct - 1) * 100},
        calls=TURNS,
        details={
            "direct_ms_per_token": of_direct / TOKENS * 1000,
            "heard_ms_per_token": of_heard / TOKENS * 1000,
            "host_cpu_us_per_token": cpu / (TURNS * TOKENS) * 1e6,
            "emulator_lag_ms": lag * 1000,
        },
    )
