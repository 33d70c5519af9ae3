"""An engine that takes so many requests in a time gets about as many, and calls wait for it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.board import Board, instance
from tests.support.standin import StandIn, refusal
from tests.support.waiting import SOON, until

from callboard import model, model_at, workflow
from callboard.actors.directives import Directives
from callboard.actors.retry import PATIENCE, excused_delay
from callboard.actors.slots import Slots
from callboard.infra.errors import CallboardError, EngineRefused, RateLimited, RunFailed

CHATS = 60


@workflow
async def many(count: int) -> int:
    """So many chats at once."""
    chats = [model("remote").chat(f"number {number}") for number in range(count)]
    return len(await asyncio.gather(*chats))


async def test_a_limit_of_requests_a_second(board: Board, engine: StandIn) -> None:
    """All are answered, in about the time that the limit allows; after the first burst few are refused."""
    engine.per_second = 5
    served: Any = model_at("remote", url=engine.url)
    there = instance(await board.host(many, served), served)
    run = await board.submit(many, count=CHATS)
    assert (await board.done(run, 3 * SOON)).status == "completed"
    first, *_, last = engine.chats
    assert last.at - first.at < 40  # 12 s, and some for a machine that is busy
    assert engine.refused < 2 * CHATS  # 55 of them of the first burst
    assert there.slots.allowance is not None


async def test_refusals_are_no_failures(board: Board, engine: StandIn) -> None:
    """They use up none of the retries."""
    engine.replies.extend(refusal(429, "slow down", retry_after="0.1") for _ in range(6))
    await board.host(many, model_at("remote", url=engine.url, retries=1, backoff=0.01))
    run = await board.submit(many, count=1)
    assert (await board.done(run)).status == "completed"
    (result,) = await board.results(run)
    assert result.attempt == 7


async def test_nothing_is_sent_before_its_time(board: Board, engine: StandIn) -> None:
    """Not even what has not been refused; then all goes on as before."""
    engine.replies.append(refusal(429, "slow down", retry_after="1"))
    served: Any = model_at("remote", url=engine.url)
    there = instance(await board.host(many, served), served)
    run = await board.submit(many, count=1)
    await until(lambda: there.slots.allowance == 0)
    other = await board.submit(many, count=3)
    assert (await board.done(other)).status == "completed"
    assert (await board.done(run)).status == "completed"
    refused, *later = engine.chats
    assert min(one.at for one in later) - refused.at >= 1.0


async def test_no_longer_than_its_timeout(board: Board, engine: StandIn) -> None:
    """Then it fails as it is."""
    engine.per_second = 0
    await board.host(many, model_at("remote", url=engine.url, retries=1, backoff=0.01, timeout=3.0))
    with pytest.raises(RunFailed) as found:
        await board.run(many, count=1)
    assert isinstance(found.value.__cause__, RateLimited)
    assert 2 <= len(engine.chats) <= 6


async def test_without_retries(board: Board, engine: StandIn) -> None:
    """It fails at once."""
    engine.per_second = 0
    await board.host(many, model_at("remote", url=engine.url, retries=0))
    with pytest.raises(RunFailed) as found:
        await board.run(many, count=1)
    assert isinstance(found.value.__cause__, RateLimited)
    assert len(engine.chats) == 1


def test_slots_that_must_not_be_used() -> None:
    """Fewer may start than there are slots for, and none is stopped for one that could not start."""
    slots = Slots(4, lambda _: None)
    calls: Any = [
        SimpleNamespace(band=1, preempted=0, method=SimpleNamespace(directives=Directives(preemptable=True)))
    ]
    slots.allowance = 2
    assert slots.free == 2
    slots.take(calls)
    assert (slots.free, slots.busy, slots.giving_way(0)) == (1, 1, 1)
    slots.take(calls)
    assert (slots.free, slots.busy, slots.giving_way(0), slots.victim(0)) == (0, 2, 0, None)
    slots.allowance = None
    assert (slots.free, slots.giving_way(0)) == (2, 2)


def refused(again_in: float | None) -> CallboardError:
    """As a host raises it."""
    error = RateLimited("later", retry_after=1.0)
    error.again_in = again_in
    return error


def test_how_long_attempts_are_excused() -> None:
    """Until the deadline, else for as long as the timeout, else for some minutes."""
    quick = Directives(timeout=10.0)
    assert excused_delay(Directives(), refused(1.0), 100.0, 100.0 + PATIENCE - 2, 0.0) == 1.0
    assert excused_delay(Directives(), refused(1.0), 100.0, 100.0 + PATIENCE, 0.0) is None
    assert excused_delay(quick, refused(1.0), 100.0, 108.0, 0.0) == 1.0
    assert excused_delay(quick, refused(1.0), 100.0, 109.5, 0.0) is None
    assert excused_delay(quick, refused(1.0), 100.0, 109.5, 120.0) == 1.0
    assert excused_delay(quick, refused(1.0), 100.0, 119.5, 120.0) is None


def test_what_is_not_excused() -> None:
    """What no host has said so of, and what is not tried again at all."""
    assert excused_delay(Directives(), refused(None), 0.0, 0.0, 0.0) is None
    assert excused_delay(Directives(retry_on=("Nothing",)), refused(1.0), 0.0, 0.0, 0.0) is None
    assert excused_delay(Directives(), EngineRefused("no"), 0.0, 0.0, 0.0) is None
