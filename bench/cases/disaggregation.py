"""Whether tools disturb generation."""

import asyncio
import time

from bench.harness import Bound, Metric, Role, Sample, case
from bench.model_side import Models, open_models

CHATS = 16
TOKENS = 64
WINDOW_S = 6.0
TURNS = 2
RATE = 200.0
ENGINE = ("--profile", "a100-llama-3.1-8b", "--speed", "0.5")


@case("disaggregation", Metric("throughput", "x", Bound(at_least=0.97)), floor=False, timeout_s=240)
async def disaggregation(_: Role) -> Sample:
    """Tokens/s of 16 chats with 200 tool calls/s on a tool host, by those without; an emulator is the GPU."""
    tools = ["noop", "grind"]
    rates: dict[bool, list[float]] = {False: [], True: []}
    async with open_models(["chatting", "tooling"], *ENGINE, tools=tools) as models:
        chats = [await models.side.submit("chatting", tokens=TOKENS) for _ in range(CHATS)]
        await models.side.run("tooling", seconds=1.0, rate=RATE)  # the processes of `grind` have started
        done = 0
        for turn in range(2 * TURNS):
            busy = turn % 4 in {1, 2}  # without, with, with, without: what drifts meets both alike
            begun = time.perf_counter()
            working = asyncio.create_task(_tools(models)) if busy else None
            before = await models.generated()
            await asyncio.sleep(max(0.0, begun + WINDOW_S - time.perf_counter()))
            rates[busy].append((await models.generated() - before) / (time.perf_counter() - begun))
            if working is not None:
                done += await working
        lag = await models.lag_s()
        for run in chats:
            await models.side.cancel(run)
    without, with_tools = (sum(rates[busy]) / len(rates[busy]) for busy in (False, True))
    return Sample(
        values={"throughput": with_tools / without},
        calls=done,
        details={
            "tokens_per_s_without": without,
            "tokens_per_s_with": with_tools,
            "tools_per_s": done / TURNS / WINDOW_S,
            "emulator_lag_ms": lag * 1000,
        },
    )


async def _tools(models: Models) -> int:
    done: int = await models.side.run("tooling", seconds=WINDOW_S, rate=RATE)
    return done
