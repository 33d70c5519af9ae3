"""A host whose engine does not answer leaves its calls to the others, and works again when it does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.board import Board, instance
from tests.support.standin import Reply, StandIn
from tests.support.waiting import SOON, until

from callboard import model, model_at, workflow
from callboard.actors.models.function_engine import FunctionEngine
from callboard.actors.models.openai_engine import OpenAIEngine
from callboard.actors.models.served import ServedModel
from callboard.actors.models.types import ChatRequest
from callboard.actors.models.vllm import VllmEngine
from callboard.infra.errors import EngineDown

STANDIN = [sys.executable, str(Path(__file__).parents[3] / "tests/support/standin.py"), "some/model"]
CHATS = 60


@pytest.fixture
async def other() -> AsyncIterator[StandIn]:
    """A second engine of the same model."""
    async with StandIn(pace=0.01) as server:
        yield server


@workflow
async def many(count: int) -> int:
    """So many chats at once; gives how many were answered."""
    chats = [model("remote").chat(f"number {number}") for number in range(count)]
    ends = await asyncio.gather(*chats, return_exceptions=True)
    return len([end for end in ends if not isinstance(end, BaseException)])


@workflow
async def downs(count: int) -> int:
    """So many chats at once; gives how many were told that the engine is down."""
    chats = [model("remote").chat(f"number {number}") for number in range(count)]
    ends = await asyncio.gather(*chats, return_exceptions=True)
    return len([end for end in ends if isinstance(end, EngineDown)])


def remote(engine: StandIn, **options: Any) -> Any:
    """The model at an engine."""
    return model_at("remote", url=engine.url, **{"concurrency": 4, **options})


async def test_one_of_two_is_dead(board: Board, engine: StandIn, other: StandIn) -> None:
    """All calls are answered by the other one; none has used up a retry."""
    dead = remote(engine, retries=0)
    there = instance(await board.host(dead), dead)
    await board.host(many, remote(other, retries=0))
    await engine.__aexit__()
    assert await board.run(many, count=CHATS) == CHATS
    assert len(other.chats) == CHATS
    assert there.down


async def test_both_are_dead(board: Board, engine: StandIn, other: StandIn) -> None:
    """Each call is told so, after its retries."""
    options = {"retries": 2, "backoff": 0.05}
    await board.host(remote(engine, **options))
    await board.host(downs, remote(other, **options))
    await engine.__aexit__()
    await other.__aexit__()
    run = await board.submit(downs, count=20)
    assert (await board.done(run)).status == "completed"
    results = await board.results(run)
    assert [one.error.code for one in results if one.error is not None] == ["engine_down"] * 20
    assert min(one.attempt for one in results) >= 3


async def test_the_only_one_is_dead(board: Board, engine: StandIn) -> None:
    """Its calls get their retries, and in the end their error."""
    await board.host(downs, remote(engine, retries=2, backoff=0.05))
    await engine.__aexit__()
    run = await board.submit(downs, count=20)
    assert (await board.done(run)).status == "completed"
    assert {one.attempt for one in await board.results(run)} == {3}


async def test_it_comes_back(board: Board, engine: StandIn, other: StandIn) -> None:
    """All its slots do, at once."""
    await engine.__aexit__()
    dead = remote(engine)
    there = instance(await board.host(dead), dead)
    await board.host(many, remote(other))
    assert await board.run(many, count=8) == 8
    await until(lambda: there.down and there.standby)
    await engine.__aenter__()
    await until(lambda: not there.down and not there.standby)
    assert there.slots.free == 4
    held = [engine.hold() for _ in range(4)]
    engine.replies.extend(held)
    other.replies.extend(others := [other.hold() for _ in range(4)])
    run = await board.submit(many, count=8)
    await until(lambda: len(engine.chats) == 4)
    for reply in held + others:
        reply.go.set()
    assert (await board.done(run)).status == "completed"


async def test_it_dies_while_it_works(board: Board, engine: StandIn, other: StandIn) -> None:
    """What it was answering, and what waits for it, is answered by the other one."""
    dying = remote(engine, retries=0)
    await board.host(dying)
    engine.replies.extend(engine.hold() for _ in range(4))
    await board.host(many, remote(other, retries=0))
    run = await board.submit(many, count=CHATS)
    await until(lambda: len(engine.chats) == 4)
    await engine.__aexit__()
    done = await board.done(run)
    assert done.status == "completed"
    assert not [one for one in await board.results(run) if one.error is not None]


async def test_calls_in_its_lane(board: Board, engine: StandIn, other: StandIn) -> None:
    """Go to the other one, too."""
    dead = remote(engine, retries=0)
    host = await board.host(dead)
    driver = await board.host(many, remote(other, retries=0))
    client = await board.client()
    await client.route("remote", host.id)
    await until(lambda: len(driver.routes))
    await engine.__aexit__()
    assert await board.run(many, count=20) == 20


async def test_one_answer_that_breaks_off(board: Board, engine: StandIn) -> None:
    """Says nothing about the engine, if it answers."""
    engine.replies.append(Reply(["half"], finish=""))
    served = remote(engine, retries=1, backoff=0.01)
    there = instance(await board.host(many, served), served)
    assert await board.run(many, count=1) == 1
    assert not there.down
    assert [one.path for one in engine.asked].count("/v1/models") == 2  # which model, and whether it lives


async def test_whether_it_is_there(engine: StandIn) -> None:
    """It lists its models, or refuses to; one that has no list may say so as if nobody were there."""
    asked = OpenAIEngine("remote", engine.url)
    await asked.open()
    answers = []
    for status in (503, 401, 404, 429, 500, 501, None, 503, 502):
        engine.statuses.pop("/v1/models", None)
        if status is not None:
            engine.statuses["/v1/models"] = status
        answers.append(await asked.answers())
    assert answers == [True, True, True, True, True, True, True, False, False]
    await engine.__aexit__()
    assert not await asked.answers()
    await asked.close()


async def test_vllm_that_is_started_again(board: Board, other: StandIn) -> None:
    """Its calls do not wait for it while another host has an engine."""
    child = VllmEngine("remote", STANDIN, first=3600.0)
    served = ServedModel("remote", child, {"concurrency": 4})
    host = await board.host(served)
    await board.host(many, remote(other, retries=0))
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    assert await board.run(many, count=CHATS, timeout=SOON) == CHATS
    await until(lambda: instance(host, served).down)


class Mortal(FunctionEngine):
    """Dies of each request, and is not there from then on."""

    def __init__(self) -> None:
        super().__init__("remote", self._die)
        self.deaths = 0

    def _die(self, _: ChatRequest) -> str:
        self.deaths += 1
        raise EngineDown("it died", engine="mortal", status=0)

    async def answers(self) -> bool:
        """Not after a death."""
        return not self.deaths


async def test_a_call_that_ends_engines(board: Board) -> None:
    """Is not given to one after the other for free: after so many the attempts count."""
    engines = [Mortal() for _ in range(6)]
    for one in engines:
        await board.host(ServedModel("remote", one, {"retries": 0}), max_deliver=2)
    await board.host(downs)
    assert await board.run(downs, count=1) == 1
    assert sum(one.deaths for one in engines) <= 3


class Unaskable(Mortal):
    """Cannot say whether it is there; at first it says that it is not."""

    asked = 0

    async def answers(self) -> bool:
        """Raises."""
        self.asked += 1
        if self.asked == 1:
            return False
        raise RuntimeError("oh")


async def test_an_engine_that_cannot_be_asked_any_more(board: Board, other: StandIn) -> None:
    """Its host does not stand by for good."""
    engine = Unaskable()
    served = ServedModel("remote", engine, {"retries": 0})
    there = instance(await board.host(served), served)
    await board.host(downs, remote(other))
    run = await board.submit(downs, count=CHATS)
    assert (await board.done(run)).status == "completed"
    await until(lambda: engine.asked > 1 and not there.down and not there.standby)


async def test_who_stood_by_takes_part_when_the_others_have_left(
    board: Board, engine: StandIn, other: StandIn
) -> None:
    """Also while its engine is down: its calls are tried, and fail, as they do where it is the only host."""
    other.metrics = {"num_requests_running": 0, "num_requests_waiting": 0}
    first = await board.host(remote(engine, max_instances=1))
    spare: Any = remote(other, max_instances=1, retries=0)
    there = instance(await board.host(spare), spare)
    await until(lambda: there.standby)
    await other.__aexit__()
    await until(lambda: there.down)
    await first.stop()
    await until(lambda: not there.standby)
    await board.host(downs)
    assert await board.run(downs, count=1) == 1
