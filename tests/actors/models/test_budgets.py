"""Budgets: nobody spends more than is left but for one request, nothing counts twice, and what happens then."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support import spender
from tests.support.board import Board
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, eventually, until

from callboard import (
    Budget,
    ChatRequest,
    Client,
    LlmAgent,
    Price,
    Sampling,
    agent,
    method,
    model,
    model_function,
    signal,
    workflow,
)
from callboard.actors import budget_questions
from callboard.actors.models.metered import tokens_of
from callboard.actors.models.types import ChatResult, Message, Usage
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import BudgetInvalid, BudgetSpent, ContextOverflow, RunCancelled, RunFailed
from callboard.infra.messages.budget import Account, Amounts
from callboard.infra.subjects import NameInvalid
from callboard.state.charging import RESERVED_FOR, SETTLED, raise_by, reserve, settle

_asked: list[ChatRequest] = anew([])
_gate = Gate()
SPENDER = str(Path(spender.__file__))


def answered(text: str, tokens: int = 100) -> ChatResult[Any]:
    """An answer that has taken so many tokens, a tenth of them said."""
    usage = Usage(tokens - tokens // 10, tokens // 10, tokens)
    return ChatResult(Message("assistant", text), usage=usage)


@model_function(price=Price(input=1.0, output=10.0))
async def dear(request: ChatRequest) -> ChatResult[Any]:
    """Takes 100 tokens; 190 millionths of a dollar."""
    _asked.append(request)
    if request.messages[-1].text == "wait":
        await _gate.wait()
    if request.messages[-1].text == "fail":
        raise ValueError("the engine is ill")
    return answered("dear")


@model_function
async def cheap(request: ChatRequest) -> ChatResult[Any]:
    """Takes 10 tokens."""
    return answered("cheap", 10)


helper = LlmAgent("helper", model=dear, history=0)


@agent
class Team:
    """Asks by itself and lets others ask."""

    @method
    async def work(self) -> str:
        """Twice."""
        return (await model("dear").chat("mine")).text + await helper.run("theirs")


@workflow
async def several(times: int) -> list[str]:
    """One request after the other."""
    return [(await model("dear").chat("go")).text for _ in range(times)]


@workflow
async def at_once(times: int) -> int:
    """All side by side; how many have succeeded."""
    asked = [model("dear").chat("go", max_tokens=10) for _ in range(times)]
    return sum(
        not isinstance(one, BaseException) for one in await asyncio.gather(*asked, return_exceptions=True)
    )


@workflow
async def tree() -> str:
    """A handler that asks, and has others ask."""
    first = (await model("dear").chat("go")).text
    return first + await Team.work()


@workflow
async def say(text: str) -> str:
    """One request."""
    return (await model("dear").chat(text)).text


@workflow
async def later() -> str:
    """One request, after a signal."""
    await signal("go")
    return (await model("dear").chat("go")).text


@workflow
async def later_again() -> str:
    """One request, and one after a signal."""
    first = (await model("dear").chat("go")).text
    await signal("go")
    return first + (await model("dear").chat("go")).text


ALL = (later, later_again, several, at_once, tree, say, dear, cheap, helper, Team)


async def account(client: Client) -> Account:
    """The only one."""
    (found,) = await client.budgets()
    return found


def settled(client: Client, **amounts: Any) -> Callable[[], Awaitable[bool]]:
    """Whether nothing is reserved any more, and so much was spent."""

    async def look() -> bool:
        found = await account(client)
        return not found.open and all(getattr(found.spent, name) == value for name, value in amounts.items())

    return look


async def test_the_whole_tree_is_charged_to_its_run(board: Board) -> None:
    """The workflow's own requests and those of its agents, and of theirs; prices make money of tokens."""
    await board.host(*ALL)
    client = await board.client()
    assert await client.run("tree", budget=Budget(tokens=1000, usd=1.0), timeout=SOON) == "deardeardear"
    found = await account(client)
    assert (found.scope, found.spent.calls, found.spent.tokens) == ("run", 3, 300)
    assert found.spent.usd == pytest.approx(3 * 190e-6)
    assert found.spent.seconds > 0


