"""The parser of lanes: messages are the same however the socket cuts them up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.infra.connection import LaneClient

Message = tuple[bytes, bytes, bytes, bytes | None]

WORDS = st.from_regex(rb"[A-Za-z0-9.$_]{1,12}", fullmatch=True)
BODIES = st.one_of(
    st.binary(max_size=60), st.sampled_from([b"", b"\r\n", b"MSG t 1 3\r\nabc\r\n", b"PING\r\n"])
)
BLOCKS = st.one_of(st.none(), st.binary(max_size=30).map(lambda raw: b"NATS/1.0\r\n" + raw + b"\r\n\r\n"))
MESSAGES = st.lists(st.tuples(WORDS, st.one_of(st.just(b""), WORDS), BODIES, BLOCKS), max_size=8)


def frame(message: Message, sid: int) -> bytes:
    """A message as the server writes it."""
    subject, reply, body, block = message
    words = [subject, b"%d" % sid, *([reply] if reply else [])]
    if block is None:
        return b"MSG %b %d\r\n%b\r\n" % (b" ".join(words), len(body), body)
    sizes = b"%d %d" % (len(block), len(block) + len(body))
    return b"HMSG %b %b\r\n%b%b\r\n" % (b" ".join(words), sizes, block, body)


def lane_client() -> tuple[LaneClient, list[Message]]:
    """A client that never connects, and what its lane 1 gets."""
    client = LaneClient()
    got: list[Message] = []
    client._lanes[1] = lambda subject, reply, data, head: got.append((subject, reply, data, head))
    return client, got


async def feed(client: LaneClient, pieces: Sequence[bytes]) -> None:
    """Hand over what was read, piece by piece."""
    for piece in pieces:
        await client._ps.parse(piece)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@given(MESSAGES, st.lists(st.integers(0, 2000), max_size=12))
def test_messages_are_the_same_however_they_are_cut(messages: list[Message], places: list[int]) -> None:
    """Subject, reply, body and headers of each message, in order, wherever a read ends."""

    async def run() -> list[Message]:
        client, got = lane_client()
        await feed(client, cut(b"".join(frame(m, 1) for m in messages), places))
        return got

    assert asyncio.run(run()) == messages


@given(MESSAGES, st.lists(st.integers(0, 2000), max_size=12))
def test_other_protocol_lines_between_messages_do_not_disturb_them(
    messages: list[Message], places: list[int]
) -> None:
    """Pongs and acknowledgements of the protocol are nats-py's to read, cut or whole."""

    async def run() -> tuple[list[Message], int]:
        client, got = lane_client()
        waiting = [asyncio.get_running_loop().create_future() for _ in messages]
        client._pongs.extend(waiting)
        await feed(client, cut(b"".join(frame(m, 1) + b"PONG\r\n+OK\r\n" for m in messages), places))
        return got, sum(one.done() for one in waiting)

    assert asyncio.run(run()) == (messages, len(messages))


async def test_a_message_for_an_ordinary_subscription_goes_the_ordinary_way() -> None:
    """What has no lane is nats-py's, headers decoded there."""
    client, got = lane_client()
    seen: list[tuple[int, bytes, bytes, bytes, bytes]] = []

    async def process(sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        seen.append((sid, subject, reply, data, headers))

    client._process_msg = process  # type: ignore[method-assign]
    await feed(
        client, [frame((b"a", b"r", b"body", None), 2), frame((b"b", b"", b"", b"NATS/1.0\r\n\r\n"), 3)]
    )
    assert seen == [(2, b"a", b"r", b"body", b""), (3, b"b", b"", b"", b"NATS/1.0\r\n\r\n")]
    assert got == []


async def test_after_a_reset_the_next_message_is_read_from_its_beginning() -> None:
    """A reconnect forgets the part of a message that had come over the old connection."""
    client, got = lane_client()
    await feed(client, [frame((b"a", b"", b"0123456789", None), 1)[:-5]])
    client._ps.reset()
    await feed(client, [frame((b"b", b"", b"whole", None), 1)])
    assert got == [(b"b", b"", b"whole", None)]


async def test_a_reset_in_the_middle_of_a_read_forgets_the_rest_of_that_read() -> None:
    """A reconnect that begins while a message is handed over must not leave half a message behind."""
    client, got = lane_client()
    client._lanes[2] = lambda *_: client._ps.reset()
    first = frame((b"a", b"", b"", None), 2) + frame((b"a", b"", b"0123456789", None), 1)[:-5]
    await feed(client, [first, frame((b"b", b"", b"whole", None), 1)])
    assert got == [(b"b", b"", b"whole", None)]


@pytest.mark.parametrize("line", [b"MSG a 1 x\r\n", b"MSG a\r\n", b"NONSENSE\r\n"])
async def test_a_line_that_is_no_protocol_is_an_error(line: bytes) -> None:
    """What cannot be read must not be skipped in silence: the read loop has to end, the watchdog sees it."""
    client, got = lane_client()
    with pytest.raises(Exception, match=r".+"):
        await feed(client, [line, frame((b"b", b"", b"whole", None), 1)])
    assert got == []
