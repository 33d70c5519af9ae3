"""Servers that leave out what others say: usage, a list of models; and what may not be told of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.standin import Reply, StandIn, refusal

from callboard.actors.budgets import Reserved
from callboard.actors.models.metered import Metered
from callboard.actors.models.openai_engine import OpenAIEngine
from callboard.actors.models.types import ChatRequest, Message, Price
from callboard.infra.errors import EngineDown, EngineRefused
from callboard.infra.messages.budget import Amounts

HI = ChatRequest(messages=[Message("user", "word " * 1000)])
FIRST = 0.5
"""Seconds for a first word."""
KEY = "sk-verysecretkey0123456789abcdef"


@pytest.fixture
async def server() -> AsyncIterator[StandIn]:
    """A server that says what it is told to."""
    async with StandIn() as one:
        yield one


@contextlib.asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[OpenAIEngine]:
    """An engine at a URL."""
    engine = OpenAIEngine("m", url, **options)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


def ignore(_: str) -> None:
    """Nobody listens."""


class Purse:
    """Notes what is charged."""

    def __init__(self) -> None:
        self.charges: list[Amounts] = []

    @contextlib.asynccontextmanager
    async def charged(self, model: str, estimate: Amounts) -> AsyncIterator[Reserved]:
        """As `callboard.actors.budgets`."""
        reserved = Reserved(bounded=True)
        yield reserved
        self.charges.append(reserved.used)


def unmetered(*deltas: dict[str, Any], finish: str = "stop") -> Reply:
    """A stream that tells no usage."""
    choices: list[dict[str, Any]] = [
        ({"index": 0, "delta": delta, "finish_reason": None}) for delta in deltas
    ]
    choices.append({"index": 0, "delta": {}, "finish_reason": finish})
    events = [b"data: " + json.dumps({"choices": [choice]}).encode() for choice in choices]
    return Reply(body=b"\n\n".join([*events, b"data: [DONE]", b""]))


@pytest.mark.parametrize(
    ("reply", "least"),
    [
        (unmetered({"content": "word " * 800}), 3500),  # a prompt of 1,250 tokens, rather too many
        (
            unmetered(
                {
                    "tool_calls": [
                        {
                            "index": 0,
                            "id": "c",
                            "function": {"name": "f", "arguments": '"' + "x" * 4000 + '"'},
                        }
                    ]
                },
                finish="tool_calls",
            ),
            3500,
        ),
        (unmetered({"reasoning_content": "word"}), 2000),
    ],
    ids=["in one piece", "a tool call", "only thoughts"],
)
async def test_a_budget_is_charged_where_no_usage_is_told(server: StandIn, reply: Reply, least: int) -> None:
    """By what was asked and answered: neither nothing, nor the pieces in which it came."""
    purse = Purse()
    server.replies.append(reply)
    async with opened(server.url, engine_model="x") as engine:
        await Metered(engine, "m", Price(1.0, 10.0), purse).chat(HI, ignore)
    (charge,) = purse.charges
    assert least <= charge.tokens <= 2 * least
    assert charge.usd > 0


async def test_embeddings_without_usage(server: StandIn) -> None:
    """They are what was asked for."""
    server.paths["/v1/embeddings"] = json.dumps(
        {"data": [{"index": 0, "embedding": [1.0]}], "model": "m"}
    ).encode()
    async with opened(server.url, engine_model="x") as engine:
        found = await engine.embed(["a"])
    assert (found.vectors, found.usage.total_tokens) == ([[1.0]], 0)


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_that_lists_no_models(server: StandIn, status: int) -> None:
    """It is asked for the model by the name on the board."""
    server.statuses["/v1/models"] = status
    async with opened(server.url) as engine:
        await engine.chat(HI, ignore)
    assert server.chats[0].body["model"] == "m"


async def test_a_list_that_is_refused(server: StandIn) -> None:
    """That is an error: a key may be wrong."""
    server.statuses["/v1/models"] = 401
    async with opened(server.url) as engine:
        with pytest.raises(EngineRefused):
            await engine.chat(HI, ignore)


async def test_thoughts_are_no_silence() -> None:
    """Who thinks has begun: the answer has the time of a further word, not that of the first one."""

    async def think(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        thought, answer = unmetered({"reasoning_content": "hm"}, {"content": "42"}).body.split(b"\n\n", 1)
        writer.write(thought + b"\n\n")
        await asyncio.sleep(2 * FIRST)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(think, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with opened(url, engine_model="x", silent_after=FIRST) as engine:
            assert (await engine.chat(HI, ignore)).message.content == "42"


@pytest.mark.parametrize("before", [0, 430, 460, 490])
async def test_no_part_of_the_key_is_told(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    """Wherever in a long error the engine repeats it."""
    monkeypatch.setenv("ENGINE_KEY", KEY)
    server.replies.append(refusal(401, "x" * before + f"Incorrect API key provided: {KEY}"))
    async with opened(server.url, engine_model="x", api_key_env="ENGINE_KEY") as engine:
        with pytest.raises(EngineRefused) as caught:
            await engine.chat(HI, ignore)
    assert "sk-very" not in str(caught.value)


async def test_no_password_of_a_url_is_told() -> None:
    """Nor a query, which may hold a key."""
    async with opened("http://bob:hunter22@127.0.0.1:9/v1?key=hunter22", engine_model="x") as engine:
        with pytest.raises(EngineDown) as caught:
            await engine.chat(HI, ignore)
    assert "hunter22" not in str(caught.value) + str(caught.value.fields)