@pytest.mark.parametrize(
    ("budget", "unit"),
    [
        (Budget(calls=2), "calls"),
        (Budget(tokens=150), "tokens"),
        (Budget(usd=200e-6), "usd"),
    ],
)
async def test_what_is_spent_is_spent(board: Board, budget: Budget, unit: str) -> None:
    """Two requests are made, the third is not: a typed error that says of what nothing is left."""
    await board.host(*ALL)
    client = await board.client()
    with pytest.raises(RunFailed) as caught:
        await client.run("several", {"times": 3}, budget=budget, timeout=SOON)
    error = caught.value.__cause__
    assert isinstance(error, BudgetSpent)
    assert (error.fields["scope"], error.fields["unit"]) == ("run", unit)
    assert error.fields["allowed"] == getattr(budget, unit)
    assert len(_asked) == 2


async def test_an_answer_has_a_length_where_tokens_are_limited(board: Board) -> None:
    """So that no request takes more than was reserved for it; elsewhere nothing is said to the engine."""
    await board.host(*ALL)
    client = await board.client()
    await client.run("say", {"text": "a"}, budget=Budget(tokens=9999), timeout=SOON)
    await client.run("say", {"text": "a"}, budget=Budget(calls=9), timeout=SOON)
    assert [one.sampling.max_tokens for one in _asked] == [4096, None]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_length_in_further_fields_is_reserved(board: Board, field: str) -> None:
    """They go into the request as they are, so they are what it may take."""

    @workflow
    async def at_length() -> str:
        """One request that waits."""
        return (await model("dear").chat("wait", sampling=Sampling(extra={field: 9000}))).text

    await board.host(at_length, dear)
    client = await board.client()
    run = await client.submit("at_length", budget=Budget(tokens=20_000))
    await until(lambda: len(_asked) == 1)
    (reserved,) = (await account(client)).open.values()
    assert reserved.tokens == 9000 + tokens_of([Message("user", "wait")])
    assert _asked[0].sampling.max_tokens is None
    _gate.set()
    assert await client.result(run, SOON) == "dear"


@pytest.mark.parametrize(
    ("asked", "room"),
    [(0, 2000 - tokens_of([Message("user", "go")])), (10, 1990), (4106, 1990)],
    ids=["not told", "the prompt", "all"],
)
async def test_the_length_of_an_answer_fits_a_short_context(board: Board, asked: int, room: int) -> None:
    """As far as its engine tells what has not fitted; what a call has asked for itself is refused."""
    lengths: list[int | None] = []

    @model_function
    async def short(request: ChatRequest) -> ChatResult[Any]:
        """Takes 2,000 tokens in all, 10 of them the prompt."""
        lengths.append(request.sampling.max_tokens)
        if (request.sampling.max_tokens or 0) > 1990:
            raise ContextOverflow("it is too long", engine="", limit=2000, asked=asked)
        return answered("short")

    @workflow
    async def shortly(length: int | None) -> str:
        """One request."""
        return (await model("short").chat("go", max_tokens=length)).text

    await board.host(short, shortly)
    client = await board.client()
    budget = Budget(tokens=100_000)
    assert await client.run("shortly", {"length": None}, budget=budget, timeout=10) == "short"
    assert lengths == [4096, room]
    assert (await account(client)).spent.calls == 1
    with pytest.raises(RunFailed, match="it is too long"):
        await client.run("shortly", {"length": 3000}, budget=budget, timeout=10)


async def test_of_a_session_and_of_a_key(board: Board) -> None:
    """Runs of one session, and those with one key, share what is left; other runs are not limited."""
    await board.host(*ALL)
    client = await board.client()
    await client.set_budget(Budget(calls=1), session="anna")
    await client.set_budget(Budget(calls=2), key="team a")
    assert await client.run("say", {"text": "a"}, session="anna", key="team a", timeout=SOON) == "dear"
    with pytest.raises(RunFailed, match="the budget of session anna is spent: 1 calls"):
        await client.run("say", {"text": "a"}, session="anna", key="team a", timeout=SOON)
    assert await client.run("say", {"text": "a"}, key="team a", timeout=SOON) == "dear"
    with pytest.raises(RunFailed, match="the budget of key team a is spent: 2 calls"):
        await client.run("say", {"text": "a"}, key="team a", timeout=SOON)
    assert await client.run("say", {"text": "a"}, session="bert", timeout=SOON) == "dear"
    assert {one.id: one.spent.calls for one in await client.budgets()} == {"anna": 1, "team a": 2}
    assert not any(one.open for one in await client.budgets())


