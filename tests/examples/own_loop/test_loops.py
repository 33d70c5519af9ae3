"""The loops of two libraries inside of actors: their steps are calls, and a host that dies costs none of them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.board import Board
from tests.support.gates import Gate, anew, begin_anew
from tests.support.waiting import until

from callboard import ChatRequest, model_function, tool

FOLDER = Path(__file__).parents[3] / "examples" / "own_loop"
APPS = [
    pytest.param("agents", "openai_agents_app", "Assistant", "ask_openai", id="openai-agents"),
    pytest.param("pydantic_ai", "pydantic_ai_app", "Advisor", "ask_pydantic", id="pydantic-ai"),
]
QUESTION = "AAPL or MSFT?"
ANSWER = "They cost 210.5 and 415.2."

_gate = Gate()
_asked: list[ChatRequest] = anew([])
_looked: list[str] = anew([])


@tool(name="price")
async def slow_price(ticker: str) -> float:
    """In the place of the example's: the second one waits for the test."""
    _looked.append(ticker)
    if ticker == "MSFT":
        await _gate.wait()
    return 210.5 if ticker == "AAPL" else 415.2


@pytest.fixture
async def board(nats_url: str) -> AsyncIterator[Board]:
    """A board on a server of the test's own."""
    begin_anew()
    board = Board(nats_url)
    yield board
    await board.close()


def load(library: str, module: str) -> Any:
    """The example, if its library is there."""
    pytest.importorskip(library)
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    return importlib.import_module(module)


@pytest.mark.parametrize(("library", "module", "actor", "flow"), APPS)
async def test_without_a_board(library: str, module: str, actor: str, flow: str) -> None:
    """The library's loop asks the model actor, and its tool the tool actor."""
    app = load(library, module)
    assert await getattr(app, flow)(QUESTION) == ANSWER
    assert await getattr(app, flow)("Which ones?") == "Which stocks?"


@pytest.mark.parametrize(("library", "module", "actor", "flow"), APPS)
async def test_its_host_dies(library: str, module: str, actor: str, flow: str, board: Board) -> None:
    """The next host is given what is on record: the model is asked twice in all, each price looked up once."""
    app = load(library, module)
    scripted: Any = importlib.import_module("scripted")

    @model_function(name="writer")
    async def counted(request: ChatRequest) -> Any:
        _asked.append(request)
        return scripted.script(request)

    first = await board.host(getattr(app, actor))
    await board.host(getattr(app, flow), counted, slow_price)
    run = await board.submit(getattr(app, flow), question=QUESTION)
    await until(lambda: sorted(_looked) == ["AAPL", "MSFT"])
    await board.kill(first)
    await board.host(getattr(app, actor))
    await board.emptied_of_host(first)
    _gate.set()
    client = await board.client()
    assert await client.result(run, 30) == ANSWER
    assert len(_asked) == 2
    assert sorted(_looked) == ["AAPL", "MSFT"]
