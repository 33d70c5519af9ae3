"""A model on real vLLM: what is promised of engines holds on one."""

from __future__ import annotations

import asyncio
import enum
import os
import signal
from typing import Any

import msgspec
import psutil
import pytest
from tests.cli.terminal import callboard
from tests.support.board import Board
from tests.support.waiting import eventually, until
from tests.vllm.conftest import BATCH, PATIENCE, STARTS_WITHIN, Serving, speaking

from callboard import ChatResult, Sampling, model, options, workflow
from callboard.infra.errors import RunCancelled

pytestmark = pytest.mark.timeout(2 * STARTS_WITHIN)
ON = Sampling(extra={"ignore_eos": True}, temperature=0.0)
"""It goes on until it has said ``max_tokens``, and always says the same."""
MOST = 1900
"""Tokens of an answer that takes as long as any can."""


class Side(enum.Enum):
    """What to do."""

    BUY = "buy"
    SELL = "sell"


class Order(msgspec.Struct):
    """An answer of a type."""

    side: Side
    urgent: bool


@workflow
async def ask(text: str, tokens: int) -> dict[str, Any]:
    """One chat."""
    said: ChatResult[Any] = await model("tiny").chat(text, max_tokens=tokens, sampling=ON)
    return {"text": said.text, "why": said.finish_reason, "tokens": said.usage.completion_tokens}


@workflow
async def go_on(prompt: str) -> str:
    """A completion."""
    return (await model("tiny").complete(prompt, max_tokens=12, sampling=ON)).text


@workflow
async def hear(text: str) -> list[str]:
    """What is said, piece by piece, and then the whole."""
    stream = model("tiny").stream(text, max_tokens=200, sampling=ON)
    pieces = [piece.text async for piece in stream]
    return [*pieces, (await stream.result()).text]


@workflow
async def order() -> str:
    """An answer that fits a type."""
    answered = await model("tiny").chat("buy or sell?", schema=Order, max_tokens=60)
    assert isinstance(answered.parsed, Order)
    return answered.parsed.side.value


@workflow
async def many(count: int, tokens: int) -> list[int]:
    """So many chats at once."""
    chats = [model("tiny").chat(f"number {n}", max_tokens=tokens, sampling=ON) for n in range(count)]
    return [chat.usage.completion_tokens for chat in await asyncio.gather(*chats)]


@workflow
async def urgent(tokens: int) -> None:
    """One chat that goes before others."""
    with options(priority=9):
        await model("tiny").chat("now", max_tokens=tokens, sampling=ON)


WORKFLOWS = (ask, go_on, hear, order, many, urgent)


async def test_chat_and_complete(board: Board) -> None:
    """As many tokens as were asked for, counted by the engine; the same question gets the same answer."""
    await board.host(*WORKFLOWS)
    first = await board.run(ask, text="hello", tokens=20, timeout=PATIENCE)
    assert (first["why"], first["tokens"]) == ("length", 20)
    assert first["text"]
    assert await board.run(ask, text="hello", tokens=20, timeout=PATIENCE) == first
    assert await board.run(go_on, prompt="once upon", timeout=PATIENCE)


async def test_stream(board: Board) -> None:
    """It comes in several pieces, which together are the result; a client hears the same."""
    await board.host(*WORKFLOWS)
    client = await board.client()
    run = await client.submit("hear", {"text": "a story"})
    heard = "".join([piece.text async for piece in client.tokens(run)])
    *pieces, whole = await client.result(run, PATIENCE)
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(pieces) == whole == heard


async def test_structured(board: Board) -> None:
    """The engine keeps to the schema: even a model that babbles gives an answer of the type."""
    await board.host(*WORKFLOWS)
    assert await board.run(order, timeout=PATIENCE) in {"buy", "sell"}


