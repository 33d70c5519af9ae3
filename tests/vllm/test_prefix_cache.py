"""Two real vLLM engines: conversations stay where the beginning of their prompt is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.cli.terminal import Running
from tests.support.board import Board
from tests.support.chatting import Chat, chain_of, converse, talk, words
from tests.support.waiting import until
from tests.vllm.conftest import ARGUMENTS, PATIENCE, SETTINGS, STARTS_WITHIN, Patient, Serving

from callboard.actors.host import Host
from callboard.controller.controller import Controller
from callboard.infra import log
from callboard.infra.server import EmbeddedServer

pytestmark = pytest.mark.timeout(2 * STARTS_WITHIN)
TURNS = 9
CHATS = 12
BLOCK = 32
"""Tokens of a block of the cache."""
BLOCKS = 238
"""Of each engine: a good half of the conversations fit at their end, and not all."""
_CACHE = (f"--block-size={BLOCK}", f"--num-gpu-blocks-override={BLOCKS}")


@pytest.fixture(scope="module")
def pair(tiny: Path) -> Iterator[list[Serving]]:
    """Two hosts of the model ``pair``, each with an engine of its own."""
    more = [f"--vllm-arg={one}" for one in (*ARGUMENTS, *_CACHE)]
    command = ("host", "--model", "pair", "--vllm", tiny, "--kv-events", *more, "--json")
    given = {**SETTINGS, "CALLBOARD_STEAL_AFTER": "2"}  # on a busy machine, calls wait for the processor
    with EmbeddedServer() as server, ExitStack() as stack:
        hosts = [stack.enter_context(Running(*command, url=server.url, **given)) for _ in range(2)]
        found = [Serving(server.url, host) for host in hosts]
        for one in found:
            one.until_ready()
            one.host.until('"event":"host_ready"')
        yield found


@pytest.fixture
async def board(pair: list[Serving]) -> AsyncIterator[Board]:
    """Beside them."""
    made = Patient(pair[0].url)
    yield made
    await made.close()


async def hit_rate(pair: list[Serving], before: tuple[int, int] = (0, 0)) -> tuple[float, tuple[int, int]]:
    """Share of the tokens of all prompts since then that were in a cache; and what there is to say from now on."""
    loads = await asyncio.gather(*(one.load() for one in pair))
    queried, hit = sum(one.queried for one in loads), sum(one.hit for one in loads)
    return (hit - before[1]) / max(1, queried - before[0]), (queried, hit)


def chats(about: str) -> list[Chat]:
    """Conversations of one agent; a character is a token, and at their end each has some 1,100."""
    system = ("system", words("rule", 5))
    return [Chat("pair", [system, ("user", words(f"{about}{number}x", 100))], 16) for number in range(CHATS)]


async def test_more_is_in_the_caches_than_by_chance(board: Board, pair: list[Serving]) -> None:
    """Above 80 % with the policy, by the engines' own metrics; under 60 % where each turn is routed by chance."""
    driver = await board.host(converse)
    client = await board.client()
    async with Controller(board.settings(), policies=["prefix_cache"]):
        await until(lambda: len(driver.routes.by_prefix("pair", "any")[0]) == 2, PATIENCE)
        hosts, _ = driver.routes.by_prefix("pair", "any")
        _, before = await hit_rate(pair)
        first = chats("a")
        await talk(client, first, TURNS, PATIENCE)
        by_policy, before = await hit_rate(pair, before)
        assert len(whys(driver, first, hosts)) > CHATS / 2
        await talk(client, chats("b"), TURNS, PATIENCE, by_chance=hosts)
        by_chance, _ = await hit_rate(pair, before)
        log.get("test").info("hit_rate", by_policy=round(by_policy, 3), by_chance=round(by_chance, 3))
        assert by_policy > 0.8
        assert by_chance < 0.6
        # What came later has taken the room of what came first, and the engines' events have said so.
        await until(lambda: not whys(driver, first, hosts), PATIENCE)


def whys(driver: Host, talked: Sequence[Chat], hosts: Sequence[str]) -> list[str]:
    """Why the next turn of each would go where it would, as far as it is held somewhere."""
    found = [driver.prefixes.choose("pair", chain_of(chat), hosts).why for chat in talked]
    return [why for why in found if not why.startswith("no engine")]
