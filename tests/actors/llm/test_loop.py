"""LlmAgent: the model chooses tools, hears what they give, and comes to an answer, wherever it runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any, Self

import pytest
from tests.support.board import Board
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import (
    ChatRequest,
    Future,
    Limits,
    LlmAgent,
    Message,
    agent,
    mcp_tools,
    method,
    model_function,
    options,
    tool,
    workflow,
)
from callboard.actors.llm.history import begin
from callboard.actors.llm.tools import Toolbox
from callboard.actors.models.types import ChatResult, FunctionCall, ToolCall, Usage
from callboard.actors.stubs.remote import Arg, remote
from callboard.infra.errors import (
    AgentStepsExceeded,
    AgentTimeExceeded,
    AgentTokensExceeded,
    DeclarationInvalid,
    OutcomeUnknown,
)

_asked: list[ChatRequest] = anew([])
_answers: list[Any] = anew([])
"""What the model says, one after the other; a function is given the request."""
_sold: list[str] = anew([])
_gate = Gate()
_side_by_side: list[asyncio.Event] = anew([])


@model_function
def brain(request: ChatRequest) -> Message | ChatResult[Any] | str:
    """Says what the test has written down."""
    _asked.append(request)
    answer = _answers[len(_asked) - 1]
    return answer(request) if isinstance(answer, Callable) else answer  # type: ignore[arg-type, no-any-return]


def calls(*asked: tuple[str, Any]) -> Message:
    """A model's message that asks for calls."""
    made = [
        ToolCall(
            f"c{n}", FunctionCall(name, arguments if isinstance(arguments, str) else json.dumps(arguments))
        )
        for n, (name, arguments) in enumerate(asked)
    ]
    return Message("assistant", tool_calls=made)


def says(*answers: Any) -> None:
    """What the model is to say next."""
    _answers.extend(answers)


@dataclass
class Verdict:
    """What the analyst is to give."""

    cheap: bool
    why: str


@tool
def price(ticker: str, on: date) -> float:
    """The close of a day."""
    return 10.0 + on.day


@tool
async def both(name: str) -> str:
    """Ends when two of it run."""
    mine = asyncio.Event()
    _side_by_side.append(mine)
    if len(_side_by_side) == 2:
        for one in _side_by_side:
            one.set()
    await mine.wait()
    return name


@tool
def broken() -> str:
    """Never works."""
    raise ValueError("no data")


@tool(effect=True)
async def sell(ticker: str) -> str:
    """Sells at once."""
    _sold.append(ticker)
    return f"sold {ticker}"


@tool(effect=True)
def lost() -> str:
    """Nobody knows whether it has happened."""
    raise OutcomeUnknown("the bank has not answered")


@tool
async def slow() -> str:
    """Waits for the test."""
    await _gate.wait()
    return "at last"


@agent
class Librarian:
    """Looks things up."""

    @method
    async def find(self, title: str) -> list[str]:
        """Books of a title."""
        return [title, title.upper()]


helper = LlmAgent("helper", model=brain, description="Helps.", history=0)
analyst = LlmAgent(
    "analyst",
    model="brain",
    instructions="Be short.",
    tools=[price, both, broken, sell, lost, slow, Librarian.find, helper],
    output=Verdict,
)
talker = LlmAgent("talker", model=brain, history=4)
hurried = LlmAgent("hurried", model=brain, tools=[slow], limits=Limits(seconds=0.05), history=0)
sparing = LlmAgent("sparing", model=brain, tools=[price], limits=Limits(steps=3, tokens=100))

EVERY = (brain, price, both, broken, sell, lost, slow, Librarian, helper, analyst, talker)
FINAL = '{"cheap": true, "why": "it fell"}'


@workflow
async def judge(question: str) -> Verdict:
    """By the analyst."""
    return await analyst.run(question)


@workflow
async def chat(topics: list[str]) -> list[str]:
    """One after the other, in one session."""
    return [await talker.run(topic) for topic in topics]


def told() -> list[str]:
    """The results of tools in the last request."""
    return [message.text for message in _asked[-1].messages if message.role == "tool"]


