"""Priorities that policies give to sessions: of calls to be sent, and of those that wait."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from tests.support.board import Board, instance
from tests.support.waiting import SOON, until

from callboard import tool, workflow
from callboard.actors.host import Host
from callboard.infra import subjects
from callboard.infra.messages.policy import Priority
from callboard.infra.server import EmbeddedServer

GATES: list[asyncio.Event] = []
ORDER: list[str] = []


@tool(concurrency=1)
async def turn(name: str) -> str:
    """Waits at the gate, if it is the first one."""
    if name == "first":
        await GATES[-1].wait()
    ORDER.append(name)
    return name


@tool
async def own() -> int:
    """Makes no calls."""
    return 1


@workflow
async def queue(name: str) -> str:
    """One call."""
    return await turn(name)


@workflow
async def once() -> int:
    """One call."""
    return await own()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    GATES[:] = [asyncio.Event()]
    ORDER.clear()
    # What waits stays where it is: else it is given back once, and comes again a moment later.
    monkeypatch.setattr("callboard.actors.instance.STUCK", 600.0)


async def decide(board: Board, session: str, value: int, *, actor: str = "", epoch: int = 1) -> str:
    """Store a priority; gives its subject."""
    node = await board.node()
    token = subjects.session_token(session)
    subject = subjects.actor_priority(token, actor) if actor else subjects.priority(token)
    body = msgspec.msgpack.encode(Priority(session, value, actor, epoch, "test", "why not", term=1))
    await node.store.stored(subject, body)
    return subject


def known(host: Host, session: str, actor: str = "turn") -> tuple[int, int] | None:
    """Value and epoch of what a host follows."""
    found = host.priorities.of(actor, session)
    return None if found is None else (found.value, found.epoch)


async def waiting(board: Board, *names: str) -> Host:
    """Sessions with one call each, which wait in one mailbox behind a call that runs, in this order."""
    driver, host = await board.host(queue), await board.host(turn)
    client = await board.client()
    route = await client.route("turn", host.id)
    await until(lambda: driver.routes.all() == [route])
    there = instance(host, turn)
    for place, name in enumerate(("first", *names)):
        await client.submit("queue", {"name": name}, session=f"s/{name}")
        await until(lambda expected=place: there.slots.busy == 1 and len(there.mailbox) == expected)  # type: ignore[misc]
    return host


async def test_what_waits_finds_its_place_anew(board: Board) -> None:
    """As soon as the host hears of it: the more urgent sessions go first, the others in order of arrival."""
    host = await waiting(board, "a", "b", "c", "d")
    await decide(board, "s/d", 9)  # each step is worth a second, in which it may have come later
    await decide(board, "s/a", -1)
    await decide(board, "s/c", 1, actor="turn")
    await decide(board, "s/b", 5, actor="other")
    await until(lambda: known(host, "s/b", "other"))
    mailbox = instance(host, turn).mailbox
    assert [mailbox.up_to(band) for band in subjects.BANDS] == [2, 3, 4]
    GATES[-1].set()
    await until(lambda: len(ORDER) == 5)
    assert ORDER == ["first", "d", "c", "b", "a"]


async def test_what_comes_later_to_a_host_is_ranked_there_too(board: Board) -> None:
    """A call that was sent before its maker had heard of the decision."""
    host = await waiting(board, "a")
    maker = next(one for one in board._hosts if one is not host)
    maker.priorities.stop()
    await decide(board, "s/z", 2, epoch=7)
    await until(lambda: known(host, "s/z"))
    client = await board.client()
    run = await client.submit("queue", {"name": "z"}, session="s/z")
    await until(lambda: len(instance(host, turn).mailbox) == 2)
    GATES[-1].set()
    await client.result(run, SOON)
    assert ORDER[:2] == ["first", "z"]
    (result,) = await board.results(run)
    assert result.ranked == 7


async def test_makers_send_calls_with_it(board: Board) -> None:
    """Band, priority and the epoch of the decision; as their run says again when it is cleared."""
    driver = await board.host(once)
    await board.host(own)
    node, client = await board.node(), await board.client()
    seen: list[tuple[str, bytes]] = []
    node.connection.subscribe("cb.call.>", lambda s, _, __, head: seen.append((s.decode(), head or b"")))
    await node.connection.flush()
    subject = await decide(board, "chat", -2, epoch=9)
    await until(lambda: known(driver, "chat"))
    run = await client.submit("once", {}, session="chat", priority=1)
    await client.result(run, SOON)
    await node.store.stored(subject, b"")
    await until(lambda: not len(driver.priorities))
    await client.result(await client.submit("once", {}, session="chat", priority=1), SOON)
    await until(lambda: len(seen) == 2)
    (decided, head), (free, plain) = seen
    assert (decided, free) == (subjects.call("own", band=2), subjects.call("own", band=0))
    assert b"\r\nCb-Priority: -2\r\n" in head
    assert b"\r\nCb-Ranked: 9\r\n" in head
    assert b"Cb-Ranked" not in plain
    (result,) = await board.results(run)
    assert (result.ranked, result.policy) == (9, 0)


async def test_decisions_are_applied_in_the_order_of_their_epochs(board: Board) -> None:
    """An older one, and what is none, changes nothing; one at an actor goes before that of all."""
    host, node = await board.host(own), await board.node()
    await decide(board, "chat", 3, epoch=5)
    await decide(board, "chat", 4, epoch=4)
    await decide(board, "chat", 6, actor="turn", epoch=1)
    await node.store.stored(subjects.priority("other"), b"\xc1")
    await node.store.stored(subjects.priority("=A"), msgspec.msgpack.encode(Priority("x", 1)))
    await node.store.stored(subjects.priority("much"), msgspec.msgpack.encode(Priority("much", 1 << 40)))
    await decide(board, "last", 1)
    await until(lambda: known(host, "last"))
    assert (known(host, "chat", "own"), known(host, "chat")) == ((3, 5), (6, 1))
    assert len(host.priorities) == 3


async def test_they_survive_the_restart_of_the_server(nats_server: EmbeddedServer) -> None:
    """Who starts later reads them, who was there hears of what it missed."""
    board = Board(nats_server.url)
    stays = await board.host(own)
    gone = await decide(board, "gone", 1)
    await decide(board, "kept", 2)
    await until(lambda: len(stays.priorities) == 2)
    await asyncio.to_thread(nats_server.kill)
    await asyncio.to_thread(nats_server.start)
    later = await board.host(own)
    assert len(later.priorities) == 2
    node = await board.node()
    await node.store.stored(gone, b"")
    await until(lambda: len(stays.priorities) == len(later.priorities) == 1)
    await board.close()
