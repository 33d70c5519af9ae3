"""The view is true in the end, whatever dies and gets lost on the way."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.support.board import Board
from tests.support.waiting import until

from callboard import tool, workflow
from callboard.actors.host import Host
from callboard.controller.controller import Controller

RUNS = 30
LOST = 0.3
going_on = asyncio.Event()
"""While it is not set, every step stands still: what is open stays open until a report of it comes through."""


@tool(concurrency=8, retries=2, backoff=0.01)
async def step(number: int) -> int:
    """Take a moment, and fail now and then."""
    await going_on.wait()
    await asyncio.sleep(0.002 * (number % 7))
    if number % 11 == 3 and random.random() < 0.5:
        raise ValueError(str(number))
    return number + 1


@workflow
async def stages(start: int) -> int:
    """Two stages, the second of which waits for the first."""
    first = [step(start + number) for number in range(6)]
    second = [step(one.arg) for one in first]
    outcomes = await asyncio.gather(*second, return_exceptions=True)
    return len(outcomes)


def _lossy(host: Host, chance: random.Random) -> None:
    """From now on, a host loses some of its reports."""
    publish = host.node.connection.publish

    def losing(subject: str, body: bytes = b"", headers: bytes | None = None, reply: str = "") -> None:
        if not (subject.startswith("cb.telemetry.") and chance.random() < LOST):
            publish(subject, body, headers, reply)

    host.node.connection.publish = losing  # type: ignore[method-assign]


@pytest.mark.fault
async def test_nothing_is_left_over(board: Board) -> None:
    """Hosts die, another one comes, reports are lost: when all runs are over, nothing is open in the view."""
    chance = random.Random(4)
    going_on.clear()
    async with Controller(board.settings()) as controller:
        view = controller.view
        driver = await board.host(stages, step)
        hosts = [await board.host(step) for _ in range(2)]
        for host in (driver, *hosts):
            _lossy(host, chance)
        runs = [await board.submit(stages, start=number) for number in range(RUNS)]
        await until(lambda: len(view.futures) > 0)
        for host in hosts:
            await board.kill(host)
        going_on.set()
        other = await board.host(step, stages)
        _lossy(other, chance)
        runs += [await board.submit(stages, start=number) for number in range(RUNS)]
        for run in runs:
            assert (await board.done(run, timeout=60)).status == "completed"
        await until(lambda: not len(view.futures), timeout=20)
        await until(lambda: not len(view.runs), timeout=20)
        await until(lambda: {view.hosts.keys[row] for row in view.hosts.rows} == {driver.id, other.id})
        await until(lambda: all(view.instances["busy"][row] == 0 for row in view.instances.rows))
