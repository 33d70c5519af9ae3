"""The emulator's server: what clients see of it, and that it says everywhere what it is."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from tests.support.emulated import Emulated, counted, emulated
from tests.support.waiting import until

from callboard.actors.emulator import words
from callboard.actors.models.openai_engine import OpenAIEngine
from callboard.actors.models.types import ChatRequest, CompletionRequest, Message, Sampling


@pytest.fixture
async def engine() -> AsyncIterator[Emulated]:
    """An emulated engine whose answers have 20 tokens."""
    async with emulated() as one:
        yield one


@pytest.fixture
async def client(engine: Emulated) -> AsyncIterator[openai.AsyncOpenAI]:
    """The usual client of such servers."""
    async with openai.AsyncOpenAI(base_url=engine.url, api_key="none", max_retries=0) as one:
        yield one


async def metrics(client: openai.AsyncOpenAI) -> dict[str, float]:
    """Its metrics without their labels."""
    response = await client.with_options(base_url=str(client.base_url).removesuffix("v1/")).get(
        "/metrics", cast_to=str
    )
    return {
        name + reason: float(value)
        for name, reason, value in re.findall(
            r'^([\w:]+)\{[^\n]*?(?:finished_reason="(\w+)")?\} ([\d.e+-]+)$', response, re.MULTILINE
        )
    }


async def test_it_says_what_it_is(client: openai.AsyncOpenAI) -> None:
    """In the card, in headers, in what is answered, and in the metrics."""
    (card,) = (await client.models.list()).data
    assert (card.owned_by, "there is no model" in card.model_dump()["root"]) == (
        "callboard-engine-emulator",
        True,
    )
    raw = await client.chat.completions.with_raw_response.create(
        model="x", messages=[{"role": "user", "content": "hi"}], max_tokens=3
    )
    assert raw.headers["x-engine-emulator"] == "true"
    answer = raw.parse()
    assert answer.system_fingerprint == "callboard-engine-emulator"
    assert answer.choices[0].message.content == "emulated 1 2"
    assert (await metrics(client))["emulator_info"] == 1


async def test_going_on(client: openai.AsyncOpenAI) -> None:
    """As vLLM does: with the last message, which no new one may follow; the rest has what is left."""
    said = {"role": "assistant", "content": "emulated 1 2"}
    messages: list[Any] = [{"role": "user", "content": "hi"}, said]
    ways: dict[str, Any] = {"continue_final_message": True, "add_generation_prompt": False}
    rest = await client.chat.completions.create(model="x", messages=messages, max_tokens=2, extra_body=ways)
    assert rest.choices[0].message.content == " 3 4"
    with pytest.raises(openai.BadRequestError, match="add_generation_prompt"):
        await client.chat.completions.create(
            model="x", messages=messages, extra_body={"continue_final_message": True}
        )
    plain = await client.completions.create(model="x", prompt="so: emulated 1 2", max_tokens=2)
    assert plain.choices[0].text == " 3 4"
    other = await client.chat.completions.create(model="x", messages=messages, max_tokens=2)
    assert other.choices[0].message.content == "emulated 1"


async def test_chats_and_completions(engine: Emulated) -> None:
    """Streamed, with the reason and the tokens."""
    asking = OpenAIEngine("x", engine.url)
    pieces: list[str] = []
    chat = await asking.chat(ChatRequest(messages=[Message("user", "to be or not")]), pieces.append)
    assert (chat.text, chat.finish_reason, "".join(pieces)) == (counted(20), "stop", counted(20))
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (7, 20)
    cut = await asking.complete(
        CompletionRequest(prompt="to be", sampling=Sampling(max_tokens=4)), pieces.append
    )
    assert (cut.text, cut.finish_reason, cut.usage.prompt_tokens) == (counted(4), "length", 2)
    exact = Sampling(max_tokens=50, extra={"ignore_eos": True})
    long_one = await asking.complete(CompletionRequest(prompt="to be", sampling=exact), pieces.append)
    assert long_one.text == counted(50)
    vectors = (await asking.embed(["a", "b", "a"])).vectors
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(one * one for one in vectors[0]) == pytest.approx(1.0)


async def test_answers_of_a_form(client: openai.AsyncOpenAI) -> None:
    """The smallest value of a schema; with a function that has to be called, arguments for it."""
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "kind": {"$ref": "#/$defs/K"}, "n": {"type": "integer"}},
        "required": ["name", "kind", "n"],
        "$defs": {"K": {"enum": ["a", "b"]}},
    }
    answer = await client.chat.completions.create(
        model="x",
        messages=[{"role": "user", "content": "hi"}],
        response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": schema}},
    )
    assert json.loads(answer.choices[0].message.content or "") == {"name": "emulated", "kind": "a", "n": 0}
    called = await client.chat.completions.create(
        model="x",
        messages=[{"role": "user", "content": "hi"}],
        tools=[{"type": "function", "function": {"name": "look", "parameters": schema}}],
        tool_choice="required",
    )
    (choice,) = called.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].model_dump()["function"]["name"] == "look"


async def test_whoever_leaves_ends_it(engine: Emulated, client: openai.AsyncOpenAI) -> None:
    """Streamed or not; its room is free again."""
    for stream in (True, False):
        asking = asyncio.ensure_future(_ask(client, stream=stream))
        await until(lambda: engine.running == 1)
        asking.cancel()
        await asyncio.wait([asking])
        await until(lambda: engine.running == 0)
    assert engine.app.engine.batcher.blocks.usage == 0.0
    assert (await metrics(client))["vllm:request_success_totalabort"] == 2


async def _ask(client: openai.AsyncOpenAI, *, stream: bool) -> None:
    options = {"ignore_eos": True}
    answer = await client.completions.create(
        model="x", prompt="hi", max_tokens=4000, stream=stream, extra_body=options
    )
    if isinstance(answer, openai.AsyncStream):
        async for _ in answer:
            pass


async def test_a_chat_that_goes_on_is_in_the_cache(client: openai.AsyncOpenAI) -> None:
    """As the metrics tell, under vLLM's names."""
    messages: list[Any] = [{"role": "user", "content": "one two three " * 20}]
    for _ in range(3):
        answer = await client.chat.completions.create(model="x", messages=messages)
        messages += [
            {"role": "assistant", "content": answer.choices[0].message.content or ""},
            {"role": "user", "content": "and on"},
        ]
    told = await metrics(client)
    assert told["vllm:prefix_cache_hits_total"] / told["vllm:prefix_cache_queries_total"] > 0.5
    assert (told["vllm:generation_tokens_total"], told["vllm:num_requests_running"]) == (60, 0)
    assert (told["vllm:time_to_first_token_seconds_count"], told["vllm:request_success_totalstop"]) == (3, 3)


