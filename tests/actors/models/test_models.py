"""Models as actors: what is asked reaches the engine, what it answers comes back, wherever it is called."""

from __future__ import annotations

import asyncio
import email.utils
import time
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from httpcore2._async.connection import AsyncHTTPConnection
from tests.support.board import Board
from tests.support.emulated import emulated
from tests.support.standin import Reply, StandIn, refusal
from tests.support.waiting import SOON

from callboard import (
    ChatRequest,
    Message,
    Sampling,
    agent,
    method,
    model,
    model_at,
    model_function,
    tool,
    workflow,
)
from callboard.actors.models import openai_engine
from callboard.actors.models.chunks import Used
from callboard.actors.models.engine_errors import retry_after
from callboard.actors.models.openai_engine import OpenAIEngine
from callboard.actors.models.types import ChatResult, FunctionCall, ToolCall, Usage
from callboard.infra.errors import (
    AnswerUnusable,
    ContextOverflow,
    EngineDown,
    EngineRefused,
    InvalidArguments,
    OutputInvalid,
    RateLimited,
    RunFailed,
    SettingsInvalid,
    UnknownActor,
)
from callboard.infra.subjects import NameInvalid

QUICK: dict[str, Any] = {"backoff": 0.01, "backoff_max": 0.02}


@model_function(embed=lambda texts: [[float(len(text))] for text in texts])
def parrot(request: ChatRequest) -> str:
    """Says the last message again."""
    return request.messages[-1].text


@tool
async def upper(text: str) -> str:
    """Make it loud."""
    return text.upper()


@agent
class Writer:
    """Asks the model itself."""

    @method
    async def write(self, topic: str) -> str:
        """On a topic."""
        answered = await model("parrot").chat([{"role": "user", "content": f"on {topic}"}])
        return answered.text


@workflow
async def talk(topic: str) -> list[Any]:
    """By all methods."""
    loud = upper(topic)
    first = model("parrot").chat([Message("system", "be brief"), Message("user", loud.arg)])
    second = Writer.write(topic)
    vectors = await model("parrot").embed(["a", "bcd"])
    done = await model("parrot").complete("go on", max_tokens=5)
    return [(await first).text, await second, vectors.vectors, done.text]


@workflow
def talk_plainly(topic: str) -> str:
    """In a thread."""
    return model("parrot").chat(topic).value().text


@workflow
async def ask(text: str) -> str:
    """Of an engine."""
    return (await model("remote").chat(text)).text


TALKED = ["SEA", "on sea", [[1.0], [3.0]], "go on"]


async def test_on_a_board(board: Board) -> None:
    """A function as a model answers workflows and agents; what is not there yet may be passed on."""
    await board.host(talk, upper, Writer, parrot)
    assert await board.run(talk, topic="sea") == TALKED


async def test_without_a_board() -> None:
    """The same code answers in this process."""
    assert [*await talk(topic="sea")] == TALKED


def test_in_a_plain_function() -> None:
    """There a result is its value."""
    assert talk_plainly.run_local("sea") == "sea"


async def test_unknown_without_a_board() -> None:
    """A model that nobody has declared is told by name, with what to do."""
    with pytest.raises(UnknownActor, match=r"no model 'nobody'.*--model nobody"):
        await model("nobody").chat("hello")
    with pytest.raises(NameInvalid):
        model("no.name")


