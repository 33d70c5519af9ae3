"""What a stub does when it is called."""

from __future__ import annotations

import asyncio
import datetime as dt
from types import ModuleType
from typing import Any

import pytest
from tests.actors.stubs.support import Load, declared_in, stubs_of

from callboard import ManagedList, agent, method, workflow
from callboard.actors.arguments import encode_arguments
from callboard.actors.declared import Method, declaration
from callboard.actors.future import Future
from callboard.actors.scope import Scope, current
from callboard.actors.stubs.remote import DEFAULT, NoHandlerHere
from callboard.infra.errors import InvalidArguments


@pytest.fixture
def board(market: ModuleType, load: Load) -> ModuleType:
    """The stubs of the market, imported."""
    return load("board", stubs_of(*(one for one in declared_in(market) if one.kind != "workflow")))


def test_outside_of_a_run_it_says_that_a_host_is_needed(board: ModuleType) -> None:
    """Sync code."""
    with pytest.raises(NoHandlerHere, match=r"StockAnalyst\.embed .*'callboard host'") as caught:
        board.StockAnalyst.embed("a")
    assert caught.value.fields == {"actor": "StockAnalyst", "method": "embed"}


async def test_in_a_workflow_without_nats_it_says_so_too(board: ModuleType) -> None:
    """Async and sync workflows that are called as plain functions."""

    @workflow
    async def research() -> Any:
        return await board.prices("AAPL", dt.date(2004, 1, 1))

    @workflow
    def in_thread() -> Any:
        return board.prices("AAPL", dt.date(2004, 1, 1)).value()

    with pytest.raises(NoHandlerHere, match=r"prices\.call"):
        await research()
    with pytest.raises(NoHandlerHere, match=r"put a declared actor in its place"):
        in_thread()


async def test_a_declared_actor_can_take_its_place(
    board: ModuleType, market: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How a driver's tests run without NATS."""
    monkeypatch.setattr(board.StockAnalyst, "embed", market.StockAnalyst.embed)

    @workflow
    async def research() -> list[float]:
        vector: list[float] = await board.StockAnalyst.embed("abc")
        return vector

    assert await research() == [3.0]


class Sent:
    """A maker of calls that notes what it is asked for, once it has been held against the types."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, bytes]] = []

    def call(self, future_id: str, method: Method, args: Any, kwargs: Any) -> Future[Any]:
        """Note the call."""
        body = encode_arguments(method, args, kwargs).body
        self.calls.append((future_id, method.where, body))
        return Future(asyncio.get_running_loop(), future_id, method, self)

    def remember(self, future_id: str, what: str, make: Any) -> Any:
        """Nothing is replayed here."""
        return make()

    def cancel(self, future: Future[Any]) -> None:
        """Nobody does."""


@agent
class Keeper:
    """Keeps what it is told."""

    lines: ManagedList[str]

    @method
    async def tell(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)


def test_it_knows_who_keeps_managed_state(load: Load, board: ModuleType) -> None:
    """So that a maker's calls in a session go one after the other, as with the declaration."""
    declared = declaration(Keeper)
    assert declared is not None
    assert declared.methods["tell"].managed
    assert load("keeper", stubs_of(declared)).Keeper.tell.method.managed
    assert not board.prices.method.managed


async def test_it_makes_the_same_call_as_the_declaration(board: ModuleType, market: ModuleType) -> None:
    """Name, method, place and body: nothing on the wire tells which one was used. Defaults stay at home."""
    made = []
    for module in (board, market):
        sent = Sent()
        token = current.set(Scope(sent, "run:"))
        echo = module.prices("AAPL", dt.date(2004, 1, 1))
        module.StockAnalyst.study(module.Series("A", ()), {"window": 1})
        module.StockAnalyst.trade(module.Buy(1), side=module.Side.SELL)
        module.StockAnalyst.embed("abc")
        module.Analyst.plan(question="x", most=1)
        module.Analyst.report([], by_name={"a": module.Finding("A", 1.0, limits=module.Limits(days=[]))})
        assert echo.method.directives.max_queue is None
        assert module.StockAnalyst.study.method.directives.max_queue == 100
        current.reset(token)
        made.append(sent.calls)
    assert made[0] == made[1]
    assert [where for _, where, _ in made[0]][:2] == ["prices.call", "StockAnalyst.study"]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda b: b.prices("AAPL"), "start"),
        (lambda b: b.prices(1, dt.date(2004, 1, 1)), "Expected `str`"),
        (lambda b: b.prices("AAPL", dt.date(2004, 1, 1), begin=1), "no parameter 'begin'"),
        (lambda b: b.StockAnalyst.trade(b.Buy(0)), ">= 1"),
        (lambda b: b.StockAnalyst.trade(b.Buy(1), b.Side.BUY), "takes 1 positional"),
        (lambda b: b.StockAnalyst.embed(["a"]), "Expected `str`, got `array`"),
        (lambda b: b.Analyst.report([1], {}), "findings"),
        (lambda b: b.Analyst.plan("x", most=DEFAULT), "cannot travel"),
        (lambda b: b.Analyst.plan(object()), "cannot travel"),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_is_sent(
    board: ModuleType, call: Any, problem: str
) -> None:
    """A typed error at the caller, as with the declaration."""
    sent = Sent()
    token = current.set(Scope(sent, "run:"))
    with pytest.raises(InvalidArguments, match=problem):
        call(board)
    current.reset(token)
    assert sent.calls == []
