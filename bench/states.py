"""What the cases of managed state share: a bucket, sessions without calls, long lists."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
from nats.js.kv import KeyValue

from bench import app
from bench.processes import Server, place, start_server
from callboard.actors.declared import AgentClass, declaration
from callboard.actors.node import Node
from callboard.infra.settings import Settings
from callboard.state.managed import within
from callboard.state.session import Rules, Session
from callboard.state.sessions import Sessions

VALUE = b"x" * 200
LONG = 100_000
FILL = 2_000
SETTLING = 64


@asynccontextmanager
async def bucket() -> AsyncIterator[tuple[KeyValue, Server]]:
    """The floor: a bucket on a server of its own, and one connection."""
    async with place() as here:
        server = await start_server(here)
        connection = await nats.connect(server.url)
        try:
            yield await connection.jetstream().create_key_value(bucket="floor", history=64), server
        finally:
            await connection.close()


def keeper_of() -> tuple[Any, Rules]:
    """An instance of the agent with state, and what it says of it."""
    declared = declaration(app.Keeper)
    assert isinstance(declared, AgentClass)
    assert declared.rules is not None
    return declared.create(), declared.rules


@asynccontextmanager
async def board() -> AsyncIterator[tuple[Node, Sessions]]:
    """A server, and a process that opens sessions."""
    async with place() as here:
        server = await start_server(here)
        node = await Node(Settings.load(nats_url=server.url), "bench").open()
        sessions = Sessions(node.shelf, node.settings)
        sessions.start()
        try:
            yield node, sessions
        finally:
            await sessions.stop()
            await node.close()


async def filled(sessions: Sessions, name: str, length: int) -> Session:
    """A session with so many lines, the head of which is fresh."""
    keeper, rules = keeper_of()
    session = await sessions.open("Keeper", name, rules)
    for start in range(0, length, FILL):
        with within(session.begin()):
            keeper.lines.extend(f"line {number:9}" for number in range(start, min(length, start + FILL)))
        await session.commit(f"fill:{start}")
    for number in range(SETTLING):  # until what was filled in is folded
        with within(session.begin()):
            keeper.lines.append(f"line {number:9}")
        await session.commit(f"settle:{number}")
    await sessions.idle()
    return session


async def updates(kv: KeyValue, key: str, count: int) -> list[float]:
    """Seconds of each of so many updates of a key, one after the other."""
    revision = await kv.put(key, VALUE)
    latencies = []
    for _ in range(count):
        begun = time.perf_counter()
        revision = await kv.update(key, VALUE, last=revision)
        latencies.append(time.perf_counter() - begun)
    return latencies
