"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.board import Board

import callboard
from callboard import tool, workflow
from callboard.actors.client import Client
from callboard.infra.errors import RunUnknown

CODE: dict[str, Callable[[int], Any]] = {}
"""What the workflow does; with ``more`` the tool adds ten."""


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers, and what the test says."""
    return a + b + (10 if "more" in CODE else 0)


@tool
async def fail(text: str) -> str:
    """Raise."""
    raise ValueError(text)


@tool
async def large(size: int) -> bytes:
    """Large."""
    return b"x" * size


@workflow
async def flow(number: int) -> Any:
    """What the test says."""
    callboard.now()
    return await CODE["flow"](number)


async def sums(number: int) -> int:
    """Two calls, and a large one."""
    await large(200_000)
    return await add(await add(number, 1), 1)


async def fails(number: int) -> str:
    """Another call at the same place."""
    await large(200_000)
    return await fail(str(number))


async def one(number: int) -> int:
    """One call less."""
    await large(200_000)
    return await add(number, 1)


async def other_result(number: int) -> int:
    """The same calls."""
    return await sums(number) + 1


@pytest.fixture
async def client(board: Board) -> Client:
    """Of a board with a host."""
    CODE.clear()
    CODE["flow"] = sums
    await board.host(add, fail, large, flow)
    return await board.client()


async def ran(client: Client, code: Callable[[int], Any] = sums, number: int = 2) -> str:
    """A run that has ended."""
    CODE["flow"] = code
    run = await client.submit("flow", {"number": number})
    await client.done(run)
    return run


async def test_runs_that_are_alike(client: Client) -> None:
    """Also with errors; what ``now()`` gave does not count."""
    found = await client.diff(await ran(client), await ran(client), flow)
    assert (found.alike, found.first) == (True, None)
    found = await client.diff(await ran(client, fails), await ran(client, fails), flow)
    assert (found.alike, found.first) == (True, None)
    assert (found.one.workflow, found.one.status, found.one.steps) == ("flow", "failed", 3)
    assert found.one.took > 0
    assert found.one.arguments == {"number": 2}


@pytest.mark.parametrize(
    ("code", "what", "path", "values"),
    [
        (fails, "call", "3", ("add.call", "fail.call")),
        (one, "step", "4", ("add.call", None)),
        (other_result, "result", "", (4, 5)),
    ],
)
async def test_the_first_difference(
    client: Client, code: Callable[[int], Any], what: str, path: str, values: tuple[Any, Any]
) -> None:
    """A call, a step that only one has, or the results."""
    first = (await client.diff(await ran(client), await ran(client, code))).first
    assert first is not None
    assert (first.what, first.path, (first.one, first.other)) == (what, path, values)


async def test_a_step_that_only_the_other_has(client: Client) -> None:
    """Its number is that in the other run."""
    first = (await client.diff(await ran(client, one), await ran(client))).first
    assert first is not None
    assert (first.what, first.path, first.number, first.one, first.other) == (
        "step",
        "4",
        4,
        None,
        "add.call",
    )


async def test_an_outcome(client: Client) -> None:
    """The step and both values."""
    run = await ran(client)
    CODE["more"] = sums
    first = (await client.diff(run, await ran(client))).first
    assert first is not None
    assert (first.what, first.path, first.number, first.call) == ("outcome", "3", 3, "add.call")
    assert (first.one, first.other) == (3, 13)


async def test_arguments_follow_from_the_code(client: Client) -> None:
    """They stand in no journal, so they are compared where the code is given."""
    run, other = await ran(client), await ran(client, number=3)
    found = await client.diff(run, other)
    assert not found.same_arguments
    assert found.first is not None
    assert found.first.what == "outcome"
    first = (await client.diff(run, other, flow)).first
    assert first is not None
    assert (first.what, first.path) == ("arguments", "3")
    assert (first.one, first.other) == ({"a": 2, "b": 1}, {"a": 3, "b": 1})


async def test_an_unknown_run(client: Client) -> None:
    """Of either name."""
    run = await ran(client)
    for pair in ((run, "nothing"), ("nothing", run)):
        with pytest.raises(RunUnknown, match="nothing"):
            await client.diff(*pair)
