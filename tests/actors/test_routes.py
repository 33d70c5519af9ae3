"""Routes: which host's lane calls go to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from tests.support.board import Board
from tests.support.waiting import SOON, until

from callboard import ManagedList, agent, connect_sync, method, signal, tool, workflow
from callboard.actors.host import Host
from callboard.actors.routes import spread
from callboard.infra import subjects
from callboard.infra.errors import RouteInvalid, RouteOutdated
from callboard.infra.messages.policy import Route
from callboard.infra.messages.run import Result
from callboard.infra.server import EmbeddedServer


@tool
async def double(number: int) -> int:
    """Twice as much."""
    return 2 * number


FAILED: set[int] = set()


@tool(retries=1, backoff=0.01)
async def shaky(number: int) -> int:
    """Fails the first time."""
    if number not in FAILED:
        FAILED.add(number)
        raise ValueError(number)
    return number


@agent
class Notes:
    """Keeps what it is told."""

    kept: ManagedList[str]

    @method
    async def keep(self, text: str) -> list[str]:
        """All so far."""
        self.kept.append(text)
        return list(self.kept)


@workflow
async def doubling(count: int) -> list[int]:
    """One call after the other."""
    return [await double(number) for number in range(count)]


@workflow
async def shaking(count: int) -> list[int]:
    """Calls that fail first."""
    return [await shaky(number) for number in range(count)]


@workflow
async def noting(text: str) -> list[str]:
    """One call that keeps something."""
    return await Notes.keep(text)


@workflow
async def halves(count: int) -> list[int]:
    """Calls, a wait, and calls again."""
    first = [await double(number) for number in range(count)]
    await signal("go")
    return [*first, *[await double(number) for number in range(count)]]


def followed(host: Host) -> list[Route]:
    """The routes that a host knows of."""
    return host.routes.all()


async def heard(host: Host, *routes: Route) -> None:
    """Wait until these are the routes that a host knows of."""
    await until(lambda: followed(host) == [*routes])


async def outcomes(board: Board, run: str) -> list[Result]:
    """The outcomes of a run's calls, once it has ended."""
    assert (await board.done(run)).status == "completed"
    return await board.results(run)


async def ran_on(board: Board, run: str) -> Counter[str]:
    """How many calls of a run each host has run."""
    return Counter(result.host for result in await outcomes(board, run))


async def test_calls_go_where_the_route_says(board: Board) -> None:
    """From the moment a maker hears of it, and no more once it is cleared."""
    driver, one, two = await board.host(doubling), await board.host(double), await board.host(double)
    client = await board.client()
    for chosen in (one, two):
        route = await client.route("double", chosen.id, reason="a test")
        await heard(driver, route)
        assert await ran_on(board, await board.submit(doubling, count=20)) == {chosen.id: 20}
    assert [(r.hosts, r.policy, r.reason) for r in await client.routes()] == [
        ({two.id: 1.0}, "by hand", "a test")
    ]
    assert await client.clear_route("double")
    assert not await client.clear_route("double")
    await until(lambda: not followed(driver))
    await ran_on(board, await board.submit(doubling, count=1))


async def test_the_message_tells_by_which_decision_it_goes_where(board: Board) -> None:
    """The host, and the epoch of the route."""
    driver, host = await board.host(doubling), await board.host(double)
    node, client = await board.node(), await board.client()
    seen: list[tuple[str, bytes]] = []
    node.connection.subscribe("cb.call.>", lambda s, _, __, head: seen.append((s.decode(), head or b"")))
    await node.connection.flush()
    route = await client.route("double", host.id)
    await heard(driver, route)
    await board.run(doubling, count=1)
    await client.clear_route("double")
    await until(lambda: not followed(driver))
    await board.run(doubling, count=1)
    await until(lambda: len(seen) == 2)
    (routed, head), (free, plain) = seen
    assert (routed, free) == (subjects.call("double", host.id), subjects.call("double"))
    assert f"\r\nCb-Policy: {route.epoch}\r\n".encode() in head
    assert f"\r\nCb-Executor: {host.id}\r\n".encode() in head
    assert b"Cb-Policy" not in plain


async def test_a_later_decision_has_a_greater_epoch(board: Board) -> None:
    """Also after the former was cleared; one that was decided before what is there is refused."""
    client = await board.client()
    first = await client.route("double", "h-1")
    await client.clear_route("double")
    second = await client.route("double", "h-2")
    assert second.epoch > first.epoch
    third = await client.route("double", "h-3", epoch=second.epoch + 10, policy="a policy")
    with pytest.raises(RouteOutdated, match="a policy"):
        await client.route("double", "h-1", epoch=second.epoch)
    assert await client.routes("double") == [third]
    assert (await client.route("double", "h-1")).epoch > third.epoch


