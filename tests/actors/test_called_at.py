"""A wrong argument: the error names the line of the user's code that made the call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import pytest
from tests.support.board import Board

from callboard import tool, workflow
from callboard.actors.declared import Workflow
from callboard.infra.errors import InvalidArguments, RunFailed


@tool
async def double(number: int) -> int:
    """Take a number."""
    return 2 * number


@tool
async def word() -> Any:
    """Give what is no number, which nobody can know before."""
    return "no number"


def ask(number: Any) -> Any:
    """Call it from a function that the workflow calls, where the line is."""
    return double(number)  # HERE direct


@workflow
async def wrong() -> int:
    """An argument of the wrong type."""
    return cast("int", await ask("x"))


@workflow
async def unknown() -> int:
    """An argument that there is not."""
    more: dict[str, Any] = {"nothing": 1}
    return await double(1, **more)  # HERE unknown


@workflow
async def late() -> int:
    """An argument that turns out to be wrong when it is there."""
    first = double(cast("int", word()))  # HERE late
    return await first


@workflow
def plain() -> int:
    """The same in a thread."""
    return double(cast("int", "x")).value()  # HERE plain


@workflow
async def fitting() -> int:
    """Nothing is wrong."""
    return await double(double(4).arg)


WRONG = [(wrong, ask, "direct"), (unknown, unknown, "unknown"), (late, late, "late"), (plain, plain, "plain")]


def line_of(thing: Callable[..., Any], mark: str) -> str:
    """File and line of a mark in a function's source."""
    function = getattr(thing, "function", thing)
    lines, first = inspect.getsourcelines(function)
    return f"{__file__}:{first + next(n for n, text in enumerate(lines) if f'# HERE {mark}' in text)}"


@pytest.mark.parametrize(("flow", "code", "mark"), WRONG, ids=[mark for _, _, mark in WRONG])
async def test_over_nats(board: Board, flow: Workflow[[], Any], code: Any, mark: str) -> None:
    """The error that ends the run says so in its text, and as data."""
    await board.host(double, word, flow)
    with pytest.raises(RunFailed) as caught:
        await board.run(flow)
    error = caught.value.__cause__
    assert isinstance(error, InvalidArguments)
    assert error.fields["called_at"] == line_of(code, mark)
    assert error.message.endswith(f" (called at {line_of(code, mark)})")
    assert error.message.count("called at") == 1


@pytest.mark.parametrize(("flow", "code", "mark"), WRONG, ids=[mark for _, _, mark in WRONG])
def test_without_nats(flow: Workflow[[], Any], code: Any, mark: str) -> None:
    """The same error in one process."""
    with pytest.raises(InvalidArguments) as caught:
        flow.run_local()
    assert caught.value.fields["called_at"] == line_of(code, mark)


async def test_what_fits_is_left_alone(board: Board) -> None:
    """A call whose argument is a future still gives its value."""
    await board.host(double, word, fitting)
    assert await board.run(fitting) == 16
