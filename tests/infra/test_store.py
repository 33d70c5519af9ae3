"""Acked publishing: nothing is lost, nothing is stored twice, and refusals are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.waiting import SOON, until

from callboard.infra import headers as H
from callboard.infra import store as store_module
from callboard.infra.connection import Connection
from callboard.infra.direct import DirectReader
from callboard.infra.errors import Fenced, StoreFull, StoreRefused
from callboard.infra.server import EmbeddedServer
from callboard.infra.settings import Settings
from callboard.infra.store import Store
from callboard.infra.topology import Topology

Outcome = int | StoreRefused


def with_id(message_id: str) -> bytes:
    """Headers that make repetitions of a message one message."""
    return H.encode([(H.MESSAGE_ID, message_id)])


async def bodies(connection: Connection, stream: str) -> list[bytes]:
    """Everything in a stream, in its order."""
    return [stored.body for stored in await DirectReader(connection).read(stream, ">")]


@contextmanager
def losing(connection: Connection) -> Iterator[list[str]]:
    """Loses what is published meanwhile, as a connection does that breaks; gives the subjects."""
    lost: list[str] = []

    def lose(subject: str, body: bytes = b"", headers: bytes | None = None, reply: str = "") -> None:
        lost.append(subject)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "publish", lose)
        yield lost


@pytest.fixture
def quick_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acks count as late at once; to be asked for before the store."""
    monkeypatch.setattr(store_module, "_LATE", 0.0)
    monkeypatch.setattr(store_module, "_SWEEP", 0.01)


# -- storing --------------------------------------------------------------------------------------------


async def test_stored_gives_the_stream_sequence(connection: Connection, store: Store, stream: str) -> None:
    """What was waited for stands in the stream under the sequence that was given."""
    sequences = [await store.stored("t.a", b"one"), await store.stored("t.b", b"two", with_id("x"))]
    assert sequences == [1, 2]
    second = await DirectReader(connection).at(stream, 2)
    assert second is not None
    assert (second.subject, second.body, second.headers[H.MESSAGE_ID]) == ("t.b", b"two", "x")


