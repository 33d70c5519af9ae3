"""Tools never run in the process of a model that has an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.board import Board

from callboard import ChatRequest, Price, agent, model_at, model_function, tool, workflow
from callboard.actors.apart import ToolsBesideModel
from callboard.actors.declared import Declaration, code_version, declaration
from callboard.actors.host import Host
from callboard.actors.resources import ResourcesLacking, place
from callboard.infra.settings import Settings

URL = "http://127.0.0.1:1/v1"


@tool
async def compute() -> int:
    """Whatever takes a processor."""
    return 1


@tool(resources={"gpu": 1})
async def greedy() -> int:
    """Needs what is not there."""
    return 1


@agent
class Thinker:
    """No tool."""

    async def think(self) -> str:
        """Nothing much."""
        return ""


@workflow
async def work() -> int:
    """No tool either."""
    return await compute()


@model_function
async def scripted(request: ChatRequest) -> str:
    """A model without an engine."""
    return ""


@model_function
async def unscripted(request: ChatRequest) -> str:
    """Another one."""
    return "?"


def writer() -> Declaration:
    """A model with an engine."""
    return model_at("writer", url=URL)


def declared(*things: Any) -> list[Declaration]:
    """What was made of these."""
    return [found for thing in things if (found := declaration(thing)) is not None]


ALL: Callable[[], list[Declaration]] = lambda: declared(compute, Thinker, work, scripted, writer())  # noqa: E731


@pytest.mark.parametrize(
    ("required", "served", "left"),
    [
        ([], ["compute", "Thinker", "work", "scripted"], ["writer"]),
        (["compute"], ["compute", "Thinker", "work", "scripted"], ["writer"]),
        (["writer"], ["Thinker", "work", "scripted", "writer"], ["compute"]),
        (["writer", "Thinker"], ["Thinker", "work", "scripted", "writer"], ["compute"]),
    ],
)
def test_one_kind_is_left_to_another_host(required: list[str], served: list[str], left: list[str]) -> None:
    """The models, or the tools where a model is named."""
    placed = place(ALL(), Settings(), required)
    assert [one.name for one in placed.served] == served
    assert [one.name for one in placed.left_out] == left


def test_both_cannot_be_named() -> None:
    """The error says which, and what to do."""
    with pytest.raises(ToolsBesideModel, match="start two hosts") as caught:
        place(ALL(), Settings(), ["writer", "compute"])
    assert caught.value.fields == {"models": ["writer"], "tools": ["compute"]}


@pytest.mark.parametrize("things", [(compute, scripted), (Thinker, work), (compute, Thinker, work)])
def test_what_may_be_together(things: tuple[Any, ...]) -> None:
    """All of it."""
    together = declared(*things)
    assert place(together, Settings()).served == together


def test_a_model_among_agents() -> None:
    """They may use a process together."""
    together = declared(Thinker, work, writer())
    assert place(together, Settings()).served == together


async def test_a_host_refuses_both(board: Board) -> None:
    """Also one that is started from Python."""
    host = Host([compute, writer()], Settings(nats_url=board.url))
    with pytest.raises(ToolsBesideModel):
        await host.start()


def test_what_makes_a_model_what_it_is() -> None:
    """So it is known whether a reload has to begin it anew; hosts of one model have engines of their own."""
    price = Price(input=1.0, output=2.0)
    first, same, *others = (
        model_at("writer", url=URL),
        model_at("writer", url=URL),
        model_at("writer", url=f"{URL}/other"),
        model_at("writer", url=URL, price=price),
        model_at("writer", url=URL, concurrency=2),
    )
    assert first.apart == same.apart
    assert len({first.apart, *(one.apart for one in others)}) == 4
    assert {code_version(one) for one in others} == {code_version(first)}
    assert code_version(scripted) != code_version(unscripted)


def test_what_is_left_out_for_another_reason_is_told_as_such() -> None:
    """Resources that nobody here has."""
    with pytest.raises(ResourcesLacking, match="tool greedy needs gpu=1"):
        place([*declared(greedy), writer()], Settings(), [])


def test_a_supervisor_is_told_of_both() -> None:
    """It starts another process, whoever was named."""
    placed = place(ALL(), Settings(), ["writer", "compute"], lenient=True)
    assert [one.name for one in placed.apart] == ["writer"]
    assert placed.left_out == placed.apart
