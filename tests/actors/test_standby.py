"""At most so many instances: further hosts stand by, and step in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.support.board import Board, instance
from tests.support.gates import Gate, anew
from tests.support.waiting import until

from callboard import options, tool, workflow
from callboard.actors.host import Host
from callboard.infra.pull import Pull

RAN: list[int] = anew([])
GATE = Gate()


@tool(max_instances=1, concurrency=1)
async def single(number: int) -> int:
    """One at a time, on one host."""
    RAN.append(number)
    await GATE.wait()
    return number


@workflow
async def flow(count: int) -> int:
    """Many calls."""
    return sum(await asyncio.gather(*(single(n) for n in range(count))))


async def test_hosts_above_the_maximum_stand_by(board: Board) -> None:
    """The longest running serves; the others pull nothing, though calls wait."""
    first, second, third = [await board.host(single) for _ in range(3)]
    await until(lambda: instance(second, single).standby and instance(third, single).standby)
    assert not instance(first, single).standby
    await board.host(flow)
    run = await board.submit(flow, count=3)
    await until(lambda: RAN)
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert {result.host for result in await board.results(run)} == {first.id}


async def test_one_that_stands_by_steps_in_when_the_serving_host_leaves(board: Board) -> None:
    """And when it dies; again only one of them."""
    first, second, third = [await board.host(single) for _ in range(3)]
    await until(lambda: instance(second, single).standby and instance(third, single).standby)
    await first.stop()
    await until(lambda: not instance(second, single).standby)
    assert instance(third, single).standby
    await board.kill(second)
    await until(lambda: not instance(third, single).standby)
    GATE.set()
    await board.host(flow)
    assert await board.run(flow, count=3) == 3


async def test_a_call_in_hand_is_not_lost_when_a_host_goes_to_stand_by(board: Board) -> None:
    """What it has started it finishes; what it has not it gives back."""
    first = await board.host(single)
    first._limit_instances = lambda member: None  # type: ignore[method-assign]
    await board.host(flow)
    run = await board.submit(flow, count=3)
    await until(lambda: RAN)
    instance(first, single).set_standby(standby=True)
    instance(first, single).set_standby(standby=True)
    GATE.set()
    await until(lambda: not instance(first, single).running)
    assert len(RAN) == 1
    instance(first, single).set_standby(standby=False)
    assert (await board.done(run)).status == "completed"
    assert sorted(RAN) == [0, 1, 2]


@workflow(max_instances=1)
async def only(number: int) -> int:
    """Driven by one host."""
    return await single(number)


@pytest.mark.parametrize("thing", [single, only])
async def test_one_that_stands_by_before_it_has_begun(
    board: Board, monkeypatch: pytest.MonkeyPatch, thing: Any
) -> None:
    """It pulls nothing then either: what it gave back again and again would count as deadly."""
    renew = Host.renew

    async def slow(host: Host, pull: Pull, config: dict[str, Any]) -> None:
        await until(lambda: all(member.standby for member in host._members))
        await renew(host, pull, config)

    first = await board.host(thing)
    monkeypatch.setattr(Host, "renew", slow)
    second = await board.host(thing)
    (member,) = second._members
    assert member.standby
    assert [pull.running for pull in member.pulls] == [False] * len(member.pulls)
    monkeypatch.setattr(Host, "renew", renew)
    await first.stop()
    await until(lambda: all(pull.running for pull in member.pulls))


@pytest.mark.parametrize("thing", [single, only])
async def test_one_that_takes_part_again_before_it_has_begun(
    board: Board, monkeypatch: pytest.MonkeyPatch, thing: Any
) -> None:
    """It begins to pull when it can, and not before."""
    renew = Host.renew
    first = await board.host(thing)

    async def slow(host: Host, pull: Pull, config: dict[str, Any]) -> None:
        await until(lambda: all(member.standby for member in host._members))
        await first.stop()
        await until(lambda: not any(member.standby for member in host._members))
        monkeypatch.setattr(Host, "renew", renew)
        await renew(host, pull, config)

    monkeypatch.setattr(Host, "renew", slow)
    second = await board.host(thing)
    (member,) = second._members
    assert [pull.running for pull in member.pulls] == [True] * len(member.pulls)
    assert second._ticker is not None
    assert not second._ticker.done()


@workflow
async def addressed(host: str) -> int:
    """A call in a host's lane."""
    with options(host=host):
        return await single(1)


async def test_a_call_in_the_lane_of_a_host_that_stands_by_runs_elsewhere(board: Board) -> None:
    """Whoever put it there has not known: it goes to the shared lane, not round and round."""
    first, second = await board.host(single), await board.host(single)
    await board.host(addressed)
    await until(lambda: instance(second, single).standby)
    GATE.set()
    run = await board.submit(addressed, host=second.id)
    assert (await board.done(run)).status == "completed"
    assert [result.host for result in await board.results(run)] == [first.id]


async def test_a_route_to_a_host_that_stands_by_is_passed_over(board: Board) -> None:
    """It takes no calls; its heartbeat says so."""
    _, second, driver = await board.host(single), await board.host(single), await board.host(addressed)
    client = await board.client()
    await client.route("single", second.id)
    await until(lambda: len(driver.routes))
    await until(lambda: not driver.watch.serves(second.id, "single"))
    assert driver.routes.choose("single", "s", "r:1", keeps=False) == ("", 0)
    assert driver.watch.takes_calls(second.id)


async def test_more_may_run_while_heartbeats_are_late(board: Board) -> None:
    """One that is not heard is taken for dead, and serves on: both take calls."""
    first, second = await board.host(single), await board.host(single)
    await until(lambda: instance(second, single).standby)
    first._heart._beat_once = lambda connection: None  # type: ignore[method-assign]
    await until(lambda: not instance(second, single).standby)
    assert not instance(first, single).standby