async def test_the_window_bounds_what_is_outstanding(
    connection: Connection, store: Store, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the window messages queue in the process; all are stored, in order, each told once."""
    monkeypatch.setattr(store_module, "_WINDOW", 64)
    outcomes: list[Outcome] = []
    most = 0

    def on_stored(outcome: Outcome) -> None:
        nonlocal most
        outcomes.append(outcome)
        most = max(most, len(store._outstanding))

    for number in range(1000):
        store.put("t.a", b"%d" % number, None, on_stored)
    assert (len(store._outstanding), store.outstanding) == (64, 1000)
    await until(lambda: store.outstanding == 0)
    assert outcomes == list(range(1, 1001))
    assert most <= 64
    assert await bodies(connection, stream) == [b"%d" % number for number in range(1000)]


async def test_a_message_stored_already_is_acked_with_its_old_sequence(store: Store, stream: str) -> None:
    """A repetition under the same id is no error and no second message."""
    first = await store.stored("t.a", b"x", with_id("once"))
    await store.stored("t.a", b"y", with_id("other"))
    assert await store.stored("t.a", b"x", with_id("once")) == first


async def test_stop_waits_for_what_is_on_its_way(connection: Connection, stream: str) -> None:
    """After stop everything that was put is stored; stopping and starting again are harmless."""
    store = Store(connection)
    await store.stop()
    store.start()
    store.start()
    for number in range(500):
        store.put("t.a", b"%d" % number)
    await store.stop()
    await store.stop()
    assert store.outstanding == 0
    assert len(await bodies(connection, stream)) == 500


async def test_stop_tells_what_it_leaves_unstored(connection: Connection) -> None:
    """Without a stream nothing can be stored: stop gives up in time and says how much is lost."""
    store = Store(connection)
    store.start()
    store.put("nowhere", b"x")
    with capture_logs() as logs:
        await store.stop(timeout=0.05)
    assert [entry["count"] for entry in logs if entry["event"] == "stopped_with_unstored_messages"] == [1]


# -- when messages or acks are lost -------------------------------------------------------------------------


async def test_a_server_that_dies_loses_nothing_and_doubles_nothing(
    connection: Connection, store: Store, stream: str, nats_server: EmbeddedServer
) -> None:
    """Killed in the middle of a flood and started again: every message once, every waiter told once."""
    told: dict[int, int] = {}

    def telling(number: int) -> Callable[[Outcome], None]:
        def on_stored(outcome: Outcome) -> None:
            told[number] = told.get(number, 0) + 1
            assert isinstance(outcome, int)

        return on_stored

    def put(numbers: range) -> None:
        for number in numbers:
            store.put("t.a", b"%d" % number, with_id(str(number)), telling(number))

    put(range(3000))
    await until(lambda: len(told) > 500)
    await asyncio.to_thread(nats_server.kill)
    put(range(3000, 4000))
    await asyncio.to_thread(nats_server.start)
    await until(lambda: store.outstanding == 0)
    assert told == dict.fromkeys(range(4000), 1)
    stored = await bodies(connection, stream)
    assert sorted(map(int, stored)) == list(range(4000))


async def test_a_message_lost_without_a_reconnect_is_sent_again(
    quick_sweep: None, connection: Connection, store: Store, stream: str
) -> None:
    """A late ack is taken for a lost message; who waits for it notices nothing."""
    with losing(connection) as lost:
        waiting = asyncio.create_task(store.stored("t.a", b"x", with_id("1")))
        await until(lambda: lost)
    async with asyncio.timeout(SOON):
        assert await waiting == 1
    assert await bodies(connection, stream) == [b"x"]


async def test_late_acks_are_found_behind_a_message_that_is_refused_for_now(
    quick_sweep: None, connection: Connection, store: Store, stream: str
) -> None:
    """A message that nobody takes yet, tried again and again, keeps no other from being sent again."""
    store.put("nowhere", b"never")
    await until(lambda: [entry for entry in store._outstanding.values() if entry.tries >= 2])
    with losing(connection) as lost:
        waiting = asyncio.create_task(store.stored("t.a", b"x", with_id("1")))
        await until(lambda: "t.a" in lost)
    async with asyncio.timeout(SOON):
        assert await waiting == 1


async def test_a_stream_that_comes_late_gets_the_message(
    connection: Connection, store: Store, topology: Topology
) -> None:
    """As long as no stream takes the subject the message waits; then it is stored."""
    waiting = asyncio.create_task(store.stored("late.a", b"x"))
    await until(lambda: [entry for entry in store._outstanding.values() if entry.tries])
    assert not waiting.done()
    await topology.api("STREAM.CREATE.L", {"name": "L", "subjects": ["late.>"], "allow_direct": True})
    async with asyncio.timeout(SOON):
        assert await waiting == 1
    assert await bodies(connection, "L") == [b"x"]


# -- refusals ------------------------------------------------------------------------------------------------


async def test_a_fence_that_is_not_met_is_told(store: Store, stream: str) -> None:
    """An expected sequence that is not the last one any more: somebody else was faster."""
    await store.stored("t.a", b"first")
    with pytest.raises(Fenced) as caught:
        await store.stored("t.a", b"second", H.encode([(H.EXPECTED_SEQUENCE, "0")]))
    assert caught.value.fields["subject"] == "t.a"
    assert caught.value.fields["err_code"] == 10071
    assert not caught.value.retryable


async def test_a_terminal_refusal_is_told_once_and_not_tried_again(store: Store, stream: str) -> None:
    """What the stream will never take is reported with the server's reason."""
    outcomes: list[Outcome] = []
    store.put("t.a", b"x", H.encode([("Nats-Expected-Stream", "OTHER")]), outcomes.append)
    await until(lambda: outcomes)
    assert store.outstanding == 0
    (refusal,) = outcomes
    assert type(refusal) is StoreRefused
    assert refusal.fields["err_code"] == 10060
    assert refusal.fields["description"] in refusal.message


async def test_a_message_that_is_being_stored_is_asked_for_again(
    connection: Connection, store: Store
) -> None:
    """A cluster that chooses a leader answers so what is sent again: it may come to be stored, or not."""
    answers = [b'{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}']

    def answer(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        connection.publish(reply.decode(), answers.pop() if answers else b'{"stream":"S","seq":7}')

    connection.subscribe("cluster.a", answer)
    assert await store.stored("cluster.a", b"x", with_id("1")) == 7
    assert store.full_at == 0.0, "nothing is full"


async def test_a_terminal_refusal_that_nobody_waits_for_is_logged(store: Store, stream: str) -> None:
    """Without a callback the loss stands in the log at least."""
    with capture_logs() as logs:
        store.put("t.a", b"x", H.encode([("Nats-Expected-Stream", "OTHER")]))
        await until(lambda: store.outstanding == 0)
    assert [entry["subject"] for entry in logs if entry["event"] == "not_stored"] == ["t.a"]


async def test_a_refusal_lets_the_next_ones_through(store: Store, stream: str) -> None:
    """One message that is refused neither holds up the others nor keeps the store from becoming idle."""
    bad = H.encode([("Nats-Expected-Stream", "OTHER")])
    outcomes: list[Outcome] = []
    for number in range(200):
        store.put("t.a", b"x", bad if number % 2 else None, outcomes.append)
    await store.stop()
    assert sum(isinstance(outcome, int) for outcome in outcomes) == 100
    assert len(outcomes) == 200


@pytest.mark.parametrize("how", ["put", "put_together"])
async def test_a_message_above_the_servers_limit_is_refused_here(
    connection: Connection, store: Store, how: str
) -> None:
    """The server would close the connection over it, for good; so it never leaves."""
    outcomes: list[Outcome] = []
    getattr(store, how)("t.a", b"x" * connection.max_payload, with_id("1"), outcomes.append)
    assert outcomes == [], "told from the event loop, not from within the call"
    await until(lambda: outcomes)
    (refusal,) = outcomes
    assert type(refusal) is StoreRefused
    assert "too large" in refusal.message
    await connection.flush()
    assert connection.connected.is_set()
    assert store.outstanding == 0


# -- messages that share an ack ------------------------------------------------------------------------------


def put_group(store: Store, names: Iterable[str], outcomes: dict[str, Outcome]) -> None:
    """Put messages that share one ack."""

    def telling(name: str) -> Callable[[Outcome], None]:
        return lambda outcome: outcomes.update({name: outcome})

    for name in names:
        store.put_together("t.a", name.encode(), with_id(name), telling(name))


async def test_messages_of_one_turn_are_stored_in_order_with_one_ack(
    connection: Connection, store: Store, stream: str
) -> None:
    """All are stored; the last one's callback tells of it."""
    outcomes: dict[str, Outcome] = {}
    put_group(store, "abc", outcomes)
    assert store.outstanding == 3
    await until(lambda: store.outstanding == 0)
    assert outcomes == {"c": 3}
    assert await bodies(connection, stream) == [b"a", b"b", b"c"]


async def test_a_group_whose_ack_is_an_error_is_sent_one_by_one(
    connection: Connection, store: Store, topology: Topology
) -> None:
    """Each member gets an ack of its own then, and is stored once."""
    outcomes: dict[str, Outcome] = {}
    put_group(store, "abc", outcomes)
    await until(lambda: [entry for entry in store._outstanding.values() if entry.tries])
    await topology.api("STREAM.CREATE.T", {"name": "T", "subjects": ["t.>"], "allow_direct": True})
    await until(lambda: store.outstanding == 0)
    assert sorted(outcomes) == ["a", "b", "c"]
    assert sorted(await bodies(connection, "T")) == [b"a", b"b", b"c"]


async def test_a_group_lost_with_its_server_is_stored_once(
    connection: Connection, store: Store, stream: str, nats_server: EmbeddedServer
) -> None:
    """Killed in the middle of a flood of groups: every message is there, and once."""
    outcomes: dict[str, Outcome] = {}
    put_group(store, map(str, range(2000)), outcomes)
    await until(lambda: len(outcomes) > 10)
    await asyncio.to_thread(nats_server.kill)
    put_group(store, map(str, range(2000, 2500)), outcomes)
    await asyncio.to_thread(nats_server.start)
    await until(lambda: store.outstanding == 0)
    assert sorted(map(int, await bodies(connection, stream))) == list(range(2500))


@pytest.mark.parametrize("turns", range(5))
async def test_a_group_torn_by_the_end_of_a_connection_is_stored_whole(
    connection: Connection, store: Store, stream: str, nats_server: EmbeddedServer, turns: int
) -> None:
    """Its beginning left by the old connection, and is lost; its end, with the ack, leaves by the new one."""
    nats_server.kill()
    for _ in range(turns):  # in one of them the end of the connection has come, and nobody knows yet
        await asyncio.sleep(0)
    names = [f"{number}" for number in range(32)]
    for name in names:
        store.put_together("t.a", name.encode() + b" " * 7_000, with_id(name), lambda _: None)
    await asyncio.to_thread(nats_server.start)
    await until(lambda: store.outstanding == 0)
    assert sorted(map(int, await bodies(connection, stream))) == list(range(32))


# -- a full store --------------------------------------------------------------------------------------------


async def test_a_full_store_waits_and_goes_on_when_there_is_room() -> None:
    """Out of room the messages wait here, with a warning; once there is room each is stored once."""
    with EmbeddedServer(max_file_store=4 * 1024 * 1024) as server:
        connection = await Connection(Settings.load({}, nats_url=server.url), "test").open()
        topology = Topology(connection, connection.settings)
        every: dict[str, Any] = {"discard": "new", "allow_direct": True, "storage": "file"}
        await topology.api("STREAM.CREATE.FILL", {"name": "FILL", "subjects": ["fill"], **every})
        await topology.api("STREAM.CREATE.T", {"name": "T", "subjects": ["t.>"], **every})
        store = Store(connection)
        store.start()
        outcomes: list[Outcome] = []
        with capture_logs() as logs:
            for _ in range(16):
                store.put("fill", b"x" * 512 * 1024)
            await until(lambda: [entry for entry in store._outstanding.values() if entry.tries >= 2])
            for number in range(20):
                body = b"%d" % number + b" " * 100_000
                store.put("t.a", body, with_id(str(number)), outcomes.append)
            await until(lambda: all(entry.tries >= 1 for entry in store._outstanding.values()))
        assert [entry["reason"] for entry in logs if entry["event"] == "not_stored_yet"]
        await topology.api("STREAM.DELETE.FILL")
        await until(lambda: len(outcomes) == 20)
        assert all(isinstance(outcome, int) for outcome in outcomes)
        found = [int(body) for body in await bodies(connection, "T")]
        assert sorted(found) == list(range(20))
        await store.stop(timeout=0.05)
        await connection.close()


@pytest.mark.parametrize("code", sorted(store_module._FULL))
def test_out_of_room_is_retryable(code: int) -> None:
    """All of the server's codes for want of room mean: later."""
    refusal = store_module._refusal("t.a", store_module._AckError(400, code, "why"))
    assert type(refusal) is StoreFull
    assert refusal.retryable