async def test_tools_and_a_typed_answer() -> None:
    """Arguments become what the tool's annotations say, results are told, the answer is of its type."""
    says(calls(("price", {"ticker": "AAPL", "on": "2009-01-02"})), FINAL)
    assert await judge("Is it cheap?") == Verdict(cheap=True, why="it fell")
    assert told() == ["12.0"]
    first = _asked[0].messages
    assert first[0].role == "system"
    assert first[0].text.startswith("Be short.\n\nAt the end: Answer now, with JSON only")
    assert first[1] == Message("user", "Is it cheap?")
    described = {one["function"]["name"]: one["function"] for one in _asked[0].tools}
    assert list(described) == [
        *["price", "both", "broken", "sell", "lost", "slow", "Librarian__find", "helper"]
    ]
    assert described["price"]["parameters"]["properties"]["on"] == {"type": "string", "format": "date"}
    assert described["helper"]["description"] == "Helps."


async def test_calls_run_side_by_side() -> None:
    """What the model asks for at once runs at once; results come in the order of the calls."""
    says(calls(("both", {"name": "a"}), ("both", {"name": "b"})), FINAL)
    async with asyncio.timeout(SOON):
        await judge("both")
    assert told() == ["a", "b"]


async def test_what_fails_is_told_to_the_model() -> None:
    """A tool that raises, one that is not there, and arguments that do not fit."""
    says(
        calls(
            ("broken", ""), ("nothing", {}), ("price", "{oops"), ("price", {"ticker": 5, "on": "2009-01-02"})
        ),
        FINAL,
    )
    await judge("try")
    failed, unknown, rubbish, unfit = told()
    assert failed == "The tool failed: ValueError: no data"
    assert unknown.startswith("There is no tool 'nothing'. There are: price, both,")
    assert rubbish.startswith("The arguments do not fit: price.call: ")
    assert "Expected `str`, got `int` - at `$.ticker`" in unfit


async def test_an_effect_that_may_have_happened_is_not_left_to_the_model() -> None:
    """The caller decides: a model that hears of a failure would ask for it again."""
    says(calls(("lost", {})))
    with pytest.raises(OutcomeUnknown, match="the bank has not answered"):
        await judge("pay")
    assert len(_asked) == 1


async def test_methods_and_agents_as_tools() -> None:
    """A method of an agent, and an agent that asks a model itself."""
    says(
        calls(("Librarian__find", {"title": "sea"}), ("helper", {"prompt": "help"})),
        "here you are",
        FINAL,
    )
    await judge("look")
    assert told() == ['["sea","SEA"]', "here you are"]


async def test_an_answer_that_does_not_fit_is_asked_for_again() -> None:
    """Then without tools, held to the schema; a fence around JSON does no harm."""
    says("It is cheap.", f"```json\n{FINAL}\n```")
    assert (await judge("?")).cheap
    assert (_asked[0].schema, _asked[0].tool_choice) == (None, None)
    assert _asked[1].schema is not None
    assert _asked[1].tool_choice == "none"
    assert _asked[1].messages[-1].text.startswith("That cannot be used (JSON is malformed")


async def test_steps_are_limited() -> None:
    """A model that calls tools for ever is stopped."""
    says(*[calls(("price", {"ticker": "A", "on": "2009-01-02"}))] * 3)
    with pytest.raises(AgentStepsExceeded, match="asked 3 times") as caught:
        await sparing.run("go on")
    assert caught.value.fields == {"agent": "sparing", "allowed": 3, "used": 3}


async def test_tokens_are_limited() -> None:
    """As the engine counts them; no further step begins."""
    asks = calls(("price", {"ticker": "A", "on": "2009-01-02"}))
    says(ChatResult(asks, "tool_calls", Usage(80, 40, 120)))
    with pytest.raises(AgentTokensExceeded, match="took 120 tokens, and 100 are allowed"):
        await sparing.run("go on")


async def test_time_is_limited() -> None:
    """A tool that takes too long is stopped with the loop."""
    says(calls(("slow", {})))
    with pytest.raises(AgentTimeExceeded, match=r"longer than 0\.05 s"):
        await hurried.run("wait")


async def test_it_remembers_its_session() -> None:
    """Within a session the conversation goes on, as long as it may be; another one begins anew."""
    says("one", "two", "three", "fresh")
    assert await chat(["a", "b", "c"]) == ["one", "two", "three"]
    assert [m.text for m in _asked[2].messages] == ["a", "one", "b", "two", "c"]
    with options(session="other"):
        assert await chat(["d"]) == ["fresh"]
    assert [m.text for m in _asked[3].messages] == ["d"]


async def test_what_fails_is_not_remembered() -> None:
    """As managed state is."""

    @workflow
    async def twice() -> str:
        try:
            await talker.run("first")
        except ValueError:
            return await talker.run("second")
        return "no error"

    def fails(_: ChatRequest) -> str:
        raise ValueError("the model is ill")

    says(fails, "well")
    assert await twice() == "well"
    assert [m.text for m in _asked[1].messages] == ["second"]


