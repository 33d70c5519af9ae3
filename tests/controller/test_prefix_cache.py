"""Calls of a model go to the engine that holds the beginning of their prompt."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from tests.support.board import Board, instance
from tests.support.chatting import Chat, chain_of, converse, talk, words
from tests.support.emulated import Emulated, emulated
from tests.support.waiting import SOON, eventually, until

from callboard import model_at
from callboard.actors.client import Client
from callboard.actors.host import Host
from callboard.actors.instance import Instance
from callboard.actors.models.room import FIRST
from callboard.controller.controller import Controller
from callboard.controller.why import why

TURNS = 8
CHATS = 16
SYSTEM = ("system", words("rule", 50))
"""What all conversations begin with."""
ROOM = 4300
"""Tokens of an engine's cache: half of the conversations fit at their end, and not all."""


class Engines:
    """Two engines, each with a host that serves it as the model ``remote``, and a host that drives workflows.

    Attributes:
        ends: of each engine, what it ends with.
    """

    def __init__(self, board: Board) -> None:
        self.board = board
        self.engines: list[Emulated] = []
        self.hosts: list[Host] = []
        self.ends: list[AsyncExitStack] = []

    async def start(self) -> None:
        """Start them."""
        for _ in range(2):
            self.ends.append(AsyncExitStack())
            engine = await self.ends[-1].enter_async_context(emulated(kv_tokens=ROOM))
            self.engines.append(engine)
            self.hosts.append(await self.host(model_at("remote", url=engine.url, retries=0)))
        self.driver = await self.host(converse)
        self.client = await self.board.client()

    async def host(self, thing: Any) -> Host:
        """Start a host, of which no other one takes calls."""
        return await self.board.host(thing, steal_after=0.0, pulse_every=0.4, dead_after=4.0)

    async def close(self) -> None:
        """End the engines."""
        for ends in self.ends:
            await ends.aclose()

    @property
    def ids(self) -> list[str]:
        """Of the two hosts."""
        return [host.id for host in self.hosts]

    def counts(self) -> list[int]:
        """Tokens of the prompts that each engine was asked."""
        return [engine.app.engine.batcher.counts.queried for engine in self.engines]

    def hit_rate(self) -> float:
        """Share of the tokens of all prompts that were in a prefix cache."""
        hits = sum(engine.app.engine.batcher.counts.hits for engine in self.engines)
        return hits / sum(self.counts())

    async def routed(self, *hosts: Host) -> None:
        """Wait until calls go by their prefix to these hosts, and it is known how much each can have."""
        ids = {host.id for host in hosts}
        await until(lambda: set(self.driver.routes.by_prefix("remote", "any")[0]) == ids)
        loads = self.driver.prefixes.loads
        await until(lambda: {loads.of("remote", host).slots for host in ids} == {FIRST})


@pytest.fixture
async def engines(board: Board) -> AsyncIterator[Engines]:
    """Two of them."""
    found = Engines(board)
    await found.start()
    yield found
    await found.close()


@pytest.fixture
async def controller(engines: Engines) -> AsyncIterator[Controller]:
    """It follows the policy."""
    async with Controller(engines.board.settings(), policies=["prefix_cache"]) as found:
        await engines.routed(*engines.hosts)
        yield found


def chats(count: int = CHATS) -> list[Chat]:
    """Conversations of one agent, each about something else: some 580 tokens at their end."""
    return [Chat("remote", [SYSTEM, ("user", words(f"c{number}w", 300))], 16) for number in range(count)]


async def whys(client: Client, run: str) -> str:
    """Why the first call of a run went where it did."""
    return "\n".join((await why(client.node, f"{run}:1")).lines())


@pytest.mark.usefixtures("controller")
async def test_conversations_stay_where_their_prefix_is(engines: Engines) -> None:
    """More than 80 % of what the engines are asked is in their caches, and both have as much to do."""
    said = await talk(engines.client, chats(), TURNS, SOON)
    assert engines.hit_rate() > 0.8
    assert min(engines.counts()) > 0.7 * max(engines.counts())
    assert "no engine holds its conversation" in await whys(engines.client, said[0][0])
    last = await whys(engines.client, said[-1][0])
    assert "prefix_cache has routed it to" in last
    assert "its maker chose h-" in last
    assert ": it holds" in last


async def test_what_chance_gives(engines: Engines) -> None:
    """The same conversations, each turn at an engine drawn by chance: less than 60 %."""
    await talk(engines.client, chats(), TURNS, SOON, by_chance=engines.ids)
    assert engines.hit_rate() < 0.6


@pytest.mark.usefixtures("controller")
async def test_an_engine_with_too_much_to_do_is_spared(engines: Engines) -> None:
    """Many calls that begin alike, at once: the other engine gets its share, though it holds nothing of them."""
    (chat,) = chats(1)
    await chat.turn(engines.client, "hello?", SOON)
    (idle,) = [place for place, count in enumerate(engines.counts()) if not count]
    asked = [*chat.messages, {"role": "user", "content": "and many more?"}]
    given = {"name": "remote", "messages": asked, "tokens": 300, "host": ""}
    runs = [await engines.client.submit("converse", given) for _ in range(20)]
    await asyncio.gather(*(engines.client.result(run, SOON) for run in runs))
    assert engines.counts()[idle] > 0.2 * sum(engines.counts())
    reasons = [(await engines.client.node.journal.read(run, "result"))[0].body for run in runs]
    assert any(b"has too much to do" in reason for reason in reasons)


@pytest.mark.usefixtures("controller")
async def test_an_engine_that_dies(engines: Engines) -> None:
    """Its conversations go on at the other one, and stay there."""
    mine = chats(6)
    await talk(engines.client, mine, 2, SOON)
    assert all(engines.counts())
    await engines.ends[0].aclose()
    await talk(engines.client, mine, 1, SOON)  # what fails there goes to the other one, uncounted
    await engines.routed(engines.hosts[1])
    await talk(engines.client, mine, 1, SOON)


@pytest.mark.usefixtures("controller")
async def test_an_engine_that_begins_anew(engines: Engines) -> None:
    """Nothing is held to be there any more."""
    mine = chats(2)
    await talk(engines.client, mine, 1, SOON)
    knows, chain = engines.driver.prefixes, chain_of(mine[0])
    assert knows.choose("remote", chain, engines.ids).why.startswith("it holds")
    for engine, host in zip(engines.engines, engines.hosts, strict=True):
        await until(functools.partial(_queried, instance(host, host.declarations[0])))
        engine.app.engine.batcher.counts.queried = 0
    await until(lambda: knows.choose("remote", chain, engines.ids).why.startswith("no engine"))


def _queried(served: Instance) -> int:
    """Tokens that its host has seen its engine look for."""
    return served.engine.queried if served.engine is not None else 0


@pytest.mark.usefixtures("controller")
async def test_who_begins_to_make_calls_is_told(engines: Engines) -> None:
    """A driver that was not there before knows where conversations are."""
    mine = chats(4)
    await talk(engines.client, mine, 2, SOON)
    late = await engines.host(converse)

    async def known() -> bool:
        found = [late.prefixes.choose("remote", chain_of(chat), engines.ids) for chat in mine]
        return all(one.why.startswith("it holds") for one in found)

    await eventually(known)
    same = [
        host.prefixes.choose("remote", chain_of(chat), engines.ids).host
        for chat in mine
        for host in (late, engines.driver)
    ]
    assert same[::2] == same[1::2]