@pytest.mark.parametrize(
    ("hosts", "error"),
    [
        ({}, RouteInvalid),
        ({"h-1": 0.0}, RouteInvalid),
        ({"h-1": -1.0, "h-2": 2.0}, RouteInvalid),
        ({"h-1": float("nan")}, RouteInvalid),
        ("h 1", subjects.NameInvalid),
    ],
)
async def test_what_is_no_route_is_refused(board: Board, hosts: Any, error: type[Exception]) -> None:
    """Before anything is stored."""
    client = await board.client()
    with pytest.raises(error):
        await client.route("double", hosts)
    assert await client.routes() == []


async def test_a_route_to_a_host_that_is_not_there_is_passed_over(board: Board) -> None:
    """Also to one that does not run the actor, and where of several none is there."""
    driver = await board.host(doubling)
    host = await board.host(double)
    client = await board.client()
    for hosts in ("h-gone", driver.id, {"h-gone": 1.0, driver.id: 5.0}):
        route = await client.route("double", hosts)
        await heard(driver, route)
        assert await ran_on(board, await board.submit(doubling, count=3)) == {host.id: 3}


async def test_a_route_holds_for_a_time(board: Board) -> None:
    """After that it is not followed, whoever still remembers it, and the stream forgets it."""
    driver = await board.host(doubling)
    client = await board.client()
    route = await client.route("double", driver.id, ttl=3.0)
    await heard(driver, route)
    assert 2.9 < route.until - route.at <= 3.0
    route.until = route.at
    driver.routes._routes["double", ""].until = route.at  # its time is over
    assert driver.routes.choose("double", "s", "r:1", keeps=False) == ("", 0)
    await board.emptied("KV_cb_policy")


async def test_weights_share_the_calls_and_a_replay_decides_likewise() -> None:
    """By the calls' ids; a host that goes away moves its own calls only."""
    chance = random.Random(7)
    ids = [f"{chance.getrandbits(64):x}:{chance.randint(1, 50)}" for _ in range(8000)]
    weights = {"h-a": 5.0, "h-b": 3.0, "h-c": 2.0, "h-d": 0.0}
    shares = Counter(spread(weights, one) for one in ids)
    assert set(shares) == {"h-a", "h-b", "h-c"}
    for host, weight in weights.items():
        assert abs(shares[host] / len(ids) - weight / 10) < 0.02
    assert [spread(dict(reversed(weights.items())), one) for one in ids[:100]] == [
        spread(weights, one) for one in ids[:100]
    ]
    left = {host: weight for host, weight in weights.items() if host != "h-b"}
    assert all(spread(left, one) == spread(weights, one) for one in ids if spread(weights, one) != "h-b")


async def test_weighted_routes_are_followed(board: Board) -> None:
    """Each call as its id says."""
    driver, *hosts = [await board.host(doubling), *[await board.host(double) for _ in range(3)]]
    client = await board.client()
    weights = {hosts[0].id: 3.0, hosts[1].id: 1.0}
    route = await client.route("double", weights)
    await heard(driver, route)
    run = await board.submit(doubling, count=40)
    assert {r.future: r.host for r in await outcomes(board, run)} == {
        f"{run}:{number}": spread(weights, f"{run}:{number}") for number in range(1, 41)
    }


async def test_a_replay_under_another_route_goes_on(board: Board) -> None:
    """Routes are no part of what a call is: those of the journal are found again."""
    driver = await board.host(halves, park_after=0.05)
    one, two = await board.host(double), await board.host(double)
    client = await board.client()
    route = await client.route("double", one.id)
    await heard(driver, route)
    run = await board.submit(halves, count=3)
    await board.entries(run, "aside")
    route = await client.route("double", two.id)
    await heard(driver, route)
    await client.signal(run, "go")
    assert await client.result(run, SOON) == [0, 2, 4, 0, 2, 4]
    assert [r.host for r in await board.results(run) if r.call == "double.call"] == [one.id] * 3 + [
        two.id
    ] * 3


async def test_a_retry_follows_the_route_too(board: Board) -> None:
    """The one that holds when the attempt has failed."""
    FAILED.clear()
    driver, host, other = await board.host(shaking), await board.host(shaky), await board.host(shaky)
    client = await board.client()
    route = await client.route("shaky", host.id)
    for one in (driver, host, other):
        await heard(one, route)
    run = await board.submit(shaking, count=10)
    assert {(r.host, r.attempt) for r in await outcomes(board, run)} == {(host.id, 2)}