async def test_what_reaches_the_engine(board: Board, engine: StandIn) -> None:
    """Messages, tools, and how to answer, in the API's own shape; its tool calls and usage come back."""
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "upper", "arguments": '{"te'}}
    rest = {"index": 0, "function": {"arguments": 'xt": "a"}'}}
    engine.replies.append(Reply(["Let ", "me."], calls=[call, rest], finish="tool_calls"))

    @workflow
    async def tools() -> ChatResult[Any]:
        sampling = Sampling(top_p=0.5, stop=["END"], seed=7, extra={"top_k": 3})
        return await model("remote").chat(
            "hi", tools=[upper], tool_choice="auto", max_tokens=9, temperature=0.1, sampling=sampling
        )

    await board.host(tools, model_at("remote", url=engine.url))
    client = await board.client()
    run = await client.submit("tools")
    answered = await client.result(run, SOON, type=ChatResult[Any])
    sent = engine.chats[0].body
    about = sent["tools"][0]["function"]
    assert (about["name"], about["description"]) == ("upper", "Make it loud.")
    assert about["parameters"]["properties"]["text"] == {"type": "string"}
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    options = ("model", "max_tokens", "temperature", "top_p", "stop", "seed", "top_k", "tool_choice")
    assert [sent[name] for name in options] == ["stand-in", 9, 0.1, 0.5, ["END"], 7, 3, "auto"]
    assert (answered.text, answered.finish_reason, answered.model) == ("Let me.", "tool_calls", "stand-in")
    assert [(c.id, c.function.name, c.function.arguments) for c in answered.tool_calls] == [
        ("t1", "upper", '{"text": "a"}')
    ]
    assert (answered.usage.prompt_tokens, answered.usage.completion_tokens) == (3, 2)


async def test_tool_calls_without_an_index_are_told_apart_by_their_ids(engine: StandIn) -> None:
    """Some engines leave it out."""
    parts = [("f", '{"a":'), ("f", "1}"), ("g", "{}")]
    calls = [
        {"id": name, "function": {"name": name if "{" in text else "", "arguments": text}}
        for name, text in parts
    ]
    engine.replies.append(Reply([""], calls=calls, finish="tool_calls"))
    model_at("remote", url=engine.url)
    asked = (await model("remote").chat("hi")).tool_calls
    assert [(one.id, one.function.name, one.function.arguments) for one in asked] == [
        ("f", "f", '{"a":1}'),
        ("g", "g", "{}"),
    ]


async def test_arguments_that_are_no_json_are_not_sent_back(engine: StandIn) -> None:
    """Engines read what a model has once asked for, and would refuse the conversation; the answer to it says why."""
    asked = [
        ToolCall(f"t{n}", FunctionCall("upper", text))
        for n, text in enumerate(['{"te', "[1]", '{"text": "a"}'])
    ]
    model_at("remote", url=engine.url)
    said = [Message("user", "hi"), Message("assistant", tool_calls=asked), Message("user", "go on")]
    await model("remote").chat(said)
    sent = engine.chats[0].body["messages"][1]["tool_calls"]
    assert [one["function"]["arguments"] for one in sent] == ["{}", "{}", '{"text": "a"}']
    assert asked[0].function.arguments == '{"te'


async def test_completions_and_embeddings_of_an_engine(engine: StandIn) -> None:
    """By the engine's own methods for them; without a host a client is made for the request alone."""
    model_at("remote", url=engine.url)
    done = await model("remote").complete("on and on")
    assert (done.text, done.finish_reason, done.usage.total_tokens) == ("on and on ", "stop", 6)
    assert (await model("remote").embed(["ab", "c"])).vectors == [[2.0, 1.0], [1.0, 1.0]]


# -- keys ------------------------------------------------------------------------------------------


