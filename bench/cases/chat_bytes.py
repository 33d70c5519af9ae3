"""What a board stores of a long chat."""

import asyncio
import os
import statistics

from bench import chats
from bench.callboard_side import CallboardSide, open_side
from bench.harness import Bound, Metric, Role, Sample, case
from bench.processes import place

TURNS = int(os.environ.get("TURNS", "500"))
"""Turns of the chat; others for a look: TURNS=50 make bench ARGS="--case chat_bytes"."""
SHAPES = {"list": "chat_in_a_list", "agent": "chat_with_an_agent", "handed_back": "chat_handed_back"}
TRANSIENT = {"CALLS", "REQUESTS"}
"""Work queues: what is in them is gone when it is acked."""
STATE = "KV_cb_state"
LOOK_S = 0.2


@case(
    "chat_bytes",
    Metric("list", "x", Bound(at_most=1.2)),
    Metric("agent_run", "x", Bound(at_most=1.2)),
    Metric("agent_session", "x", Bound(at_most=1.3)),
    Metric("handed_back", "x", Bound(at_most=2.0)),
    floor=False,
    rounds=1,
    timeout_s=900,
)
async def chat_bytes(_: Role) -> Sample:
    """Bytes in all streams and buckets after a chat of 500 turns, by the bytes of its messages.

    What an agent keeps for its session, for ever, and what is kept of the run, for days, are two figures.
    """
    values: dict[str, float] = {}
    details: dict[str, float] = {}
    for shape, workflow in SHAPES.items():
        async with place() as here, open_side(here, ["model", "step", "Talker"], [workflow]) as side:
            await _chat(side, shape, workflow, values, details)
    return Sample(values=values, details=details)


async def _chat(
    side: CallboardSide, shape: str, workflow: str, values: dict[str, float], details: dict[str, float]
) -> None:
    before = await chats.stored(side.url)
    running = asyncio.create_task(side.run(workflow, turns=TURNS))
    most, waiting = 0, 0
    while not running.done():
        await asyncio.wait([running], timeout=LOOK_S)
        grown = chats.grown(before, await chats.stored(side.url))
        most = max(most, sum(size for name, size in grown.items() if name not in TRANSIENT))
        waiting = max(waiting, sum(grown.get(name, 0) for name in TRANSIENT))
    took = await running
    grown = chats.grown(before, await chats.stored(side.url))
    total = chats.spoken(TURNS)
    together = sum(grown.values()) / total
    if STATE in grown:
        values[f"{shape}_session"] = grown[STATE] / total
        values[f"{shape}_run"] = together - grown[STATE] / total
    else:
        values[shape] = together
    details[f"{shape}_together"] = together
    details[f"{shape}_most"] = most / total
    details[f"{shape}_waiting_bytes"] = waiting
    details[f"{shape}_first_turns_ms"] = statistics.median(took[: TURNS // 10]) * 1000
    details[f"{shape}_last_turns_ms"] = statistics.median(took[-TURNS // 10 :]) * 1000
    details |= {f"{shape}_{name}_bytes": size for name, size in grown.items()}
