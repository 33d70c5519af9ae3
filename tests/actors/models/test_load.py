"""How many requests a host keeps in its engine: found from what the engine tells, not fixed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.board import Board, instance
from tests.support.standin import StandIn
from tests.support.waiting import SOON, until

from callboard import model, model_at, workflow
from callboard.actors.instance import Instance
from callboard.actors.models import gauge
from callboard.actors.models.load import EngineLoad, read_load
from callboard.actors.models.room import FIRST, MOST, Room, spare_of

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 200.0
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.79e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 128.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 1.5e+06
vllm:generation_tokens_total{engine="0",model_name="m"} NaN
process_cpu_seconds_total 4.0
"""


@workflow
async def many(count: int) -> int:
    """So many chats at once."""
    chats = [model("remote").chat(f"number {number}") for number in range(count)]
    return len(await asyncio.gather(*chats))


def test_reading() -> None:
    """Figures of several engines behind one server are added up; of the cache it is the mean."""
    load = read_load(METRICS)
    assert load == EngineLoad(5, 1, 0.375, queried=200, hit=128, prompt=1_500_000)


@pytest.mark.parametrize("text", ["", "<html>no metrics here</html>", "sglang:num_running_reqs 3.0\n"])
def test_reading_what_is_none(text: str) -> None:
    """Another server's page says nothing."""
    assert read_load(text) is None


class Engine:
    """Batches so many, and lets the others wait; each look finds it at rest."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def load(self, requests: int) -> EngineLoad:
        """With so many requests."""
        return EngineLoad(running=min(self.batch, requests), waiting=max(0, requests - self.batch))


def settle(room: Room, engine: Engine, others: int = 0) -> list[int]:
    """The sizes at 60 looks, while there is always more to do."""
    return [room.look(engine.load(room.size + others), room.size) for _ in range(60)]


@given(st.integers(1, 900))
def test_it_finds_what_the_engine_batches(batch: int) -> None:
    """The engine is full, and only few wait in it."""
    sizes = settle(Room(MOST), Engine(batch))[-10:]
    assert min(sizes) >= min(batch, MOST)
    assert max(sizes) <= batch + 3 * spare_of(batch) + 1


@given(st.integers(1, 300), st.integers(1, 300))
def test_it_follows(before: int, after: int) -> None:
    """When requests have become longer, or shorter."""
    room, engine = Room(MOST), Engine(before)
    settle(room, engine)
    engine.batch = after
    sizes = settle(room, engine)[-10:]
    assert min(sizes) >= after
    assert max(sizes) <= after + 3 * spare_of(after) + 1


def test_what_comes_in_a_burst_is_not_yet_too_much() -> None:
    """An engine takes new requests into its batch one step after the other: while it does, nothing shrinks."""
    room = Room(MOST)
    for running in (2, 6, 10, 14):
        assert room.look(EngineLoad(running, FIRST - running), FIRST) == FIRST


def test_it_is_back_at_once() -> None:
    """When others have filled the engine, and then leave it."""
    room, engine = Room(MOST), Engine(100)
    settle(room, engine)
    settle(room, engine, others=500)
    assert room.size < 30
    sizes = settle(room, engine)
    assert max(sizes[:3]) >= 100


def test_who_has_little_there_is_not_to_blame() -> None:
    """One request among many others takes no room away."""
    room = Room(MOST)
    assert [room.look(EngineLoad(8, 72), 1) for _ in range(3)] == [FIRST] * 3


def test_little_to_do_changes_nothing() -> None:
    """Who does not use the room that there is needs no more."""
    room = Room(MOST)
    assert {room.look(EngineLoad(running=3), 3) for _ in range(5)} == {FIRST}


def test_a_glance_only_grows() -> None:
    """While nobody knows how much is too much, and all of ours is in the batch; else it says nothing."""
    room = Room(100)
    for load, mine in [
        (EngineLoad(FIRST, 1), FIRST),
        (EngineLoad(FIRST - 1), FIRST),
        (EngineLoad(FIRST - 1), FIRST - 1),
        (EngineLoad(2, 500), 502),
        (EngineLoad(2, 500), 502),
    ]:
        assert room.glance(load, mine) == FIRST
    assert [room.glance(EngineLoad(room.size), room.size) for _ in range(4)] == [32, 64, 100, 100]
    assert not room.is_sought
    room = Room(MOST)
    settle(room, Engine(20))
    assert not room.is_sought
    size = room.size
    assert room.glance(EngineLoad(size), size) == size


def test_limits() -> None:
    """At least what may wait in the engine, and no more than was said."""
    assert settle(Room(10), Engine(500)) == [10] * 60
    room = Room(MOST)
    assert [room.look(EngineLoad(0, 500), 500) for _ in range(3)] == [spare_of(0)] * 3


async def test_slots_follow_the_engine(board: Board, engine: StandIn) -> None:
    """The rest waits on the board, and is answered when there is room again."""
    engine.metrics = {"num_requests_running": 2, "num_requests_waiting": 9}
    remote: Any = model_at("remote", url=engine.url)
    host = await board.host(many, remote)
    there = instance(host, remote)
    assert there.slots.size == FIRST
    for reply in (held := [engine.hold() for _ in range(40)]):
        engine.replies.append(reply)
    run = await board.submit(many, count=40)
    await until(lambda: there.slots.size < FIRST)
    assert there.engine == EngineLoad(2, 9)
    engine.metrics = {"num_requests_running": 2, "num_requests_waiting": 0}
    for reply in held:
        reply.go.set()
    assert (await board.done(run)).status == "completed"


async def test_a_burst_is_let_in_at_once(
    board: Board, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that batches all that it gets is asked sooner than usual, until there is room for all."""
    monkeypatch.setattr(gauge, "_BUSY", 3600.0)
    monkeypatch.setattr(gauge, "_IDLE", 3600.0)
    engine.metrics = {"num_requests_running": 300, "num_requests_waiting": 0}
    remote: Any = model_at("remote", url=engine.url)
    there = instance(await board.host(many, remote), remote)
    for reply in (held := [engine.hold() for _ in range(300)]):
        engine.replies.append(reply)
    run = await board.submit(many, count=300)
    await until(lambda: there.slots.busy == 300)
    for reply in held:
        reply.go.set()
    assert (await board.done(run)).status == "completed"