async def test_key(
    engine: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It comes from the variable that is named, goes to the engine only, and stands in no error and no log."""
    monkeypatch.setenv("STANDIN_KEY", "sk-very-secret")
    model_at("remote", url=engine.url, api_key_env="STANDIN_KEY", retries=0)
    engine.replies.append(refusal(401, "Incorrect API key provided: sk-very-secret"))
    with pytest.raises(EngineRefused, match=r"status 401: .*provided: \*\*\*") as found:
        await model("remote").chat("hi")
    assert engine.chats[0].headers["authorization"] == "Bearer sk-very-secret"
    assert found.value.__cause__ is None
    assert "sk-very-secret" not in repr(found.value.fields) + "".join(capsys.readouterr())


async def test_no_key(board: Board, engine: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that nobody named is not sent; one that is named and not set keeps the host from starting."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    model_at("remote", url=engine.url)
    await model("remote").chat("hi")
    assert "sk-of-somebody-else" not in repr(engine.chats[0].headers)
    with pytest.raises(SettingsInvalid, match="takes its key from STANDIN_KEY"):
        await board.host(model_at("remote", url=engine.url, api_key_env="STANDIN_KEY"))


# -- errors ----------------------------------------------------------------------------------------

TOO_LONG = "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens."
RUBBISH = Reply(body=b"<html>It works!</html>")


@pytest.mark.parametrize(
    ("reply", "error", "fields"),
    [
        (refusal(400, TOO_LONG), ContextOverflow, {"limit": 4096, "asked": 5000}),
        (
            refusal(400, "the request exceeds the available context size (2048 tokens)"),
            ContextOverflow,
            {"limit": 2048},
        ),
        (refusal(400, "no such thing", "context_length_exceeded"), ContextOverflow, {"limit": 0}),
        (refusal(400, "temperature must be positive"), EngineRefused, {"status": 400}),
        (refusal(404, "no such model"), EngineRefused, {"status": 404}),
        (refusal(429, "pay first", "insufficient_quota"), EngineRefused, {"status": 429}),
        (refusal(429, "slow down", retry_after="2.5"), RateLimited, {"retry_after": 2.5}),
        (refusal(503, "loading"), EngineDown, {"status": 503}),
        (Reply(["half", "way"], finish=""), EngineDown, {"status": 0}),
        (RUBBISH, AnswerUnusable, {}),
    ],
    ids=["overflow", "llama", "code", "option", "model", "quota", "rate", "down", "broken", "rubbish"],
)
async def test_errors(engine: StandIn, reply: Reply, error: type[Exception], fields: dict[str, Any]) -> None:
    """Each is of a kind of its own, and says what there is to know."""
    model_at("remote", url=engine.url, retries=0)
    engine.replies.append(reply)
    with pytest.raises(error) as found:
        await model("remote").chat("hi")
    assert isinstance(found.value, error)
    told = getattr(found.value, "fields", {})
    assert {name: told[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("told", "limit", "asked"),
    [
        ("request (5000 tokens) exceeds the available context size (4096 tokens), try it", 4096, 5000),
        ("the request exceeds the available context size (2048 tokens)", 2048, 0),
        ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 4096, 5000),
        (
            "It exceeds the model's maximum context length of 4096 tokens. You requested a total of 5000 tokens",
            4096,
            5000,
        ),
        (
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300007 tokens.",
            272000,
            300007,
        ),
        (
            "The input token count (1300000) exceeds the maximum number of tokens allowed (1048575).",
            1048575,
            1300000,
        ),
        ("The input token count exceeds the maximum number of tokens allowed 1048576.", 1048576, 0),
        ("prompt is too long: 205000 tokens > 200000 maximum", 200000, 205000),
        (
            "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
            131072,
            537812,
        ),
        (
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
            32768,
            40000,
        ),
    ],
)
async def test_limits_as_engines_tell_them(engine: StandIn, told: str, limit: int, asked: int) -> None:
    """Each in its own words."""
    model_at("remote", url=engine.url, retries=0)
    engine.replies.append(refusal(400, told))
    with pytest.raises(ContextOverflow) as found:
        await model("remote").chat("hi")
    assert (found.value.fields["limit"], found.value.fields["asked"]) == (limit, asked)


async def test_a_newer_name_for_max_tokens(engine: StandIn) -> None:
    """Hosted models want it in the place of the older one, which other engines know only; it is found out once."""
    told = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead."
    )
    model_at("remote", url=engine.url, retries=0)
    engine.replies.append(refusal(400, told, "unsupported_parameter"))
    for _ in range(2):
        assert (await model("remote").chat("hi", max_tokens=9)).text == "hi "
    await model("remote").complete("hi", max_tokens=9)
    lengths = [(one.body.get("max_tokens"), one.body.get("max_completion_tokens")) for one in engine.chats]
    assert lengths == [(9, None), (None, 9), (None, 9)]
    assert engine.asked[-1].body["max_tokens"] == 9


async def test_connections_are_used_again(engine: StandIn) -> None:
    """One request after the other goes over one connection."""
    asking = OpenAIEngine("remote", engine.url)
    await asking.open()
    for _ in range(3):
        await asking.chat(ChatRequest(messages=[Message("user", "hi")]), lambda _: None)
    await asking.close()
    assert engine.connections == 1


async def test_idle_connections_are_closed_however_long_that_takes(
    engine: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has heard all of an answer closes those that nobody needs: it is not disturbed when it takes long."""
    closed: list[AsyncHTTPConnection] = []
    close = AsyncHTTPConnection.aclose

    async def slowly(connection: AsyncHTTPConnection) -> None:
        await asyncio.sleep(0.2)
        await close(connection)
        closed.append(connection)

    monkeypatch.setattr(AsyncHTTPConnection, "aclose", slowly)
    monkeypatch.setattr(openai_engine, "_REST", 0.05)
    asking: Any = OpenAIEngine("remote", engine.url)
    await asking.open()
    asking._client._client._transport._pool._max_keepalive_connections = 0
    await asking.chat(ChatRequest(messages=[Message("user", "hi")]), lambda _: None)
    assert len(closed) == engine.connections == 2  # the list of its models was asked for before
    await asking.close()


async def test_an_address_without_its_end() -> None:
    """What is there answers, and has no API at that place: the error says what to look at."""
    async with emulated() as engine:
        model_at("remote", url=engine.url.removesuffix("/v1"), retries=0)
        with pytest.raises(EngineRefused, match=r"status 404: .*Most end with /v1"):
            await model("remote").chat("hi")


async def test_nobody_there() -> None:
    """An engine that does not answer at all is down, which a retry may help."""
    model_at("remote", url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(EngineDown, match="does not answer") as found:
        await model("remote").chat("hi")
    assert found.value.retryable


async def test_retried_on_a_board(board: Board, engine: StandIn) -> None:
    """What may pass is tried again, not before the engine wants it; the outcome tells the attempt."""
    limited = refusal(429, "slow down", retry_after="0.4")
    engine.replies.extend([Reply(["half"], finish=""), limited, Reply(["whole"])])
    await board.host(ask, model_at("remote", url=engine.url, retries=2, **QUICK))
    run = await board.submit(ask, text="hi")
    assert (await board.done(run)).status == "completed"
    (result,) = await board.results(run)
    assert result.attempt == 3
    assert len(await board.entries(run, "attempt", 2)) == 2
    _, refused, again = engine.chats
    assert again.at - refused.at >= 0.4


async def test_not_retried(board: Board, engine: StandIn) -> None:
    """A prompt that is too long stays so: it fails at once, and the limit reaches the caller."""
    engine.replies.append(refusal(400, TOO_LONG))
    await board.host(ask, model_at("remote", url=engine.url, **QUICK))
    with pytest.raises(RunFailed) as found:
        await board.run(ask, text="hi")
    cause = found.value.__cause__
    assert isinstance(cause, ContextOverflow)
    assert cause.fields["limit"] == 4096
    assert len(engine.chats) == 1


# -- structured output -----------------------------------------------------------------------------


class Plan(msgspec.Struct):
    """As a struct."""

    tickers: list[str]
    years: int = 1


@dataclass
class Point:
    """As a dataclass."""

    x: int


@workflow
async def planned() -> tuple[Plan | None, int]:
    """What it has planned, and how many tokens that took."""
    answered = await model("remote").chat("plan", schema=Plan)
    return answered.parsed, answered.usage.completion_tokens


async def test_schema(board: Board, engine: StandIn) -> None:
    """Its JSON schema goes to the engine; an answer that does not fit is asked for again, with the reason."""
    engine.replies.extend(
        [
            Reply(["I would say AAPL"]),
            Reply(['{"tickers": "AAPL"}']),
            Reply(['```json\n{"tickers": ["AAPL"]}\n```']),
        ]
    )
    await board.host(planned, model_at("remote", url=engine.url))
    assert await board.run(planned) == [{"tickers": ["AAPL"], "years": 1}, 3]
    form = engine.chats[0].body["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["name"] == "Plan"
    assert form["json_schema"]["schema"]["type"] == "object"
    assert form["json_schema"]["schema"]["required"] == ["tickers"]
    told = engine.chats[2].body["messages"]
    assert [one["role"] for one in told] == ["user", "assistant", "user", "assistant", "user"]
    assert "it is no JSON" in told[2]["content"]
    assert "it.tickers is 'AAPL', expected array" in told[4]["content"]


@pytest.mark.parametrize(
    ("title", "name"),
    [("Trip plan (v2)", "Trip_plan_v2"), ("Box[int]", "Box_int"), ("x" * 99, "x" * 64), ("?", "answer")],
)
async def test_names_of_schemas(engine: StandIn, title: str, name: str) -> None:
    """As the API allows them, whatever the title is."""
    model_at("remote", url=engine.url)
    engine.replies.append(Reply(["{}"]))
    await model("remote").chat("x", schema={"title": title, "type": "object"})
    assert engine.chats[0].body["response_format"]["json_schema"]["name"] == name


async def test_types_of_parsed() -> None:
    """A struct, a dataclass, or plain values for a JSON schema."""

    @model_function
    def points(request: ChatRequest) -> str:
        return '{"x": 1}'

    assert (await model("points").chat("x", schema=Point)).parsed == Point(1)
    assert (await model("points").chat("x", schema={"type": "object"})).parsed == {"x": 1}
    with pytest.raises(InvalidArguments, match="no JSON schema"):
        await model("points").chat("x", schema=StandIn)


@dataclass
class Span:
    """A type that says more than its schema."""

    first: int
    last: int
    by_year: dict[int, float]
    seal: bytes = b""

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise ValueError("it ends before it begins")


@workflow
async def spanned() -> dict[str, Any]:
    """What is made of the answer."""
    try:
        found = (await model("remote").chat("when?", schema=Span)).parsed
    except OutputInvalid as error:
        return {"problem": error.fields["problem"]}
    assert isinstance(found, Span)
    return {"keys": [*found.by_year], "seal": found.seal.decode()}


async def test_types_say_more_than_schemas(board: Board, engine: StandIn) -> None:
    """An answer is read as the JSON that it is; what its type alone refuses is no valid output either."""
    good = '{"first": 1, "last": 2, "by_year": {"2004": 1.5}, "seal": "aGk="}'
    bad = good.replace('"first": 1', '"first": 3')
    engine.replies.extend([Reply([good]), Reply([bad])])
    await board.host(spanned, model_at("remote", url=engine.url))
    assert await board.run(spanned) == {"keys": [2004], "seal": "hi"}
    assert "it ends before it begins" in (await board.run(spanned))["problem"]


async def test_output_that_never_fits(engine: StandIn) -> None:
    """After the repairs it is an error with the problem and the text; one that was cut off fails at once."""
    model_at("remote", url=engine.url)
    engine.replies.extend([Reply(["no"]), Reply(["{}"])])
    with pytest.raises(OutputInvalid) as found:
        await model("remote").chat("plan", schema=Plan, repairs=1)
    assert found.value.fields == {"problem": "it lacks tickers", "text": "{}", "tries": 2}
    engine.replies.append(Reply(['{"tick'], finish="length"))
    with pytest.raises(OutputInvalid, match="cut off at max_tokens"):
        await model("remote").chat("plan", schema=Plan)
    engine.replies.append(Reply([f'{{"tickers": [], "years": {10**400}}}']))
    with pytest.raises(OutputInvalid, match="number that is too large"):
        await model("remote").chat("plan", schema=Plan, repairs=0)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, 1.0),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "nan"}, 1.0),
        ({"retry-after": "soon"}, 1.0),
        ({"retry-after": "1e9"}, 3600.0),
    ],
)
def test_retry_after(headers: dict[str, str], wait: float) -> None:
    """In seconds, milliseconds or as a date; what cannot be read is a second, and nothing is above an hour."""
    assert retry_after(headers) == wait


def test_retry_after_a_date() -> None:
    """The time until then, by this machine's clock."""
    now = time.time()
    wait = retry_after({"retry-after": email.utils.formatdate(now + 60, usegmt=True)})
    assert now + 59 - time.time() <= wait <= 61


def test_usage_without_a_total_has_one() -> None:
    """Some engines leave it out."""
    assert Used(3, 2).usage() == Usage(3, 2, 5)
    assert Used(3, 2, 6).usage() == Usage(3, 2, 6)
