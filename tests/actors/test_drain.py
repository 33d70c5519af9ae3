"""Draining: what has not started is given back, what has finishes, nothing is lost or run twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.board import Board, call_headers, call_subject, instance, packed
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, eventually, until

from callboard import agent, method, tool, workflow
from callboard.actors import registry
from callboard.actors.app import AppUnloadable
from callboard.actors.host import Host
from callboard.infra.errors import DeclarationInvalid
from callboard.infra.messages.control import Acknowledged, Drain

RAN: Counter[int] = anew(Counter())
ENDED: Counter[int] = anew(Counter())
GATE = Gate()


@tool(concurrency=2)
async def gated(number: int) -> int:
    """Wait for the gate."""
    RAN[number] += 1
    await GATE.wait()
    ENDED[number] += 1
    return number


@tool(concurrency=4)
async def quick(number: int) -> int:
    """Take a moment."""
    RAN[number] += 1
    await asyncio.sleep(0.001)
    ENDED[number] += 1
    return number


@workflow
async def gated_flow(count: int) -> int:
    """Many calls."""
    return sum(await asyncio.gather(*(gated(n) for n in range(count))))


@workflow
async def quick_flow(count: int) -> int:
    """Many quick calls."""
    return sum(await asyncio.gather(*(quick(n) for n in range(count))))


async def test_started_calls_finish_and_the_others_are_given_back(board: Board) -> None:
    """The slots' calls end on the draining host; all others run elsewhere, each once."""
    await board.host(gated_flow)
    first = await board.host(gated)
    run = await board.submit(gated_flow, count=8)
    await until(lambda: len(RAN) == 2)
    started = set(RAN)
    stopping = asyncio.create_task(first.stop(grace=2 * SOON))
    await until(lambda: first.draining)
    second = await board.host(gated)
    await until(lambda: len(RAN) == 4)
    GATE.set()
    async with asyncio.timeout(SOON):
        await stopping
    assert (await board.done(run)).status == "completed"
    assert set(RAN.values()) == {1}
    ran_on = {result.future: result.host for result in await board.results(run)}
    on_first = {future for future, host in ran_on.items() if host == first.id}
    assert on_first == {f"{run}:{number + 1}" for number in started}
    assert set(ran_on.values()) == {first.id, second.id}


async def test_hosts_that_come_and_go_under_load_lose_nothing_and_repeat_nothing(board: Board) -> None:
    """Thousands of quick calls while hosts drain one after the other: each runs exactly once, in time."""
    await board.host(quick_flow)
    host = await board.host(quick)
    run = await board.submit(quick_flow, count=3000)
    for part in (300, 900, 1500):
        await until(lambda part=part: len(ENDED) > part)  # type: ignore[misc]
        following = await board.host(quick)
        await host.stop(grace=SOON)
        host = following
    done = await board.done(run, timeout=2 * SOON)
    assert msgspec.msgpack.decode(done.value) == sum(range(3000))
    assert set(RAN.values()) == {1}
    assert len(RAN) == 3000


async def test_a_call_that_outlasts_the_grace_period_runs_elsewhere(board: Board) -> None:
    """It is given back, at once, not after the ack wait."""
    await board.host(gated_flow)
    first = await board.host(gated)
    run = await board.submit(gated_flow, count=1)
    await until(lambda: RAN[0] == 1)
    await first.stop(grace=0.05)
    await board.host(gated)
    await until(lambda: RAN[0] == 2)
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert ENDED[0] == 1


async def test_a_draining_driver_gives_its_runs_back(board: Board) -> None:
    """Another goes on from the journal, at once; its calls go on meanwhile, and are not made again."""
    worker = await board.host(gated)
    first = await board.host(gated_flow)
    run = await board.submit(gated_flow, count=2)
    await until(lambda: len(RAN) == 2)
    await first.stop(grace=0.05)
    await board.host(gated_flow)
    entries = await board.entries(run, "owner", count=2)
    assert len(entries) == 2
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert RAN == {0: 1, 1: 1}
    await until(lambda: not instance(worker, gated).running)


async def test_a_draining_driver_lets_its_runs_end(board: Board) -> None:
    """Within the grace period they end where they are."""
    await board.host(gated)
    first = await board.host(gated_flow)
    run = await board.submit(gated_flow, count=2)
    await until(lambda: len(RAN) == 2)
    stopping = asyncio.create_task(first.stop(grace=2 * SOON))
    await until(lambda: first.draining)
    GATE.set()
    async with asyncio.timeout(SOON):
        await stopping
    assert (await board.done(run)).status == "completed"
    assert len(await board.entries(run, "owner")) == 1