async def test_a_cheaper_model(board: Board) -> None:
    """When it is spent the named model answers, and is charged, too."""
    await board.host(*ALL)
    client = await board.client()
    budget = Budget(calls=1, when_spent="degrade", degrade_to="cheap")
    answers = await client.run("several", {"times": 3}, budget=budget, timeout=SOON)
    assert answers == ["dear", "cheap", "cheap"]
    found = await account(client)
    assert (found.spent.calls, found.spent.tokens) == (3, 120)


async def test_a_model_without_a_price_is_told_of(board: Board) -> None:
    """Once, under a budget of money: that does not limit it."""

    @workflow
    async def cheaply() -> str:
        """Two requests that cost nothing."""
        return (await model("cheap").chat("a")).text + (await model("cheap").chat("b")).text

    await board.host(cheaply, *ALL)
    client = await board.client()
    with capture_logs() as logs:
        await client.run("cheaply", budget=Budget(tokens=9999), timeout=SOON)
        await client.run("say", {"text": "a"}, budget=Budget(usd=1.0), timeout=SOON)
        assert not [one for one in logs if one["event"] == "model_has_no_price"]
        await client.run("cheaply", budget=Budget(usd=1.0), timeout=SOON)
    (told,) = (one for one in logs if one["event"] == "model_has_no_price")
    assert told["model"] == "cheap"


async def test_budgets_that_degrade_to_each_others_models(board: Board) -> None:
    """When both are spent that is the error, at once."""
    await board.host(*ALL)
    client = await board.client()
    await client.set_budget(Budget(calls=0, when_spent="degrade", degrade_to="dear"), key="k")
    budget = Budget(calls=0, when_spent="degrade", degrade_to="cheap")
    with pytest.raises(RunFailed, match=r"the budget of key k is spent") as failed:
        await client.run("say", {"text": "go"}, budget=budget, key="k", timeout=30)
    assert isinstance(failed.value.__cause__, BudgetSpent)
    assert not _asked


def test_raising_a_budget_raises_it() -> None:
    """By a whole call and a whole token at least: else the same people are asked for ever."""
    one = Account("key", "k", Budget(calls=1, tokens=2))
    raise_by(one, 0, 20)
    raise_by(one, 0, 20)  # the same answer again
    assert (one.budget.calls, one.budget.tokens) == (2, 3)


async def test_somebody_is_asked(board: Board) -> None:
    """The call waits until the budget is raised; a no is the error."""
    await board.host(*ALL)
    client = await board.client()
    run = await client.submit("several", {"times": 3}, budget=Budget(calls=1, when_spent="ask"))
    (question,) = await eventually(client.inbox)
    assert question.question.startswith(f"the budget of run {run} is spent: 1 calls")
    await client.answer(question.id, 100)
    (again,) = await eventually(lambda: other(client, question.id))
    assert len(_asked) == 2
    await client.answer(again.id, 0)
    with pytest.raises(RunFailed, match="is spent: 2 calls"):
        await client.result(run, SOON)
    assert len(_asked) == 2
    await eventually(lambda: empty(client))


async def other(client: Client, known: str) -> list[Any]:
    """The questions beside one."""
    return [one for one in await client.inbox() if one.id != known]


async def empty(client: Client) -> bool:
    """Whether nobody is asked anything."""
    return not await client.inbox()


async def test_an_answer_counts_for_the_limits_it_was_asked_about(board: Board) -> None:
    """Not for a budget of the same name that was set after that one was ended."""
    await board.host(*ALL)
    client = await board.client()
    strict = Budget(calls=0, when_spent="ask")
    await client.set_budget(strict, session="anna")
    run = await client.submit("later_again", session="anna")
    (question,) = await eventually(client.inbox)
    await client.answer(question.id, 100)
    await eventually(settled(client, calls=1))
    await client.clear_budget(session="anna")
    await client.set_budget(strict, session="anna")
    await client.signal(run, "go")
    (again,) = await eventually(lambda: other(client, question.id))
    assert len(_asked) == 1
    await client.answer(again.id, 0)
    with pytest.raises(RunFailed, match="the budget of session anna is spent: 0 calls"):
        await client.result(run, 10)


