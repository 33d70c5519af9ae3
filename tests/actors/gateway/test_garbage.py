"""Whatever anybody publishes on the gateway's subjects, it answers the next request."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.actors.gateway.support import Asker
from tests.support.wire import Wire, connected, headed, plain

from callboard.actors.gateway import Gateway
from callboard.actors.gateway.exchange import Options, Request, encode, failure
from callboard.infra.errors import CallboardError


@pytest.fixture
async def wire(nats_url: str) -> AsyncIterator[Wire]:
    """A bare connection."""
    async with connected(nats_url) as wire:
        yield wire


RUN = b"cb.api.run.greet"
FRAMES = [
    plain(b"cb.api.run.\xff\xfe"),
    plain(b"cb.api.run.%s" % ("ünïcode".encode())),
    plain(b"cb.api.run." + b"x" * 1000),
    plain(b"cb.api.run.\x01\x02"),
    plain(b"cb.api.run.{workflow}"),
    plain(b"cb.api.run.$"),
    plain(b"cb.api.actors.nobody"),
    plain(RUN, reply=b"_R.\xff\xfe"),
    plain(RUN, reply=b"_R." + b"y" * 2000),
    plain(RUN, b'{"name": "Ada"}', reply=b"cb.api.run.greet"),
    plain(RUN, b'{"name": "Ada"}', reply=b"a..b"),
    plain(RUN, b'{"name": "Ada"}', reply=b"*"),
    plain(RUN, b'{"name": "Ada"}', reply=b">"),
    plain(RUN, b"\x00" * 5000),
    plain(RUN, b"[" * 200_000),
    plain(RUN, b'{"a":' * 50_000),
    plain(RUN, b"\x81\xa1a" * 50_000),
    plain(RUN, b"\xc1"),
    plain(RUN, b"\xdf\xff\xff\xff\xff"),
    plain(RUN, b'{"name": 1e999}'),
    plain(RUN, b'{"name": "\\ud800"}'),
    plain(RUN, b"\xef\xbb\xbf{}"),
    headed(RUN, b"NATS/1.0 \xff\xff\xff\r\n\r\n"),
    headed(RUN, b"NATS/1.0"),
    headed(RUN, b"\r\n\r\n"),
    headed(RUN, b"NATS/1.0 503\r\n\r\n"),
    headed(RUN, b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"),
    headed(RUN, b"NATS/1.0 100 \xff\xfe\r\nA: b\r\n\r\n"),
    headed(RUN, b"NATS/1.0\r\n\x00:\xff\r\n\r\n"),
    headed(RUN, b"NATS/1.0\r\nCb-Run\r\n:\r\n: x\r\n\r\n"),
    headed(RUN, b"NATS/1.0\r\nCb-Run: \xff\xff\r\n\r\n", b"{}"),
    headed(RUN, b"NATS/1.0\r\nCb-Deadline: \xd9\xa1\xd9\xa2\r\n\r\n", b'{"name": "Ada"}'),
    headed(RUN, b"NATS/1.0\r\nContent-Type: application/msgpack\r\n\r\n", b"{}"),
    headed(RUN, b"NATS/1.0\r\nContent-Type: \xff\r\ncontent-type: text/plain\r\n\r\n", b"{}"),
    headed(RUN, b"NATS/1.0\r\ncorrelation_id: \xff\xff\r\nreply_to: >\r\n\r\n", b"{}"),
    headed(RUN, b"NATS/1.0\r\ntraceparent: \x7f\x01\r\nCb-Session: \x01\xff\r\n\r\n", b'{"name": "Ada"}'),
    headed(RUN, b"NATS/1.0\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b'{"name": "Ada"}'),
    headed(b"$SRV.PING", b"NATS/1.0 \xff\xff\xff\r\n\r\n"),
    plain(b"$SRV.INFO", b"\xff", reply=b""),
    plain(b"$SRV.STATS", b"\xff", reply=b"a..b"),
]


async def test_frames(ask: Asker, wire: Wire, gateway: Gateway) -> None:
    """One after the other: after each the gateway still answers, on the same connection."""
    connection = gateway._client.node.connection
    for frame in FRAMES:
        await wire.send(frame)
        assert (await ask("run", "greet", {"name": "Ada"})).body["value"] == "Hello Ada", frame[:80]
        assert connection.client.reading, frame[:80]
    assert connection.client.stats["reconnects"] == 0


async def test_noise(ask: Asker, wire: Wire, gateway: Gateway) -> None:
    """A thousand messages of seeded noise on every verb; then all of it again at once."""
    noise = random.Random(20)
    verbs = ("run", "submit", "result", "status", "cancel", "actors", "health")
    frames = []
    for number in range(1000):
        verb = verbs[number % len(verbs)]
        name = noise.choice(["greet", "echo", "all", f"r{number}", "hold.", "%"]).rstrip(".")
        subject = f"cb.api.{verb}.{name}".encode()
        head = b"NATS/1.0\r\n" + noise.choice([b"Cb-Run: ", b"Content-Type: ", b"Cb-Deadline: ", b"X"])
        head += noise.randbytes(noise.randrange(12)).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n\r\n"
        body = noise.randbytes(noise.randrange(40))
        frames.append(headed(subject, head, body) if noise.random() < 0.5 else plain(subject, body))
    for _ in range(2):
        await wire.send(b"".join(frames))
        assert (await ask("run", "greet", {"name": "Ada"})).body["value"] == "Hello Ada"
    assert gateway._client.node.connection.client.stats["reconnects"] == 0


TEXT = st.text(max_size=20)
HEADERS = st.dictionaries(
    st.sampled_from(["Cb-Run", "Cb-Priority", "Cb-Deadline", "Nats-Msg-Id", "Content-Type", "content-type"])
    | TEXT,
    st.sampled_from(["application/json", "application/msgpack", "1", "-1", "nan"]) | TEXT,
    max_size=4,
)


@given(name=TEXT, headers=HEADERS, body=st.binary(max_size=60), answered=st.booleans())
def test_reading(name: str, headers: dict[str, str], body: bytes, *, answered: bool) -> None:
    """A request can be read whatever it holds; what is asked of it is given, or is an error with a code."""
    request = Request(name, headers, body, answered=answered)
    for ask in (request.object, lambda: Options(request).headers(as_json=request.as_json)):
        try:
            ask()
        except CallboardError as error:
            told, sent, problem = encode(failure(error), request, 1 << 20)
            assert told
            assert problem is not None
            assert sent["Nats-Service-Error-Code"].isdigit()
