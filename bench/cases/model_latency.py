"""What a model call costs more than asking its engine."""

import statistics

from bench.harness import Bound, Metric, Role, Sample, case
from bench.model_side import open_models

TURNS = 6
EACH = 50
WARM_UP = 30
TOKENS = 2


@case("model_latency", Metric("added_p50", "ms", Bound(at_most=3.0)), floor=False, timeout_s=180)
async def model_latency(_: Role) -> Sample:
    """Chats of two tokens one after the other: p50 as calls of a workflow, minus p50 asked directly."""
    direct: list[float] = []
    called: list[float] = []
    async with open_models(["chats_in_turn"], "--speed", "50") as models:
        await models.side.run("chats_in_turn", count=WARM_UP, tokens=TOKENS)
        for _turn in range(TURNS):
            direct += [(await models.ask(TOKENS))[1] for _ in range(EACH)]
            called += await models.side.run("chats_in_turn", count=EACH, tokens=TOKENS)
    of_direct, of_called = statistics.median(direct), statistics.median(called)
    return Sample(
        values={"added_p50": (of_called - of_direct) * 1000},
        calls=len(called),
        details={"direct_p50_ms": of_direct * 1000, "called_p50_ms": of_called * 1000},
    )