async def test_what_was_let_in_shows_later(
    board: Board, engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each time that more is let in there is time until it may show: nothing grows without evidence."""
    grown: list[float] = []
    resize = Instance.resize

    def noting(self: Instance, slots: int) -> None:
        grown.append(asyncio.get_running_loop().time())
        engine.metrics["num_requests_running"] = 0  # it does not show yet
        resize(self, slots)

    engine.metrics = {"num_requests_running": FIRST, "num_requests_waiting": 0}
    remote: Any = model_at("remote", url=engine.url)
    there = instance(await board.host(many, remote), remote)
    monkeypatch.setattr(Instance, "resize", noting)
    for reply in (held := [engine.hold() for _ in range(100)]):
        engine.replies.append(reply)
    run = await board.submit(many, count=100)
    await until(lambda: there.slots.size == 4 * FIRST)
    assert grown[1] - grown[0] >= 0.5
    for reply in held:
        reply.go.set()
    assert (await board.done(run)).status == "completed"


async def test_an_engine_that_tells_nothing(board: Board, engine: StandIn) -> None:
    """Is asked once; the slots are those of any actor."""
    remote: Any = model_at("remote", url=engine.url)
    there = instance(await board.host(many, remote), remote)
    assert (there.slots.size, there.engine) == (256, None)
    assert [one.path for one in engine.asked] == ["/metrics"]


async def test_an_engine_that_has_no_metrics_to_tell(board: Board, engine: StandIn) -> None:
    """And says so with a server's error, as llama.cpp does."""
    engine.statuses["/metrics"] = 501
    remote: Any = model_at("remote", url=engine.url)
    there = instance(await board.host(many, remote), remote)
    assert (there.slots.size, there.engine) == (256, None)
    assert [one.path for one in engine.asked] == ["/metrics"]


async def test_one_that_comes_later_and_tells_nothing(board: Board, engine: StandIn) -> None:
    """Has the slots that it would have had, if it had been there."""
    url = engine.url
    await engine.__aexit__()
    remote: Any = model_at("remote", url=url, concurrency=100)
    there = instance(await board.host(many, remote), remote)
    assert there.slots.size == FIRST
    await engine.__aenter__()
    await until(lambda: there.slots.size == 100)


async def test_one_that_is_not_there_yet(board: Board, engine: StandIn) -> None:
    """Is asked again."""
    engine.metrics = {"num_requests_running": 0, "num_requests_waiting": 0}
    url = engine.url
    await engine.__aexit__()
    remote: Any = model_at("remote", url=url)
    there = instance(await board.host(many, remote), remote)
    assert there.engine is None
    await engine.__aenter__()
    await until(lambda: there.engine == EngineLoad())


async def test_priorities_reach_it(board: Board, engine: StandIn) -> None:
    """As the order of mailboxes, where the engine has a scheduler of its own; else nothing is sent."""
    await board.host(many, model_at("remote", url=engine.url, priorities=True))
    client = await board.client()
    for priority in (0, 9):
        await client.done(await client.submit("many", {"count": 1}, priority=priority), SOON)
    first, second = (chat.body["priority"] for chat in engine.chats)
    assert first - second > 5_000  # milliseconds: a band and nine steps, less what lay between the two