async def test_a_drained_host_has_left_the_registry(board: Board) -> None:
    """Nobody takes it for dead; its actors stay known."""
    with capture_logs() as logs:
        staying = await board.host(quick_flow, dead_after=1.0)
        leaving = await board.host(quick, dead_after=1.0)
        node = await board.node()
        assert {pulse.host for pulse in await eventually(_both(node))} == {staying.id, leaving.id}
        await leaving.stop()
        left = await eventually(_one(node))  # the server stores the goodbye in its own time
        assert [pulse.host for pulse in left] == [staying.id]
        await until(lambda: leaving.id not in staying.watch.alive)
        ends = time.monotonic() + 2.0
        await until(lambda: time.monotonic() > ends)
    assert [entry for entry in logs if entry["event"] == "host_dead"] == []
    assert [actor.name for actor in await registry.actors(node)] == ["quick", "quick_flow"]


def _one(node: Any) -> Any:
    async def found() -> Any:
        hosts = await registry.hosts(node)
        return hosts if len(hosts) == 1 else []

    return found


def _both(node: Any) -> Any:
    async def found() -> Any:
        hosts = await registry.hosts(node)
        return hosts if len(hosts) == 2 else []

    return found


async def test_a_host_may_be_told_to_drain(board: Board) -> None:
    """By a message to it; it answers that it has heard."""
    host = await board.host(quick)
    node = await board.node()
    answer = await node.connection.request(f"cb.control.{host.id}", msgspec.msgpack.encode(Drain(grace=1.0)))
    assert msgspec.msgpack.decode(answer, type=Acknowledged).host == host.id
    async with asyncio.timeout(SOON):
        await host.stopped()
    assert await registry.hosts(node) == []


async def test_stopping_twice_is_stopping_once(board: Board) -> None:
    """And starting twice is starting once; a host that never started can be stopped."""
    host = await board.host(quick)
    await host.start()
    node = await board.node()
    assert [pulse.host for pulse in await registry.hosts(node)] == [host.id]
    await asyncio.gather(host.stop(), host.stop())
    await host.stop()
    assert await registry.hosts(node) == []
    idle = Host([], board.settings())
    await idle.stop()
    assert not hasattr(idle, "watch")


@agent
class Broken:
    """Cannot be made."""

    def __init__(self) -> None:
        raise RuntimeError("no licence")

    @method
    async def work(self) -> None:
        """Never reached."""


async def test_a_host_that_cannot_start_leaves_nothing_behind(board: Board) -> None:
    """Its error comes out, and stopping it is harmless: connections are closed, its threads have ended."""
    before = len(asyncio.all_tasks())
    with pytest.raises(AppUnloadable, match="no licence"):
        await board.host(quick, Broken)
    (host,) = board._hosts
    await host.stop(grace=0.1)
    assert host.node.connection.client.is_closed
    assert host._heart._thread is None
    await until(lambda: len(asyncio.all_tasks()) <= before)
    node = await board.node()
    assert await registry.hosts(node) == []


async def test_a_host_with_a_declaration_that_cannot_work_does_not_connect(board: Board) -> None:
    """It is found before anything is opened."""

    @tool
    async def wrong(*numbers: int) -> None:
        """Cannot be declared so."""

    host = Host([wrong], board.settings())
    with pytest.raises(DeclarationInvalid):
        await host.start()
    assert not host.node.connection.client.is_connected


async def test_calls_that_arrive_while_a_host_drains_go_elsewhere(board: Board) -> None:
    """A look-up in the journal that ends after the drain began starts nothing."""
    first = await board.host(quick)
    node = await board.node()
    lookup = first.outcomes.known
    release = asyncio.Event()

    async def slow(run: str, future: str) -> bool:
        await release.wait()
        return await lookup(run, future)

    first.outcomes.known = slow  # type: ignore[method-assign]
    node.store.put(call_subject(quick), packed({"number": 1}), call_headers("r:1"))
    await until(lambda: instance(first, quick).running)
    stopping = asyncio.create_task(first.stop(grace=0.2))
    await until(lambda: first.draining)
    release.set()
    async with asyncio.timeout(SOON):
        await stopping
    assert RAN == {}
    await board.host(quick)
    await board.entries("r", "result")
    assert RAN == {1: 1}