async def test_no_fault_that_does_not_exist(client: openai.AsyncOpenAI) -> None:
    """It is refused, and says why."""
    at = client.with_options(base_url=str(client.base_url).removesuffix("v1/"))
    with pytest.raises(openai.BadRequestError, match="explode"):
        await at.post("/emulator/faults", body={"kind": "explode"}, cast_to=object)


def test_tokens_are_the_text() -> None:
    """Whatever is in it."""
    for text in ("", "a b", "  two\n\nlines\t", "extraordinarily long", "ä € 漢字, and so on…", counted(12)):
        assert "".join(words.tokens(text)) == text
    assert words.tokens(counted(300)) == words.counting(300)


async def test_an_embedding_that_does_not_fit_holds_nobody_up(client: openai.AsyncOpenAI) -> None:
    """It is refused as a chat is."""
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        await client.embeddings.create(model="x", input="word " * 5000)
    assert (await client.embeddings.create(model="x", input=[1, 2, 3])).data[0].index == 0
    assert len((await client.embeddings.create(model="x", input=[[1, 2], [3]])).data) == 2
    await client.chat.completions.create(model="x", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_schema", "json_schema": None}},
        {"tool_choice": {"function": None}},
        {"tool_choice": "required", "tools": [{"function": None}]},
    ],
)
async def test_fields_that_are_null(client: openai.AsyncOpenAI, body: dict[str, Any]) -> None:
    """They are as if they were left out."""
    answer = await client.chat.completions.create(
        model="x", messages=[{"role": "user", "content": "hi"}], extra_body=body
    )
    assert answer.choices[0].finish_reason
