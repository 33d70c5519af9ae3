"""Names of hosts: routes to them go on when the host is started again; two of one name do not live at once."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest
from tests.support.board import Board, call_headers, packed
from tests.support.waiting import until

from callboard import tool, workflow
from callboard.actors.host import Host
from callboard.infra import subjects
from callboard.infra.errors import HostNameTaken
from callboard.infra.messages.registry import Named, Pulse

RAN: Counter[int] = Counter()
PATIENT = 10.0
"""Seconds of silence after which a host has lost its name; it is heard at once if the machine goes on."""


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run."""
    RAN.clear()


@tool
async def double(number: int) -> int:
    """Twice as much."""
    RAN[number] += 1
    return 2 * number


@workflow
async def doubling(count: int) -> list[int]:
    """Calls."""
    return list(await asyncio.gather(*(double(number) for number in range(count))))


async def known(host: Host, name: str, other: Host) -> None:
    """Wait until a host knows who has a name."""
    await until(lambda: host.watch.names.find(name) == other.id and host.watch.serves(other.id, "double"))


async def ran_on(board: Board, run: str) -> Counter[str]:
    """How many calls of a run each host has run."""
    assert (await board.done(run)).status == "completed"
    return Counter(result.host for result in await board.results(run))


@pytest.mark.parametrize("killed", [False, True])
async def test_a_route_to_a_name_survives_its_host(board: Board, killed: bool) -> None:  # noqa: FBT001 - a parameter
    """However it has ended: the next host of the name gets the calls, under an id of its own."""
    driver, other = await board.host(doubling), await board.named("other", double)
    first = await board.named("left", double)
    client = await board.client()
    route = await client.route("double", "left")
    await until(lambda: driver.routes.all() == [route])
    await known(driver, "left", first)
    assert await ran_on(board, await board.submit(doubling, count=9)) == {first.id: 9}
    if killed:
        await board.kill(first)
    else:
        await first.stop()
    second = await board.named("left", double)
    assert second.id not in {first.id, other.id}
    await known(driver, "left", second)
    assert await ran_on(board, await board.submit(doubling, count=9)) == {second.id: 9}
    assert set(RAN.values()) == {2}


async def test_calls_in_the_lane_of_a_dead_host_go_to_the_next_of_its_name(board: Board) -> None:
    """Each once; those of an actor that it does not serve go to the shared lane."""
    await board.named("other", double)
    second = await board.named("left", double)
    node = await board.node()
    for number in range(5):
        head = call_headers(f"01RUN:{number}", Nats_Msg_Id=f"01RUN:{number}")
        await node.store.stored(subjects.call("double", "h-gone", 1), packed({"number": number}), head)
    dead = Pulse("h-gone", at=0.0, name="left")
    await node.store.stored(subjects.registry("host.h-gone"), msgspec.msgpack.encode(dead))
    await board.emptied(subjects.CALLS)
    results = await board.results("01RUN")
    assert Counter(result.host for result in results) == {second.id: 5}
    assert set(RAN.values()) == {1}


async def test_a_second_host_of_a_name_is_refused(board: Board) -> None:
    """While the first one lives, which goes on; afterwards the name is free."""
    first = await board.named("left", double)
    second = Host(first.declarations, board.settings(dead_after=PATIENT), name="left")
    with pytest.raises(HostNameTaken, match="end it first") as caught:
        await second.start()
    assert caught.value.fields == {"name": "left", "host": first.id}
    assert list(first.watch.alive) == [first.id]
    await first.stop()
    await second.start()
    await second.stop()
    await second.start()  # its own name is no hindrance
    await second.stop()


async def test_of_many_that_start_at_once_one_gets_the_name(board: Board) -> None:
    """Though none of them is heard when the others look."""
    hosts = [Host([], board.settings(dead_after=PATIENT), name="left") for _ in range(5)]
    started = await asyncio.gather(*(host.start() for host in hosts), return_exceptions=True)
    assert [type(one) for one in started if one is not None] == [HostNameTaken] * 4
    node = await board.node()
    stored = await node.reader.last(subjects.REGISTRY, subjects.registry("name.left"))
    assert stored is not None
    assert msgspec.msgpack.decode(stored.body, type=Named).host == hosts[started.index(None)].id
    await asyncio.gather(*(host.stop() for host in hosts))


async def test_a_claim_before_the_first_beat_of_another(board: Board) -> None:
    """Who claims a name of a host that cannot be heard yet has it, and that one is refused."""
    node = await board.node()
    claims: list[None] = []
    host = Host([], board.settings(), name="left")
    equip = host._equip

    def slowly() -> None:
        equip()
        announce = host._heart.announce

        async def late() -> None:
            subject = subjects.registry("name.left")
            await node.store.stored(subject, msgspec.msgpack.encode(Named("h-faster")))
            claims.append(None)
            await announce()

        host._heart.announce = late  # type: ignore[method-assign]

    host._equip = slowly  # type: ignore[method-assign]
    with pytest.raises(HostNameTaken, match="h-faster"):
        await host.start()
    assert claims == [None]
    assert (
        await node.reader.last(subjects.REGISTRY, subjects.registry(f"host.{host.id}")) is None
        or not (await node.reader.read(subjects.REGISTRY, subjects.registry(f"host.{host.id}")))[-1].body
    )


@pytest.mark.parametrize("name", ["a b", "a.b", "h-7m2k", "*"])
def test_what_is_no_name(board: Board, name: str) -> None:
    """It would be used where ids are."""
    with pytest.raises(subjects.NameInvalid):
        Host([], board.settings(), name=name)
