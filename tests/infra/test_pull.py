"""The pull loop: it asks for what there is room for, and accounts for every message."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import nats
import pytest
from tests.infra.conftest import Connect
from tests.support.waiting import SOON, until

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.connection import Connection
from callboard.infra.pull import Delivered, Pull
from callboard.infra.server import EmbeddedServer
from callboard.infra.store import Store
from callboard.infra.topology import Topology


class Puller:
    """A pull and what it has got."""

    def __init__(self, connection: Connection) -> None:
        self.got: list[Delivered] = []
        self.empty = 0
        self.pull = Pull(connection, "W", "c", self.got.append, self._on_empty)

    def _on_empty(self, pull: Pull) -> None:
        self.empty += 1

    @property
    def bodies(self) -> list[bytes]:
        """The bodies, in the order of arrival."""
        return [delivered.body for delivered in self.got]


@pytest.fixture
async def work(topology: Topology) -> None:
    """A work queue ``W`` on ``w`` with a consumer ``c``."""
    await topology.api(
        "STREAM.CREATE.W", {"name": "W", "subjects": ["w"], "retention": "workqueue", "allow_direct": True}
    )
    await topology.consumer(
        "W", "c", {"ack_policy": "explicit", "filter_subject": "w", "ack_wait": 30 * 10**9, "max_deliver": -1}
    )


@pytest.fixture
async def puller(connection: Connection, work: None) -> AsyncIterator[Puller]:
    """A started pull on the work queue."""
    puller = Puller(connection)
    puller.pull.start()
    yield puller
    puller.pull.stop()


Pending = Callable[[], Awaitable[tuple[int, int]]]


@pytest.fixture
def pending(topology: Topology) -> Pending:
    """Tells how many messages the stream holds, and how many of them are delivered and not acked."""

    async def pending() -> tuple[int, int]:
        info = await topology.api("CONSUMER.INFO.W.c")
        stream = await topology.api("STREAM.INFO.W")
        return stream["state"]["messages"], info["num_ack_pending"]

    return pending


async def put(store: Store, count: int) -> None:
    """Put messages into the queue and wait until they stand there."""
    for number in range(count):
        store.put("w", b"%d" % number, H.encode([("A", str(number))]))
    await until(lambda: store.outstanding == 0)


async def test_no_more_comes_than_was_asked_for(puller: Puller, store: Store, pending: Pending) -> None:
    """Ten are there, three were asked for: three come, in order, and seven stay for others."""
    await put(store, 10)
    puller.pull.ask(3, wait=True)
    await until(lambda: len(puller.got) == 3)
    await puller.pull.connection.flush()
    assert puller.bodies == [b"0", b"1", b"2"]
    assert puller.pull.asked == 0
    assert sorted(puller.pull.held) == [1, 2, 3]
    assert await pending() == (10, 3)


async def test_what_a_delivery_tells(puller: Puller, store: Store) -> None:
    """Its place, how often it came, when it was stored, how many wait behind it."""
    await put(store, 3)
    puller.pull.ask(1, wait=True)
    await until(lambda: puller.got)
    (first,) = puller.got
    assert (first.subject, first.body, first.sequence, first.delivered, first.waiting) == ("w", b"0", 1, 1, 2)
    assert H.decode(first.raw_headers) == {"A": "0"}
    assert abs(first.stored_at - time.time()) < 60


async def test_an_acked_message_is_gone(puller: Puller, store: Store, pending: Pending) -> None:
    """Acked once, it leaves the stream; acking again says nothing more."""
    await put(store, 1)
    puller.pull.ask(1, wait=True)
    await until(lambda: puller.got)
    puller.got[0].ack()
    puller.got[0].ack()
    puller.got[0].nak()
    assert puller.pull.held == {}
    async with asyncio.timeout(SOON):
        while await pending() != (0, 0):
            pass


async def test_a_message_given_back_comes_again_at_once(puller: Puller, store: Store) -> None:
    """To whoever asks next, and it tells that it is the second time."""
    await put(store, 1)
    puller.pull.ask(1, wait=True)
    await until(lambda: puller.got)
    puller.got[0].nak()
    puller.pull.ask(1, wait=True)
    await until(lambda: len(puller.got) == 2)
    assert [delivered.delivered for delivered in puller.got] == [1, 2]
    assert puller.got[0].sequence == puller.got[1].sequence


async def test_a_forgotten_message_is_left_alone(puller: Puller, store: Store, pending: Pending) -> None:
    """Somebody else holds it now: neither an ack nor a nak leaves from here."""
    await put(store, 1)
    puller.pull.ask(1, wait=True)
    await until(lambda: puller.got)
    puller.got[0].forget()
    puller.got[0].ack()
    await puller.pull.connection.flush()
    assert puller.pull.held == {}
    assert await pending() == (1, 1)


async def test_asking_for_what_is_there_ends_at_once_when_nothing_is(puller: Puller) -> None:
    """Without waiting, an empty queue is told at once, and nothing is asked for any more."""
    puller.pull.ask(5, wait=False)
    assert puller.pull.asked == 5
    await until(lambda: puller.empty == 1)
    assert puller.pull.asked == 0


async def test_asking_for_more_than_is_there(puller: Puller, store: Store) -> None:
    """What is there comes, then the end is told; the account is even."""
    await put(store, 2)
    puller.pull.ask(5, wait=False)
    await until(lambda: puller.empty == 1)
    assert len(puller.got) == 2
    assert puller.pull.asked == 0


async def test_messages_yet_to_come_are_waited_for(puller: Puller, store: Store) -> None:
    """A waiting request is answered when a message comes."""
    puller.pull.ask(2, wait=True)
    await put(store, 1)
    await until(lambda: puller.got)
    assert puller.pull.asked == 1
    assert puller.empty == 0


async def test_several_requests_are_answered_in_turn(puller: Puller, store: Store) -> None:
    """Their sum is what may come; the account goes down with each message."""
    for count in (1, 2, 3):
        puller.pull.ask(count, wait=True)
    assert puller.pull.asked == 6
    await put(store, 10)
    await until(lambda: len(puller.got) == 6)
    await puller.pull.connection.flush()
    assert len(puller.got) == 6
    assert puller.pull.asked == 0


async def test_after_withdrawing_nothing_new_comes(
    puller: Puller, store: Store, pending: Pending, connection: Connection
) -> None:
    """What was asked for is taken back: later messages stay in the queue; asking works again."""
    puller.pull.ask(5, wait=True)
    puller.pull.withdraw()
    await connection.flush()
    await put(store, 3)
    await connection.flush()
    assert (puller.got, puller.pull.asked) == ([], 0)
    assert await pending() == (3, 0)
    puller.pull.ask(2, wait=True)
    await until(lambda: len(puller.got) == 2)


def stall_until_sent(url: str, count: int) -> None:
    """Keep the event loop from reading until the server has sent so many messages."""

    async def sent() -> None:
        client = await nats.connect(url)
        async with asyncio.timeout(SOON):
            while (await client.jetstream().consumer_info("W", "c")).num_ack_pending != count:
                pass
        await client.close()

    with ThreadPoolExecutor(1) as aside:
        aside.submit(asyncio.run, sent()).result()


async def test_what_was_on_its_way_when_it_was_withdrawn_still_comes(
    puller: Puller, store: Store, nats_url: str
) -> None:
    """A message that the server has sent already is held, not lost until the ack wait."""
    await put(store, 3)
    puller.pull.ask(3, wait=True)
    await asyncio.sleep(0)
    stall_until_sent(nats_url, 3)
    assert puller.got == []
    puller.pull.withdraw()
    await until(lambda: len(puller.got) == 3)
    assert sorted(puller.pull.held) == [1, 2, 3]


async def test_what_meets_a_withdrawal_comes_with_the_next_request(puller: Puller, nats_url: str) -> None:
    """Not after the ack wait: the server delivers again what it could not hand over, and counts both."""
    client = await nats.connect(nats_url)
    chance = random.Random(1)
    for number in range(1, 501):
        puller.pull.ask(1, wait=True)
        await client.publish("w", b"x")
        await client.flush()
        await asyncio.sleep(chance.random() * 0.0006)
        puller.pull.withdraw()
        puller.pull.ask(1, wait=True)
        await until(lambda number=number: len(puller.got) == number)  # type: ignore[misc]
        puller.got[-1].ack()
        puller.pull.withdraw()
    await client.close()
    assert {delivered.delivered for delivered in puller.got} <= {1, 2}
    assert len({delivered.sequence for delivered in puller.got}) == 500


async def test_a_stopped_pull_asks_for_nothing(puller: Puller, store: Store, pending: Pending) -> None:
    """Neither does asking help; started again it works again."""
    puller.pull.stop()
    puller.pull.stop()
    assert not puller.pull.running
    puller.pull.ask(1, wait=True)
    await put(store, 1)
    await puller.pull.connection.flush()
    assert await pending() == (1, 0)
    puller.pull.start()
    puller.pull.start()
    puller.pull.ask(1, wait=True)
    await until(lambda: puller.got)


async def test_what_was_on_its_way_when_it_was_stopped_is_given_back(
    puller: Puller, store: Store, nats_url: str, connect: Connect
) -> None:
    """A host that drains must not swallow messages: another gets them at once, not after the ack wait."""
    await put(store, 50)
    puller.pull.ask(50, wait=True)
    await asyncio.sleep(0)
    stall_until_sent(nats_url, 50)
    assert puller.got == []
    puller.pull.stop()
    other = Puller(await connect())
    other.pull.start()
    other.pull.ask(50, wait=True)
    await until(lambda: len(other.got) + len(puller.pull.held) == 50)
    other.pull.stop()


async def test_after_a_reconnect_it_is_told_to_ask_again(
    puller: Puller, store: Store, nats_server: EmbeddedServer, connection: Connection
) -> None:
    """Requests die with a connection: the account is cleared and asking begins anew, once."""
    puller.pull.stop()
    puller.pull.start()
    puller.pull.ask(5, wait=True)
    await asyncio.to_thread(nats_server.kill)
    await asyncio.to_thread(nats_server.start)
    await until(lambda: puller.empty)
    assert puller.pull.asked == 0
    assert puller.empty == 1, "started twice, still told once"
    puller.pull.ask(1, wait=True)
    await put(store, 1)
    await until(lambda: puller.got)


async def test_a_consumer_that_is_gone_is_not_asked_in_a_tight_loop(
    puller: Puller, topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a consumer is told after a pause."""
    monkeypatch.setattr("callboard.infra.pull._PAUSE", 1.0)
    puller.pull.ask(1, wait=True)
    async with asyncio.timeout(SOON):
        while (await topology.api("CONSUMER.INFO.W.c"))["num_waiting"] == 0:
            pass
    await topology.delete_consumer("W", "c")
    await until(lambda: puller.pull.asked == 0)
    assert puller.empty == 0
    await until(lambda: puller.empty == 1)


async def test_on_behalf_of_the_dead(
    puller: Puller, store: Store, connect: Connect, topology: Topology
) -> None:
    """A message held by one connection is given back from another that knows its sequence only."""
    await put(store, 1)
    puller.pull.ask(1, wait=True)
    await until(lambda: puller.got)
    other = Puller(await connect())
    other.pull.start()
    other.pull.ask(1, wait=True)
    info = await topology.api("CONSUMER.INFO.W.c")
    other.pull.connection.publish(subjects.ack("W", "c", 1, info["delivered"]["consumer_seq"]), b"-NAK")
    await until(lambda: other.got)
    assert (other.got[0].sequence, other.got[0].delivered) == (1, 2)
    other.pull.stop()
