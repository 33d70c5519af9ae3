"""The connection: lanes, and what becomes of them when things break."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser
from structlog.testing import capture_logs
from tests.infra.conftest import Connect
from tests.support.waiting import SOON, until
from tests.support.wire import connected, headed, plain

from callboard.infra.connection import Connection, LaneClient
from callboard.infra.errors import ConnectFailed, ConnectionLost, RequestTimeout, ServerUnsuitable
from callboard.infra.server import EmbeddedServer, find_binary
from callboard.infra.settings import Settings


class Inbox:
    """A lane that keeps what it gets."""

    def __init__(self) -> None:
        self.messages: list[tuple[bytes, bytes, bytes, bytes | None]] = []

    def __call__(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        """Called with each message."""
        self.messages.append((subject, reply, data, head))

    @property
    def bodies(self) -> list[bytes]:
        """The bodies, in the order of arrival."""
        return [data for _, _, data, _ in self.messages]


@pytest.fixture
def inbox() -> Inbox:
    """A lane that keeps what it gets."""
    return Inbox()


# -- lanes ---------------------------------------------------------------------------------------------


async def test_a_lane_gets_its_messages_in_order(connect: Connect, inbox: Inbox) -> None:
    """Thousands of messages arrive complete and in the order in which they were published."""
    receiver, sender = await connect(), await connect()
    receiver.subscribe("t.*", inbox)
    await receiver.flush()
    bodies = [b"%d" % number * (number % 50) for number in range(5000)]
    for number, body in enumerate(bodies):
        sender.publish(f"t.{number}", body)
    await until(lambda: len(inbox.messages) == 5000)
    assert inbox.bodies == bodies
    assert [subject for subject, *_ in inbox.messages] == [b"t.%d" % number for number in range(5000)]


async def test_a_lane_gets_subject_reply_body_and_headers_as_sent(
    connection: Connection, inbox: Inbox
) -> None:
    """All four parts of a message, with and without a reply subject and headers; line ends in a body too."""
    connection.subscribe("t", inbox)
    block = b"NATS/1.0\r\nA: b\r\n\r\n"
    connection.publish("t", b"MSG t 1 3\r\nno!\r\n")
    connection.publish("t", b"", reply="r.1")
    connection.publish("t", b"x", block)
    connection.publish("t", b"", block, reply="r.2")
    await until(lambda: len(inbox.messages) == 4)
    assert inbox.messages == [
        (b"t", b"", b"MSG t 1 3\r\nno!\r\n", None),
        (b"t", b"r.1", b"", None),
        (b"t", b"", b"x", block),
        (b"t", b"r.2", b"", block),
    ]


async def test_a_message_of_the_largest_size_arrives_whole(connect: Connect, inbox: Inbox) -> None:
    """A message that comes in many reads is one message, and the ones after it are themselves."""
    receiver, sender = await connect(), await connect()
    receiver.subscribe("t", inbox)
    await receiver.flush()
    large = bytes(range(256)) * (sender.max_payload // 256)
    for body in (b"before", large, b"between", large, b"after"):
        sender.publish("t", body)
    await until(lambda: len(inbox.messages) == 5)
    assert inbox.bodies == [b"before", large, b"between", large, b"after"]


async def test_an_exception_in_a_lane_does_not_end_the_read_loop(
    connection: Connection, inbox: Inbox
) -> None:
    """A lane that raises is reported with its error; it and all others go on getting messages."""

    def broken(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        inbox(subject, reply, data, head)
        raise LookupError(f"cannot bear {data!r}")

    with capture_logs() as logs:
        connection.subscribe("broken", broken)
        connection.subscribe("sound", inbox)
        for subject in ("broken", "sound", "broken", "sound"):
            connection.publish(subject, subject.encode())
        await until(lambda: len(inbox.messages) == 4)
        await connection.flush()
    assert inbox.bodies == [b"broken", b"sound", b"broken", b"sound"]
    assert connection.client.reading
    failures = [entry for entry in logs if entry["event"] == "message_handler_failed"]
    assert [entry["error"] for entry in failures] == [repr(LookupError("cannot bear b'broken'"))] * 2


@pytest.mark.parametrize(
    "frame",
    [
        plain(b"t.\xff\xfe"),
        plain(b"t.x", reply=b"_R.\xff"),
        headed(b"t.x", b"NATS/1.0 \xff\r\n\r\n"),
        headed(b"t.x", b"NATS"),
        headed(b"t.x", b"\r\n\r\n"),
    ],
)
async def test_a_message_that_nobody_can_read_does_not_end_the_read_loop(
    frame: bytes, connection: Connection, inbox: Inbox
) -> None:
    """An ordinary subscription does without it, and it is told; a lane gets its bytes as they are."""
    ordinary = await connection.client.subscribe("t.*")
    connection.subscribe("t.*", inbox)
    await connection.flush()
    with capture_logs() as logs:
        async with connected(connection.settings.nats_url) as wire:
            await wire.send(frame)
            await wire.send(plain(b"t.next", b"whole"))
        assert (await ordinary.next_msg(timeout=SOON)).data == b"whole"
    assert [entry["event"] for entry in logs] == ["message_unreadable"]
    assert connection.client.reading
    await until(lambda: inbox.bodies == [b"", b"whole"])


async def test_lanes_and_ordinary_subscriptions_live_side_by_side(
    connection: Connection, inbox: Inbox
) -> None:
    """nats-py's own subscriptions and requests work on the same connection."""
    ordinary = await connection.client.subscribe("t")
    connection.subscribe("t", inbox)

    def answer(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        connection.publish(reply.decode(), b"pong")

    connection.subscribe("ping", answer)
    connection.publish("t", b"x")
    assert (await ordinary.next_msg(timeout=SOON)).data == b"x"
    await until(lambda: inbox.bodies == [b"x"])
    assert await connection.request("ping") == b"pong"


async def test_after_unsubscribing_a_lane_gets_nothing(connection: Connection, inbox: Inbox) -> None:
    """Not even what was on its way already."""
    sid = connection.subscribe("t", inbox)
    connection.publish("t", b"late")
    connection.unsubscribe(sid)
    connection.unsubscribe(sid)
    await connection.flush()
    assert inbox.messages == []


async def test_a_retired_lane_still_gets_what_was_on_its_way(connection: Connection, inbox: Inbox) -> None:
    """What the server has sent before it heard of the end is handed over; later messages are not."""
    sid = connection.subscribe("t", inbox)
    connection.publish("t", b"on its way")
    connection.client.retire_lane(sid)
    connection.publish("t", b"too late")
    await connection.flush()
    assert inbox.bodies == [b"on its way"]


async def test_a_queue_group_shares_messages(connect: Connect) -> None:
    """Of lanes in the same queue group each message reaches one."""
    first, second, sender = Inbox(), Inbox(), await connect()
    for lane in (first, second):
        member = await connect()
        member.subscribe("t", lane, queue="q")
        await member.flush()
    for number in range(100):
        sender.publish("t", b"%d" % number)
    await until(lambda: len(first.messages) + len(second.messages) >= 100)
    await sender.flush()
    assert sorted(first.bodies + second.bodies, key=int) == [b"%d" % number for number in range(100)]


async def test_nobody_answers_a_request(connection: Connection) -> None:
    """A typed error names the subject, at once when nobody listens and after the time-out otherwise."""
    with pytest.raises(RequestTimeout) as caught:
        await connection.request("nobody", timeout=SOON)
    assert caught.value.fields["subject"] == "nobody"
    connection.subscribe("mute", Inbox())
    with pytest.raises(RequestTimeout, match="mute"):
        await connection.request("mute", timeout=0.05)


# -- staying alive -------------------------------------------------------------------------------------------


async def test_lanes_survive_a_restart_of_the_server(
    connection: Connection, nats_server: EmbeddedServer, inbox: Inbox
) -> None:
    """After a restart lanes get messages again, and who asked for it is called back once."""
    reconnects: list[int] = []
    connection.on_reconnect(lambda: reconnects.append(len(inbox.messages)))
    connection.subscribe("t", inbox)
    connection.publish("t", b"before")
    await until(lambda: inbox.bodies == [b"before"])
    await asyncio.to_thread(nats_server.restart)
    await until(lambda: reconnects)
    assert connection.connected.is_set()
    connection.publish("t", b"after")
    await until(lambda: inbox.bodies == [b"before", b"after"])
    assert reconnects == [1]


async def test_a_server_that_is_away_is_told_once(
    connection: Connection, nats_server: EmbeddedServer
) -> None:
    """However often it was tried in vain; when it is back that is told as loudly, with how long it took."""
    with capture_logs() as logs:
        await asyncio.to_thread(nats_server.kill)
        await until(lambda: not connection.connected.is_set())
        for _ in range(3):
            await connection._on_error(ConnectionRefusedError("in vain"))
        await asyncio.to_thread(nats_server.start)
        await until(connection.connected.is_set)
        for _ in range(2):
            await connection._on_error(ConnectionRefusedError("later"))
    told = [entry["error"] for entry in logs if entry["event"] == "connection_error"]
    assert (told.count("in vain"), told.count("later")) == (1, 2)
    (back,) = [entry for entry in logs if entry["event"] == "reconnected"]
    assert (back["log_level"], back["away_s"] >= 0) == ("warning", True)


async def test_what_is_published_while_disconnected_arrives_after_the_reconnect(
    connection: Connection, nats_server: EmbeddedServer, inbox: Inbox
) -> None:
    """Publishing never fails for want of a connection; messages leave in order once there is one."""
    connection.subscribe("t", inbox)
    await connection.flush()
    await asyncio.to_thread(nats_server.kill)
    await until(lambda: not connection.connected.is_set())
    for number in range(100):
        connection.publish("t", b"%d" % number)
    await asyncio.to_thread(nats_server.start)
    await until(lambda: len(inbox.messages) >= 100)
    await connection.flush()
    assert inbox.bodies == [b"%d" % number for number in range(100)]


async def test_half_a_message_before_a_reconnect_spoils_nothing(
    connection: Connection, nats_server: EmbeddedServer, inbox: Inbox
) -> None:
    """The part of a message that had come before the connection broke is forgotten."""
    connection.subscribe("t", inbox)
    await connection.flush()
    await connection.client._ps.parse(b"MSG t 1 100\r\nonly a par")
    await asyncio.to_thread(nats_server.restart)
    await until(lambda: connection.client.stats["reconnects"] == 1 and connection.connected.is_set())
    connection.publish("t", b"whole")
    await until(lambda: inbox.messages)
    assert inbox.bodies == [b"whole"]


async def test_the_watchdog_reconnects_when_the_read_loop_has_died(
    connection: Connection, inbox: Inbox
) -> None:
    """A connection that looks open but reads nothing is noticed and opened anew."""
    connection.subscribe("t", inbox)
    await connection.flush()
    reader = connection.client._reading_task
    assert reader is not None
    with capture_logs() as logs:
        reader.cancel()
        await until(reader.done)
        assert connection.client.is_connected
        await until(lambda: connection.client.stats["reconnects"] == 1 and connection.connected.is_set())
    assert "connection_stuck" in [entry["event"] for entry in logs]
    assert connection.client.reading
    connection.publish("t", b"again")
    await until(lambda: inbox.bodies == [b"again"])


async def test_the_watchdog_leaves_a_sound_connection_alone(connection: Connection) -> None:
    """Some rounds of the watchdog later the connection is still the first one."""
    sent = connection.client.stats["out_msgs"]
    pings = connection.client._pings_outstanding
    await until(lambda: connection._watchdog is not None)
    rounds = 0
    original = connection.client.rtt

    async def counted(timeout: int = 1) -> float:
        nonlocal rounds
        rounds += 1
        return await original(timeout)

    connection.client.rtt = counted  # type: ignore[method-assign]
    await until(lambda: rounds >= 3)
    assert connection.client.stats["reconnects"] == 0
    assert (connection.client.stats["out_msgs"], connection.client._pings_outstanding) == (sent, pings)


async def test_closed_for_good_is_told_once(connect: Connect) -> None:
    """When nats-py gives a connection up, whoever has to end the process hears of it, once."""
    told: list[ConnectionLost] = []

    async def on_lost(error: ConnectionLost) -> None:
        told.append(error)

    connection = await connect(on_lost=on_lost)
    await connection.client.close()
    await connection.close()
    assert [type(error) for error in told] == [ConnectionLost]


async def test_a_protocol_violation_closes_for_good_and_is_told(connect: Connect) -> None:
    """nats-py does not reconnect after such an error of its client's; that must not go unnoticed."""
    told: list[ConnectionLost] = []

    async def on_lost(error: ConnectionLost) -> None:
        told.append(error)

    connection = await connect(on_lost=on_lost)
    connection.client.write(b"NONSENSE\r\n")
    await until(lambda: told)
    assert not connection.connected.is_set()


async def test_closing_is_no_loss_and_may_be_repeated(connect: Connect) -> None:
    """A close that was asked for flushes what is queued, is told to nobody, and can be asked for again."""
    told: list[ConnectionLost] = []

    async def on_lost(error: ConnectionLost) -> None:
        told.append(error)

    receiver, inbox = await connect(), Inbox()
    receiver.subscribe("t", inbox)
    await receiver.flush()
    connection = await connect(on_lost=on_lost)
    connection.publish("t", b"last words")
    await connection.close()
    await connection.close()
    await until(lambda: inbox.bodies == [b"last words"])
    assert told == []


async def test_a_flush_waits_for_what_was_queued_before_it(connect: Connect) -> None:
    """After a flush the server has read it all: a ping does not overtake messages of the same turn."""
    receiver, sender = await connect(), await connect()
    for number in range(50):
        inbox = Inbox()
        receiver.subscribe(f"t.{number}", inbox)
        await receiver.flush()
        sender.publish(f"t.{number}", b"x" * 20_000 * number)
        await sender.flush()
        await receiver.flush()
        assert len(inbox.messages) == 1


async def test_a_late_pong_that_nobody_waits_for_does_no_harm(connection: Connection) -> None:
    """A ping whose waiter gave up is answered all the same; the read loop and later pings live on."""
    waiting = asyncio.create_task(connection.client.rtt())
    await asyncio.sleep(0)
    waiting.cancel()
    for _ in range(3):
        await connection.flush()
    assert connection.client.reading
    assert connection.client.stats["reconnects"] == 0


# -- connecting -------------------------------------------------------------------------------------------


async def test_opening_twice_is_opening_once(connection: Connection) -> None:
    """An open connection stays the one it is."""
    client_id = connection.client.client_id
    assert await connection.open() is connection
    assert connection.client.client_id == client_id


@pytest.mark.parametrize("url", ["nats://127.0.0.1:1", "nats://no.such.host.invalid:4222"])
async def test_nobody_at_the_address(url: str) -> None:
    """Connecting fails at once, with an error that names the address and what to do."""
    connection = Connection(Settings.load({}, nats_url=url), "test")
    with pytest.raises(ConnectFailed, match="callboard up") as caught:
        async with asyncio.timeout(2 * SOON):  # where nobody knows names, it takes a while to hear so
            await connection.open()
    assert caught.value.fields["url"] == url
    assert url in caught.value.message


@asynccontextmanager
async def old_server(version: str) -> AsyncIterator[str]:
    """What an old server says on connecting; a fake, since none so old is at hand."""
    info = json.dumps({"server_id": "X", "version": version, "headers": True, "jetstream": True})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"INFO {info}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_server_that_is_too_old_is_refused() -> None:
    """The error names the version found and the one needed, and nothing stays open."""
    async with old_server("2.11.9") as url:
        connection = Connection(Settings.load({}, nats_url=url), "test")
        with pytest.raises(ServerUnsuitable) as caught:
            await connection.open()
        assert caught.value.fields == {"found": "2.11.9", "needed": "2.12"}
        assert connection.client.is_closed


@pytest.fixture
def plain_server() -> Iterator[str]:
    """A nats-server without JetStream."""
    server = subprocess.Popen([find_binary(), "-a", "127.0.0.1", "-p", "-1"], stderr=subprocess.PIPE)
    try:
        assert server.stderr is not None
        said = iter(server.stderr.readline, b"")
        place = next(line.split()[-1] for line in said if b"Listening for client" in line)
        next(line for line in said if b"Server is ready" in line)
        yield f"nats://{place.decode()}"
    finally:
        server.terminate()
        server.communicate()


async def test_a_server_without_jetstream_is_refused(plain_server: str) -> None:
    """The error says what is missing and how to switch it on."""
    connection = Connection(Settings.load({}, nats_url=plain_server), "test")
    with pytest.raises(ServerUnsuitable, match="without JetStream") as caught:
        await connection.open()
    assert caught.value.fields["needed"] == "2.12 with JetStream"


# -- what lanes rely on ------------------------------------------------------------------------------------


def test_the_private_parts_of_nats_py_that_lanes_rely_on_are_there() -> None:
    """An upgrade of nats-py that moves them fails here, not in production.

    Everything that :class:`LaneClient` and its parser touch of nats-py's inside is named here.
    """
    client = Client()
    assert isinstance(client._sid, int)
    assert isinstance(client._subs, dict)
    assert isinstance(client._pending, list)
    assert isinstance(client._pending_data_size, int)
    assert isinstance(client._server_info, dict)
    assert isinstance(client._ps, Parser)
    assert isinstance(client._pongs, list)
    assert isinstance(client._pings_outstanding, int)
    for name in ("_flush_queue", "_reading_task", "_transport"):
        assert vars(client)[name] is None
    for name in ("_process_msg", "_process_pong", "force_reconnect", "_flush_pending", "_attempt_reconnect"):
        assert inspect.iscoroutinefunction(getattr(Client, name)), name
    assert "_error_cb" in vars(client)
    assert list(inspect.signature(Client._process_msg).parameters) == [
        "self",
        "sid",
        "subject",
        "reply",
        "data",
        "headers",
    ]
    assert list(inspect.signature(Subscription.__init__).parameters)[:5] == [
        "self",
        "conn",
        "id",
        "subject",
        "queue",
    ]
    assert inspect.iscoroutinefunction(Parser.parse)
    assert callable(Parser.reset)
    assert callable(TcpTransport.writelines)
    flush = inspect.getsource(Client._flush_pending)
    assert "self._flush_queue.put(future)" in flush
    reconnect = inspect.getsource(Client._attempt_reconnect)
    assert "for sid, sub in self._subs.items()" in reconnect, "lanes are renewed as subscriptions"


async def test_lanes_do_not_make_ordinary_subscriptions(connection: Connection, inbox: Inbox) -> None:
    """A lane costs no task and no queue of nats-py's: that is what it is for."""
    before = len(asyncio.all_tasks())
    sid = connection.subscribe("t", inbox)
    assert isinstance(connection.client, LaneClient)
    assert connection.client._subs[sid]._wait_for_msgs_task is None
    assert len(asyncio.all_tasks()) == before


@pytest.mark.parametrize("verb", ["request", "flush"])
async def test_no_cancellation_is_lost_that_meets_an_answer(connection: Connection, verb: str) -> None:
    """As nats-py loses it, by the ``wait_for`` of Python 3.11."""
    client, went_on = connection.client, False

    async def ask() -> None:
        nonlocal went_on
        await (connection.request("$JS.API.INFO") if verb == "request" else connection.flush())
        went_on = True

    def answers() -> list[Any]:
        return [*client._resp_map.values(), *client._pongs]

    asking = asyncio.create_task(ask())
    while not answers():  # looked at in each turn of the loop: the answer is there soon
        await asyncio.sleep(0)
    answers()[0].add_done_callback(lambda _: asking.cancel())
    await asyncio.wait([asking])
    assert asking.cancelled()
    assert not went_on
