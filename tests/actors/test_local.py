"""Without NATS: calls and workflows as plain code uses them, in a test like any other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.waiting import SOON

from callboard import agent, method, tool, workflow
from callboard.actors.future import Future
from callboard.infra.errors import InvalidArguments, InvalidResult

RAN: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing has run; afterwards no NATS connection was ever thought of."""
    RAN.clear()
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name == "callboard-pulse"]


@tool
async def add(a: int, b: int = 1) -> int:
    """Add on a loop."""
    RAN.append("add")
    return a + b


@tool
def multiply(a: int, b: int) -> int:
    """Multiply in a thread."""
    return a * b


@agent
class Counter:
    """Keeps a number for as long as its run lasts."""

    def __init__(self) -> None:
        self.number = 0

    @method
    async def count(self) -> int:
        """One more."""
        self.number += 1
        return self.number

    @method
    def deep(self, level: int) -> int:
        """Call itself, each level in a thread that waits for the next."""
        return 0 if level == 0 else 1 + Counter.deep(level - 1).value()


@workflow
def plain(n: int) -> int:
    """Plain code."""
    total = add(n).arg  # typed as its value, and still waited for when it is touched
    return multiply(total, 10).arg + total


@workflow
async def awaited(n: int) -> int:
    """The same, awaited."""
    total = add(n)
    return await multiply(total.arg, 10) + await total


@workflow
async def counting() -> list[int]:
    """One agent for the whole run."""
    return [await Counter.count() for _ in range(3)]


@workflow
def deep_flow(level: int) -> Any:
    """Recursion in threads."""
    return Counter.deep(level)


def test_a_plain_workflow_is_called_like_a_function() -> None:
    """No event loop, no server, no fixture."""
    assert plain(2) == 33
    assert plain.run_local(2) == 33
    assert plain.function(2) == 33


def test_an_async_workflow_from_plain_code() -> None:
    """Run to its end, or by whoever runs coroutines."""
    assert awaited.run_local(2) == 33
    assert asyncio.run(awaited(2)) == 33


async def test_workflows_from_async_code() -> None:
    """Awaited, or in a thread."""
    assert await awaited(2) == 33
    assert await asyncio.to_thread(plain, 2) == 33


def test_a_call_from_plain_code_gives_a_lazy_value() -> None:
    """Outside of any workflow, too."""
    value: Any = add(1)
    assert value + 1 == 3
    assert value.value(timeout=SOON) == 2
    assert add(add(1).arg).value() == 3


async def test_a_call_from_async_code_gives_a_future() -> None:
    """To be awaited."""
    call = add(1)
    assert isinstance(call, Future)
    assert await call == 2
    assert await add(add(1).arg) == 3


def test_an_agent_lives_as_long_as_its_run() -> None:
    """Within a run it is one instance; the next run has another."""
    assert counting.run_local() == [1, 2, 3]
    assert counting.run_local() == [1, 2, 3]


def test_threads_may_wait_for_threads_to_any_depth() -> None:
    """There is no pool that they could exhaust."""
    assert deep_flow(60) == 60


def test_wrong_arguments_are_refused_before_anything_runs() -> None:
    """The same typed error as over NATS."""
    with pytest.raises(InvalidArguments, match=r"add\.call: Expected `int`, got `str`"):
        add("1")  # type: ignore[arg-type, unused-awaitable]
    assert RAN == []


@workflow
def doubled(numbers: list[int]) -> list[int]:
    """Twice as much of each."""
    return [2 * number for number in numbers]


async def test_a_workflows_own_arguments_are_held_against_its_annotations() -> None:
    """As they are over NATS, where a text is no list of numbers."""
    assert doubled([1, 2]) == [2, 4]
    with pytest.raises(InvalidArguments, match="Expected `array`, got `str`"):
        doubled("12")  # type: ignore[arg-type]


async def test_a_future_in_a_text_is_an_error() -> None:
    """Instead of its name in somebody's prompt."""
    future = add(1)
    with pytest.raises(TypeError, match="'await' it first"):
        _ = f"the sum is {future}"
    with pytest.raises(TypeError, match="'await' it first"):
        _ = "the sum is %s" % future  # noqa: UP031
    with pytest.raises(TypeError, match="'await' it first"):
        _ = " ".join(map(str, [future]))
    assert "add.call" in repr(future)
    assert f"the sum is {await future}" == "the sum is 2"


@workflow
def untravelling() -> Any:
    """Give back what cannot travel."""
    return object()


def test_what_works_here_travels_there() -> None:
    """A result that could not be sent is an error here, too."""
    with pytest.raises(InvalidResult, match="cannot travel"):
        untravelling()


async def test_many_runs_beside_each_other_keep_apart() -> None:
    """Each with its own agents and ids."""
    found = await asyncio.gather(*(counting() for _ in range(20)))
    assert found == [[1, 2, 3]] * 20
