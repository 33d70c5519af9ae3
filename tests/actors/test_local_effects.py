"""Effects without NATS behave as with it, as far as one process can."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from callboard import NotDone, OutcomeUnknown, effect_key, tool, workflow
from callboard.infra.errors import CallTimeout, InvalidResult

DONE: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has happened."""
    DONE.clear()


@tool(effect=True, key="order")
async def book(order: str, note: str) -> str:
    """An effect with a key."""
    await asyncio.sleep(0)
    DONE[order] += 1
    return f"{effect_key()} {note}"


@tool(effect=True, key="order")
def book_in_a_thread(order: str) -> str:
    """The same, blocking."""
    DONE[order] += 1
    return effect_key()


@tool(effect=True)
async def act() -> str:
    """An effect without a key."""
    DONE["act"] += 1
    return effect_key()


@tool(effect=True, key="order", retries=2, backoff=0.001)
async def shaky(order: str) -> int:
    """Raises the first time."""
    DONE[order] += 1
    if DONE[order] == 1:
        raise ValueError(order)
    return DONE[order]


@tool(effect=True, key="order", timeout=0.01, retries=2, backoff=0.001)
async def slow(order: str) -> str:
    """Takes too long the first time."""
    DONE[order] += 1
    if DONE[order] == 1:
        await asyncio.sleep(3600)
    return "done"


@slow.reconcile
def was_slow(order: str) -> str:
    """Tells of all but the lost."""
    if order == "lost":
        raise NotDone
    return f"found {order}"


@tool(effect=True, key="order")
async def mute(order: str) -> Any:
    """Gives what cannot travel."""
    DONE[order] += 1
    return object()


@workflow
async def several() -> list[str]:
    """The same key three times, another one, and calls without one."""
    given = list(await asyncio.gather(book("a", "1"), book("a", "2"), book("b", "3"), act(), act()))
    return [*given, await book("a", "4"), await book_in_a_thread("c"), await book_in_a_thread("c")]


@workflow
async def retried() -> list[int]:
    """An attempt raises; the next call with its key is given what the second one gave."""
    return [await shaky("a"), await shaky("a")]


@workflow
async def timed_out(order: str) -> list[str]:
    """Calls again what it was not told of."""
    told = []
    for _ in range(2):
        try:
            told.append(await slow(order))
        except OutcomeUnknown as error:
            told.append(f"unknown {error.fields['key']} {type(error.__cause__).__name__}")
    return told


@workflow
async def silent() -> list[str]:
    """Calls again what has no reconcile."""
    told = []
    for _ in range(2):
        try:
            await mute("a")
        except OutcomeUnknown as error:
            told.append(type(error.__cause__).__name__)
    return told


async def test_once_for_each_key() -> None:
    """Without a key each call is an effect of its own."""
    given = await several()
    assert [given[0], given[1], given[5]] == ["a 1"] * 3
    assert given[2] == "b 3"
    assert given[3] != given[4]
    assert given[6:] == ["c", "c"]
    assert DONE == {"a": 1, "b": 1, "c": 1, "act": 2}
    await several()
    assert DONE["a"] == 2


async def test_what_raised_runs_again() -> None:
    """As often as retries say."""
    assert await retried() == [2, 2]
    assert DONE == {"a": 2}


@pytest.mark.parametrize(("order", "second", "times"), [("a", "found a", 1), ("lost", "done", 2)])
async def test_what_timed_out_is_reconciled_when_called_again(order: str, second: str, times: int) -> None:
    """A time-out tells nothing, and is not retried."""
    assert await timed_out(order) == [f"unknown {order} {CallTimeout.__name__}", second]
    assert {order: times} == DONE


async def test_without_reconcile_it_stays_unknown() -> None:
    """The handler does not run again."""
    assert await silent() == [InvalidResult.__name__, "NoneType"]
    assert DONE == {"a": 1}