async def test_one_session_has_a_route_of_its_own(board: Board) -> None:
    """Which comes before that of the actor."""
    driver, one, two = await board.host(doubling), await board.host(double), await board.host(double)
    client = await board.client()
    await client.route("double", one.id)
    await client.route("double", two.id, session="chat/7 ü")
    await until(lambda: len(followed(driver)) == 2)
    own = await client.submit("doubling", {"count": 3}, session="chat/7 ü")
    other = await client.submit("doubling", {"count": 3}, session="chat-8")
    assert (await ran_on(board, own), await ran_on(board, other)) == ({two.id: 3}, {one.id: 3})
    assert [route.session for route in await client.routes()] == ["", "chat/7 ü"]


async def test_a_session_is_opened_where_the_route_says_and_stays_with_its_holder(board: Board) -> None:
    """Who holds a managed session is the truth, also for a maker that has not heard of it."""
    one, two = await board.host(Notes), await board.host(Notes)
    driver = await board.host(noting)
    client = await board.client()
    route = await client.route("Notes", two.id, session="chat")
    await heard(driver, route)
    first = await client.submit("noting", {"text": "a"}, session="chat")
    assert await ran_on(board, first) == {two.id: 1}

    newcomer = await board.host(noting)
    await board.kill(driver)
    route = await client.route("Notes", one.id, session="chat")
    await heard(newcomer, route)
    second = await client.submit("noting", {"text": "b"}, session="chat")
    assert await client.result(second, SOON) == ["a", "b"]
    assert await ran_on(board, second) == {two.id: 1}


async def test_routes_survive_the_restart_of_everything(nats_server: EmbeddedServer) -> None:
    """They are in the stream; who starts later reads them, who was there hears of what it missed."""
    board = Board(nats_server.url)
    stays = await board.host(doubling)
    client = await board.client()
    kept, gone = await client.route("double", "h-1"), await client.route("double", "h-2", session="s")
    await until(lambda: len(followed(stays)) == 2)
    await asyncio.to_thread(nats_server.kill)
    await asyncio.to_thread(nats_server.start)
    later = await board.host(doubling)
    assert sorted(followed(later), key=lambda r: r.session) == [kept, gone]
    fresh = await board.client()
    await fresh.clear_route("double", "s")
    await until(lambda: followed(stays) == followed(later) == [kept])
    await board.close()


async def test_weighted_routes_survive_the_restart_of_everything(nats_server: EmbeddedServer) -> None:
    """Hosts that come back under their names get their shares of the calls again, each call as its id says."""
    board = Board(nats_server.url)
    calm: dict[str, Any] = {"dead_after": 10.0, "steal_after": 0.0}  # no host is passed over for being slow
    weights = {"large": 3.0, "small": 1.0}
    route = None
    for number in (1, 2):
        driver = await board.host(doubling, **calm)
        ids = {(await board.named(name, double, **calm)).id: name for name in weights}
        client = await board.client()
        route = route or await client.route("double", weights)
        await heard(driver, route)
        await until(lambda ids=ids, driver=driver: all(driver.watch.serves(host, "double") for host in ids))  # type: ignore[misc]
        names = driver.watch.names
        await until(lambda ids=ids, names=names: all(names.find(name) == host for host, name in ids.items()))  # type: ignore[misc]
        run = await client.submit("doubling", {"count": 200}, run=f"shares-{number}")
        placed = {r.future: ids[r.host] for r in await outcomes(board, run)}
        assert placed == {f"{run}:{call}": spread(weights, f"{run}:{call}") for call in range(1, 201)}
        assert 120 < Counter(placed.values())["large"] < 180  # of 150
        await board.close()
        await asyncio.to_thread(nats_server.kill)
        await asyncio.to_thread(nats_server.start)
        board = Board(nats_server.url)
    await board.close()


async def test_what_is_no_route_in_the_bucket_changes_nothing(board: Board) -> None:
    """Anybody can write there; nor does one that is older than what is known."""
    driver = await board.host(doubling)
    client, node = await board.client(), await board.node()
    route = await client.route("double", "h-1")
    await heard(driver, route)
    before = followed(driver)
    subject = subjects.route("double")
    for body in (b"\xc1", b"\x80", b'{"actor":"double"}'):
        await node.store.stored(subject, body)
    await node.store.stored(subjects.session_route("x", "=A"), b"\x80")
    last = await client.route("other", "h-1")
    await until(lambda: last in followed(driver))
    assert [route for route in followed(driver) if route != last] == before


def test_the_same_for_sync_code(nats_url: str) -> None:
    """Set, list, clear."""
    with connect_sync(nats_url) as client:
        route = client.route("double", {"h-1": 1, "h-2": 2})
        assert client.routes() == [route]
        assert client.clear_route("double")
        assert client.routes("double") == []