def test_where_a_history_begins() -> None:
    """At a user's word, so that no result stands there without its call; the last turn is kept whole."""
    said = [Message(role, "") for role in ("user", "assistant", "user", "assistant", "tool", "assistant")]
    assert [begin(said, most) for most in (6, 5, 4, 3, 1)] == [0, 2, 2, 2, 2]
    assert begin(said[:1], 1) == 0


def test_generated_stubs_as_tools() -> None:
    """They say what the actor takes, wherever it runs; of tools adopted without them that is not known."""

    @remote("time", "get_time")
    def get_time(zone: Arg[str]) -> Future[str]:
        """The time in a zone."""
        raise NotImplementedError

    (told,) = Toolbox("a", [get_time]).described()
    assert (told["function"]["name"], told["function"]["description"]) == (
        "time__get_time",
        "The time in a zone.",
    )
    assert told["function"]["parameters"]["required"] == ["zone"]
    with pytest.raises(DeclarationInvalid, match="generated stubs"):
        Toolbox("a", [mcp_tools("time").get_time])


def test_wrong_declarations() -> None:
    """Are told where they are made."""
    with pytest.raises(DeclarationInvalid, match="is no tool: give @tool functions"):
        LlmAgent("a", model="m", tools=[print])
    with pytest.raises(DeclarationInvalid, match="two tools are named 'price'"):
        LlmAgent("a", model="m", tools=[price, tool(name="price")(lambda: None)])
    with pytest.raises(DeclarationInvalid, match=r"output: .* has no JSON schema"):
        LlmAgent("a", model="m", output=Gate)
    with pytest.raises(DeclarationInvalid, match="cannot be stateful"):
        LlmAgent("a", model="m", stateful=True)
    with pytest.raises(DeclarationInvalid, match="history must be 0 or more"):
        LlmAgent("a", model="m", history=-1)


async def test_on_a_board(board: Board) -> None:
    """Every step stands in the run's journal; the session's history is there for the next run."""
    await board.host(judge, chat, *EVERY)
    client = await board.client()
    says(calls(("price", {"ticker": "A", "on": "2009-01-02"}), ("sell", {"ticker": "A"})), FINAL)
    run = await client.submit("judge", {"question": "sell?"})
    assert await client.result(run, SOON, type=Verdict) == Verdict(cheap=True, why="it fell")
    made = {result.future.partition(":")[2]: result.call for result in await board.results(run)}
    assert made["1.1"] == made["1.4"] == "brain.chat"
    assert {made["1.2"], made["1.3"]} == {"price.call", "sell.call"}
    says("one", "two")
    for topic in ("a", "b"):
        await client.run("chat", {"topics": [topic]}, session="anna", timeout=SOON)
    assert [m.text for m in _asked[-1].messages] == ["a", "one", "b"]


async def test_a_host_that_dies_in_the_middle(board: Board) -> None:
    """What is on record is neither asked of the model nor done again; calls under way go on."""
    first = await board.host(analyst)
    await board.host(judge, *(one for one in EVERY if one is not analyst))
    says(
        calls(("sell", {"ticker": "A"})),
        calls(("slow", {}), ("sell", {"ticker": "B"})),
        FINAL,
    )
    run = await board.submit(judge, question="sell both")
    await until(lambda: _sold == ["A", "B"])
    await board.entries(run, "result.1", 4)  # two answers and two sales
    await board.kill(first)
    await board.host(analyst)
    await board.emptied_of_host(first)
    _gate.set()
    assert (await board.done(run)).error is None
    assert _sold == ["A", "B"]
    assert len(_asked) == 3
    assert told() == ["sold A", "at last", "sold B"]


async def test_the_time_counts_on(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that goes on with a loop does not begin its time anew."""
    patient = LlmAgent("patient", model=brain, tools=[slow], limits=Limits(seconds=1000))

    @workflow
    async def wait() -> str:
        return await patient.run("wait")

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return super().now(tz) + timedelta(seconds=1001)

    first = await board.host(patient)
    await board.host(wait, brain, slow)
    says(calls(("slow", {})))
    run = await board.submit(wait)
    await board.entries(run, "result.1", 2)  # when it began, and the answer
    await board.kill(first)
    monkeypatch.setattr("callboard.actors.llm.loop.datetime", Later)
    await board.host(patient)
    error = (await board.done(run)).error
    assert error is not None
    assert error.code == AgentTimeExceeded.code
    assert len(_asked) == 1