async def test_a_question_that_others_have_removed_is_asked_again(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody still waits for its answer."""
    monkeypatch.setattr(budget_questions, "LOOK_EVERY", 0.05)
    await board.host(*ALL)
    client = await board.client()
    run = await client.submit("several", {"times": 1}, budget=Budget(calls=0, when_spent="ask"))
    (question,) = await eventually(client.inbox)
    await client.node.topology.purge(
        f"KV_{subjects.INBOX_BUCKET}", subjects.question(run, question.id.partition(":")[2])
    )
    assert [one.id for one in await eventually(client.inbox)] == [question.id]
    await client.answer(question.id, 100)
    assert await client.result(run, 10) == ["dear"]
    await eventually(lambda: empty(client))


async def test_a_budget_that_is_raised_by_hand_lets_calls_go_on(board: Board) -> None:
    """Also of those that wait for an answer."""
    await board.host(*ALL)
    client = await board.client()
    run = await client.submit("several", {"times": 2}, budget=Budget(calls=1, when_spent="ask"))
    await eventually(client.inbox)
    await client.set_budget(Budget(calls=2), run=run)
    assert await client.result(run, SOON) == ["dear", "dear"]


async def test_what_fails_or_is_cancelled_is_settled(board: Board) -> None:
    """Nothing stays reserved."""
    await board.host(*ALL)
    client = await board.client()
    await client.set_budget(Budget(tokens=100_000), key="k")
    with pytest.raises(RunFailed, match="the engine is ill"):
        await client.run("say", {"text": "fail"}, key="k", timeout=SOON)
    await eventually(settled(client, calls=1, tokens=0))
    run = await client.submit("say", {"text": "wait"}, key="k")
    await until(lambda: len(_asked) == 2)
    assert len((await account(client)).open) == 1
    await client.cancel(run)
    with pytest.raises(RunCancelled):
        await client.result(run, SOON)
    await eventually(settled(client, calls=2, tokens=0))


async def test_a_redelivered_call_is_charged_once(board: Board) -> None:
    """Its host dies while the engine answers: what was reserved is found by the next host."""
    first = await board.host(dear)
    await board.host(say)
    client = await board.client()
    run = await client.submit("say", {"text": "wait"}, budget=Budget(tokens=100_000))
    await until(lambda: len(_asked) == 1)
    await board.kill(first)
    await board.host(dear)
    await until(lambda: len(_asked) == 2)
    assert len((await account(client)).open) == 1
    _gate.set()
    assert await client.result(run, SOON) == "dear"
    await eventually(settled(client, calls=1, tokens=100))


async def test_hosts_together_spend_no_more_than_one_request_too_much(board: Board) -> None:
    """Four hosts ask at once; exactly as many requests are made as begin below the limit."""
    await board.host(*ALL)
    for _ in range(3):
        await board.host(dear)
    client = await board.client()
    assert await client.run("at_once", {"times": 60}, budget=Budget(calls=25), timeout=2 * SOON) == 25
    await eventually(settled(client, calls=25))


async def test_two_processes_spend_no_more_than_one_request_too_much(board: Board) -> None:
    """Both reserve and settle as fast as they can: no reservation begins when nothing is left."""
    client = await board.client()
    await client.set_budget(Budget(tokens=7_000, calls=1_000), key="k")

    async def spend(own: str) -> int:
        started = await asyncio.create_subprocess_exec(
            sys.executable, SPENDER, board.url, "key.k", own, "300", stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(3 * SOON):
            out, _ = await started.communicate()
        return int(out)

    done = await asyncio.gather(spend("a"), spend("b"))
    found = await account(client)
    assert not found.open
    assert found.spent == Amounts(calls=sum(done), tokens=70 * sum(done))
    assert (
        7_000 <= found.spent.tokens < 7_000 + 100
    )  # what is left over by the last one is less than it reserved


async def test_a_run_that_was_put_aside_is_charged_as_before(board: Board) -> None:
    """Its request is published again, with what it is charged to."""
    await board.host(*ALL, park_after=0.0)
    client = await board.client()
    run = await client.submit("later", budget=Budget(calls=9))
    await board.entries(run, "aside")
    await client.signal(run, "go")
    assert await client.result(run, SOON) == "dear"
    assert (await account(client)).spent.calls == 1


async def test_what_requests_are_charged_to_is_held_against_its_form(board: Board) -> None:
    """A header that is none is told to whoever waits."""
    await board.host(*ALL)
    client = await board.client()
    for number, header in enumerate(("team-a", "key.", "key.a b", "run,,run")):
        run = f"bad-{number}"
        items = [(H.RUN, run), (H.MESSAGE_ID, run), (H.CONTENT_TYPE, H.JSON), (H.BUDGET, header)]
        await client.node.store.stored(subjects.request("say"), b'{"text": "a"}', H.encode(items))
        error = (await client.done(run, SOON)).error
        assert error is not None
        assert error.code == "header_invalid"
    assert not _asked


async def test_wrong_budgets() -> None:
    """Are refused where they are given."""
    from callboard.actors import budgeting

    for budget, field in [
        (Budget(tokens=-1), "tokens"),
        (Budget(usd=float("nan")), "usd"),
        (Budget(when_spent="panic"), "when_spent"),
        (Budget(when_spent="degrade"), "degrade_to"),
        (Budget(degrade_to="cheap"), "degrade_to"),
    ]:
        with pytest.raises(BudgetInvalid) as caught:
            budgeting.check(budget)
        assert caught.value.fields == {"budget": field}
    with pytest.raises(BudgetInvalid, match="say whose budget it is"):
        budgeting.whose("a", "b", None)


@pytest.mark.parametrize("key", ["k" * 128, "ä" * 64, ""])
async def test_a_key_that_cannot_travel(board: Board, key: str) -> None:
    """Is refused where it is set, and where it is named."""
    client = await board.client()
    with pytest.raises(NameInvalid, match="1 to 127 bytes"):
        await client.set_budget(Budget(calls=1), key=key)
    with pytest.raises(NameInvalid, match="1 to 127 bytes"):
        await client.submit("say", {"text": "a"}, key=key)


async def test_the_longest_keys_travel(board: Board) -> None:
    """Whatever they are of."""
    await board.host(*ALL)
    client = await board.client()
    for key in ("k" * 127, "ä" * 63, " " * 127):
        await client.set_budget(Budget(calls=0), key=key)
        with pytest.raises(RunFailed, match="is spent: 0 calls"):
            await client.run("say", {"text": "a"}, key=key, timeout=SOON)


def test_a_request_that_was_broken_off_is_charged_when_it_is_made_again() -> None:
    """Under the same name: a call that made room for a more urgent one is the same call afterwards."""
    one = Account("key", "k", Budget(tokens=1000))
    reserve(one, "r", Amounts(calls=1, tokens=50), free="")
    for _ in range(2):
        settle(one, "r", Amounts(calls=1, tokens=10), again=True)
    reserve(one, "r", Amounts(calls=1, tokens=50), free="")
    assert set(one.open) == {"r"}
    settle(one, "r", Amounts(calls=1, tokens=30))
    assert (one.open, one.spent) == ({}, Amounts(calls=2, tokens=40))


def test_what_was_reserved_long_ago_is_void() -> None:
    """Nobody makes that request any more; one that only took long is charged all the same, once."""
    one = Account("key", "k", Budget(calls=2, tokens=1000))
    for name in ("lost", "slow"):
        reserve(one, name, Amounts(calls=1, tokens=400), free="")
        one.open[name].at -= RESERVED_FOR + 1
    reserve(one, "new", Amounts(calls=1, tokens=400), free="")
    assert set(one.open) == {"new"}
    for _ in range(2):
        settle(one, "slow", Amounts(calls=1, tokens=300))
    assert one.spent == Amounts(calls=1, tokens=300)


async def test_a_long_session_has_no_budget_and_its_calls_run(board: Board) -> None:
    """Budgets have names that are not too long; sessions may be longer."""
    await board.host(*ALL)
    client = await board.client()
    assert await client.run("say", {"text": "hello"}, session="s" * 1000, timeout=30) == "dear"


def test_a_settled_request_is_not_charged_again() -> None:
    """Reserving and settling are harmless when done twice, in whatever order the second time comes."""
    one = Account("key", "k", Budget(tokens=10_000_000))
    estimate = Amounts(calls=1, tokens=50)
    for number in range(SETTLED + 1):
        for _ in range(2):
            reserve(one, f"r{number}", estimate, free="")
        for _ in range(2):
            settle(one, f"r{number}", Amounts(calls=1, tokens=30))
        reserve(one, f"r{number}", estimate, free="")
    assert not one.open
    assert one.spent == Amounts(calls=SETTLED + 1, tokens=30 * (SETTLED + 1))
    assert len(one.settled) == SETTLED
