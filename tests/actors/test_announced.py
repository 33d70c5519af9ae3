"""Requests held against what workflows have announced, before they are sent."""

from __future__ import annotations

import datetime as dt
import decimal
from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.board import Board

from callboard import tool, workflow
from callboard.actors import registry
from callboard.actors.announced import Form
from callboard.actors.client import Client
from callboard.infra.errors import CallboardError, InvalidArguments, RunFailed, UnknownActor
from callboard.infra.messages.registry import ActorInfo, MethodInfo


class Size(Enum):
    """A choice."""

    SMALL = 1
    LARGE = 2


class Box(msgspec.Struct):
    """A struct."""

    width: int


@workflow
async def kinds(  # noqa: PLR0917 - one of each
    text: str = "",
    count: int = 0,
    ratio: float = 0.0,
    on: bool = False,  # noqa: FBT001, FBT002 - a workflow's parameter
    size: Size = Size.SMALL,
    word: Literal["a", "b"] = "a",
    day: dt.date | None = None,
    amount: decimal.Decimal = decimal.Decimal(0),
    raw: bytes = b"",
    numbers: list[int] | None = None,
    pair: tuple[int, str] = (0, ""),
    by_number: dict[int, float] | None = None,
    box: Box | None = None,
    anything: Any = None,
    maybe: int | None = None,
) -> None:
    """One of each."""


@workflow
async def twice(n: int) -> int:
    """Doubles."""
    return 2 * n


@tool
async def no_workflow(n: int) -> int:
    """A tool."""
    return n


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-9, 9), st.floats(), st.sampled_from(["", "a", "1", "x"])
)
OTHER = st.one_of(
    PLAIN,
    st.binary(max_size=3),
    st.dates(),
    st.decimals(),
    st.sampled_from([Size.SMALL, Box(1)]),
    st.lists(PLAIN, max_size=3),
    st.tuples(PLAIN, PLAIN),
    st.dictionaries(st.integers(0, 3), PLAIN, max_size=2),
)
PARAMETERS = [*kinds.methods["run"].signature.names, "nobody"]


@given(st.dictionaries(st.sampled_from(PARAMETERS), OTHER, max_size=3))
def test_what_is_refused_its_driver_would_refuse(arguments: Mapping[str, Any]) -> None:
    """Whatever is given: nothing is refused here that the workflow could be run with."""
    signature = kinds.methods["run"].signature
    if Form(registry.describe(kinds)).refusal(arguments) is not None:
        with pytest.raises(InvalidArguments):
            signature.decode_arguments(msgspec.msgpack.encode(arguments))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "twice: n missing; it takes n"),
        ({"n": 1, "m": 2}, "twice: there is no parameter 'm'; it takes n"),
        ({"n": "x"}, "twice: n is 'x', expected integer; it takes n"),
        ({"n": True}, "twice: n is True, expected integer; it takes n"),
        ({"n": None}, "twice: n is None, expected integer; it takes n"),
    ],
)
async def test_what_the_client_refuses(arguments: dict[str, Any], says: str, board: Board) -> None:
    """Before anything is sent."""
    await board.host(twice)
    client = await board.client()
    with pytest.raises(InvalidArguments) as caught:
        await client.submit("twice", arguments, run="never")
    assert caught.value.message == says
    with pytest.raises(CallboardError):
        await client.status("never")


async def test_what_its_driver_refuses(board: Board) -> None:
    """What cannot be told from the schema alone; it is the same error, inside of the run's."""
    await board.host(kinds)
    client = await board.client()
    with pytest.raises(RunFailed) as caught:
        await client.run("kinds", {"numbers": ["x"]}, timeout=20)
    assert isinstance(caught.value.__cause__, InvalidArguments)


async def test_a_workflow_that_has_changed(board: Board) -> None:
    """What is known is read again before anything is refused for it."""
    host = await board.host(twice)
    client = await board.client()
    assert await client.run("twice", {"n": 2}, timeout=20) == 4
    await board.kill(host)

    @workflow(name="twice")
    async def newer(n: int, m: int) -> int:
        return n * m

    await board.host(newer)
    assert await client.run("twice", {"n": 2, "m": 3}, timeout=20) == 6
    with pytest.raises(InvalidArguments):
        await client.submit("twice", {"n": 2, "o": 3})


async def test_what_nobody_has_announced_is_let_through(board: Board) -> None:
    """Its request waits for a driver."""
    client = await board.client()
    run = await client.submit("twice", {"n": 4})
    await board.host(twice)
    assert await client.result(run, 20) == 8


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"$ref": 7, "$defs": {"a": {}}},
        {"$ref": "#/$defs/a", "$defs": 7},
        {"$ref": "#/$defs/a", "$defs": {"a": 7}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"properties": [1]}}},
        {"$ref": "#/$defs/a", "$defs": {"a": {"required": 1}}},
    ],
)
def test_what_is_no_schema_refuses_nothing(arguments: dict[str, Any]) -> None:
    """Anybody can publish in the registry."""
    told = ActorInfo("twice", "workflow", "1", [MethodInfo("run", arguments)])
    assert Form(told).refusal({"n": 1}) is None


async def test_what_is_no_workflow(board: Board) -> None:
    """Nobody would ever drive it."""
    await board.host(no_workflow)
    client = await board.client()
    with pytest.raises(UnknownActor, match="no_workflow is no workflow, but of kind tool"):
        await client.submit("no_workflow", {"n": 4})


async def test_it_is_read_once(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request costs no round trip for it."""
    await board.host(twice)
    client: Client = await board.client()
    asked: list[str] = []
    read = registry.actor

    async def counted(node: Any, name: str) -> Any:
        asked.append(name)
        return await read(node, name)

    monkeypatch.setattr(registry, "actor", counted)
    for number in range(5):
        assert await client.run("twice", {"n": number}, timeout=20) == 2 * number
    assert asked == ["twice"]


async def test_an_empty_id_is_none(board: Board) -> None:
    """An id that somebody forgot to set must not make a run of its own each time."""
    client = await board.client()
    with pytest.raises(CallboardError, match="run id"):
        await client.submit("twice", {"n": 1}, run="")
