"""The application that the tests of the command line run."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import date
from pathlib import Path
from typing import Any, Literal

import msgspec

import callboard
from callboard import agent, human, method, tool, workflow


class Plan(msgspec.Struct):
    """What a typed workflow takes."""

    title: str
    steps: list[int]


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(cpu=True)
def in_process(n: int) -> int:
    """The process that ran it must be able to import this module by its name."""
    return n * os.getppid() ** 0


@tool
async def hold(gate: str) -> str:
    """Say that it has started, then wait until the gate is there; tell of a cancellation."""
    _touch(f"{gate}.started")
    try:
        while not _exists(gate):
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        _touch(f"{gate}.cancelled")
        raise
    return "let go"


def _touch(file: str) -> None:
    Path(file).touch()


def _exists(file: str) -> bool:
    return Path(file).exists()


@tool
def stuck(gate: str) -> None:
    """Block a thread for good."""
    _touch(f"{gate}.started")
    threading.Event().wait()


@tool
async def broken() -> int:
    """Fail."""
    raise KeyError("nothing there")


@agent(min_instances=2)
class Scarce:
    """An agent of which there should be more."""

    @method
    async def sum_up(self, numbers: list[int]) -> int:
        """Calls another actor for each number, one after the other."""
        total = 0
        for number in numbers:
            total = await add(total, number)
        return total


@workflow
async def dozes() -> None:
    """Waits for a moment."""
    await callboard.sleep(0.01)


@workflow
async def greet(name: str) -> str:
    """Greet."""
    return f"Hello {name}"


@workflow
async def totals(numbers: list[int]) -> dict[str, int]:
    """A call with dependencies, and calls made by a call."""
    doubled = [add(number, number).arg for number in numbers]
    return {"total": await Scarce.sum_up(doubled), "apart": await in_process(7)}


@workflow
async def fails() -> int:
    """Passes on the failure of a call."""
    return await add(broken().arg, 1)


@workflow
async def holds(gate: str) -> str:
    """Waits for a call that waits."""
    return await hold(gate)


@workflow
async def sticks(gate: str) -> None:
    """Waits for a call that never ends."""
    await stuck(gate)


@workflow
async def typed(  # noqa: PLR0917 - one of each
    text: str,
    count: int,
    ratio: float = 0.5,
    on: bool = False,  # noqa: FBT001, FBT002 - a workflow's parameter
    day: date | None = None,
    mode: Literal["fast", "safe"] = "fast",
    tags: list[str] = [],  # noqa: B006 - read only
    raw: bytes = b"",
    plan: Plan | None = None,
    dashed_name: int | str = 0,
) -> list[Any]:
    """Every kind of parameter."""
    return [text, count, ratio, on, day, mode, tags, raw, plan, dashed_name]


@workflow
async def asks_plan() -> Plan:
    """Ask for a plan."""
    return await human.ask("Which plan?", schema=Plan, to="planner")


@workflow
async def asks_text() -> str:
    """Ask for text."""
    return await human.ask("Which word?")


@workflow
async def listens() -> Any:
    """Give what somebody tells it."""
    return await callboard.signal("paid")