async def test_cancel(board: Board, serving: Serving) -> None:
    """The engine stops generating, long before it would have ended."""
    await board.host(*WORKFLOWS)
    client = await board.client()
    while True:  # on a machine that stood still, all is said before it is cancelled
        before = (await serving.load()).generated
        run = await client.submit("ask", {"text": "on and on", "tokens": MOST})
        await speaking(client, run)
        await client.cancel(run)
        after = await serving.sees(lambda load: load.running == 0)
        try:
            assert (await client.result(run, PATIENCE))["tokens"] == MOST
        except RunCancelled:
            break
    assert after.generated - before < MOST - 100


async def test_streams_at_once(board: Board, serving: Serving) -> None:
    """They are batched; each is complete."""
    await board.host(*WORKFLOWS)
    before = await serving.steps()
    run = await board.submit(many, count=24, tokens=MOST)
    client = await board.client()
    assert await client.result(run, PATIENCE) == [MOST] * 24
    assert await serving.steps() - before < 24 * MOST / 2


async def test_what_the_engine_cannot_batch_waits_on_the_board(board: Board, serving: Serving) -> None:
    """The host finds out how much that is; what is urgent goes before all that waits."""
    await board.host(*WORKFLOWS)
    client = await board.client()

    async def goes_before() -> bool:
        run = await client.submit("many", {"count": 80, "tokens": 250})
        ended = asyncio.create_task(client.result(run, PATIENCE))
        full = await serving.sees(lambda load: ended.done() or (load.running == BATCH and load.waiting <= 6))
        if full.running == BATCH:
            await board.run(urgent, tokens=5, timeout=PATIENCE)
        before = not ended.done()
        assert await ended == [250] * 80
        return before

    # A machine that stands still gives no chance to look: the engine may have answered all by then.
    assert await goes_before() or await goes_before() or await goes_before()


async def test_what_is_told(board: Board, serving: Serving) -> None:
    """The engine's own figures are in the view of what goes on."""
    await board.host(*WORKFLOWS)
    text = "the same beginning " * 20
    for number in range(3):
        await board.run(ask, text=f"{text}{number}", tokens=5, timeout=PATIENCE)
    assert (await serving.load()).hit > 0

    async def told() -> dict[str, Any]:
        ran = await asyncio.to_thread(callboard, "top", "--json", url=serving.url)
        there = await serving.load()
        told = [
            (line["generated"], line["hit"]) for line in ran.json["engines"]
        ]  # none while it says nothing
        return ran.json["engines"][0] if told == [(there.generated, there.hit)] else {}

    line = await eventually(told, PATIENCE)
    assert (line["actor"], line["running"], line["waiting"]) == ("tiny", 0, 0)
    assert line["queried"] >= line["hit"]


async def test_killed(board: Board, serving: Serving) -> None:
    """All of vLLM's processes go; it is started again, and answers what was asked meanwhile."""
    await board.host(*WORKFLOWS)
    client = await board.client()
    vllm = psutil.Process(serving.pid)
    family = [vllm, *vllm.children(recursive=True)]
    run = await client.submit("ask", {"text": "are you there?", "tokens": 1000})
    await speaking(client, run)
    os.kill(serving.pid, signal.SIGKILL)
    await asyncio.to_thread(serving.until_ready)
    assert (await client.result(run, STARTS_WITHIN))["tokens"] == 1000
    await until(lambda: not any(one.is_running() for one in family), PATIENCE)


async def test_drained(board: Board, serving: Serving) -> None:
    """What it has begun it finishes; then nothing is left of it."""
    await board.host(*WORKFLOWS)
    client = await board.client()
    vllm = psutil.Process(serving.pid)
    family = [vllm, *vllm.children(recursive=True)]
    run = await client.submit("ask", {"text": "to the end", "tokens": 1000})
    await speaking(client, run)
    serving.host.send(signal.SIGTERM)
    assert (await client.result(run, PATIENCE))["tokens"] == 1000
    assert await asyncio.to_thread(serving.host.wait) == 0
    await until(lambda: not any(one.is_running() for one in family), PATIENCE)
