"""Many answers heard at once."""

import asyncio
import time

from bench.accounting import percentile
from bench.harness import Bound, Metric, Role, Sample, case
from bench.model_side import open_models

STREAMS = 500
TOKENS = 40
ENGINE = ("--profile", "a100-llama-3.1-8b", "--speed", "0.25", "--max-sequences", "512")
"""Some 9 tokens a second for each of 500: what an A100 gives them at a quarter of its speed."""


@case(
    "model_streams",
    Metric("whole", "streams", Bound(at_least=STREAMS), min),
    Metric("longer", "x", Bound(at_most=1.25)),
    floor=False,
    timeout_s=240,
)
async def model_streams(_: Role) -> Sample:
    """500 streams of 40 tokens at once: how many were whole, and how much longer they took than directly."""
    async with open_models(["streams"], *ENGINE) as models:
        await models.side.run("streams", count=20, tokens=3)
        begun = time.perf_counter()
        direct = await asyncio.gather(*(models.ask(TOKENS) for _ in range(STREAMS)))
        asked_s = time.perf_counter() - begun
        begun = time.perf_counter()
        heard = await models.side.run("streams", count=STREAMS, tokens=TOKENS)
        heard_s = time.perf_counter() - begun
        lag = await models.lag_s()
    return Sample(
        values={"whole": float(len(heard)), "longer": heard_s / asked_s},
        calls=STREAMS,
        details={
            "direct_s": asked_s,
            "heard_s": heard_s,
            "direct_first_p99_ms": percentile([first for first, _ in direct], 99) * 1000,
            "heard_first_p99_ms": percentile([first for first, _ in heard], 99) * 1000,
            "emulator_lag_ms": lag * 1000,
        },
    )
