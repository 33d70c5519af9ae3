"""A live load under a policy, and the same load in the simulation under the same policy."""

from __future__ import annotations

import asyncio
import random

from tests.support.board import Board
from tests.support.waiting import eventually

from callboard import tool, workflow
from callboard.controller import recording
from callboard.controller.arrivals import poisson
from callboard.controller.controller import Controller
from callboard.controller.load import Load
from callboard.controller.recording import Recorded
from callboard.controller.whatif import Scenario, WhatIf

STAGES = 4
BOUND = 0.15


@tool(concurrency=4)
async def staged(seconds: float) -> None:
    """Take a time."""
    await asyncio.sleep(seconds)


@workflow
async def in_stages(times: list[float]) -> None:
    """One call after the other."""
    for seconds in times:
        await staged(seconds)


async def test_a_load_under_a_policy_is_simulated_within_15_percent(board: Board) -> None:
    """At P50 and P99; without the policy it would have been another one, so that it is the policy that is played."""
    driver, host, client = await board.host(in_stages), await board.host(staged), await board.client()
    controller = Controller(board.settings(), policies=("srtf",))
    await controller.start()
    try:
        await controller.led()
        rng, plan = random.Random(3), poisson(7.5, 9.0, 3)
        for arrival in plan:
            arrival.arguments = {"times": [rng.uniform(0.05, 0.3) for _ in range(STAGES)]}
        load = Load(client, in_stages.name, plan, {})
        await load.submit()
        await load.settle(30)
        assert load.done == len(plan)
    finally:
        await controller.stop()
    node = await board.node()

    async def told() -> Recorded | None:
        reports = await recording.from_stream(node)
        ended = sum(len(one.ended.future) for one in reports if one.ended is not None)
        over = sum(len(one.runs_ended.run) for one in reports if one.runs_ended is not None)
        whole = (ended, over) == (STAGES * len(plan), len(plan))
        return recording.read(reports, "here") if whole else None

    recorded = await eventually(told)
    assert recorded is not None
    assert {call.host for call in recorded.calls} == {host.id} != {driver.id}
    playing = WhatIf(recorded)
    was, played, without = (
        playing.measured(),
        playing.play(Scenario(policies=("srtf",))),
        playing.play(Scenario()),
    )
    assert played.decisions > 0
    assert abs(played.p50 / was.p50 - 1) < BOUND
    assert abs(played.p99 / was.p99 - 1) < BOUND
    assert abs(without.p50 / was.p50 - 1) > 2 * abs(played.p50 / was.p50 - 1)
