"""Before a deployment: whether runs go on under other code."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.board import Board
from tests.support.gates import Gate
from tests.support.waiting import eventually, until

import callboard
from callboard import human, tool, workflow
from callboard.actors.check import Checked, check
from callboard.infra import subjects

RAN: Counter[str] = Counter()
GATE = Gate()
CODE: dict[str, Callable[[], Any]] = {}


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run."""
    RAN.clear()
    CODE.clear()


@tool
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    RAN["add"] += 1
    return a + b


@tool
async def held(name: str) -> str:
    """Wait for its gate."""
    RAN[name] += 1
    await GATE.wait()
    return name


@workflow
async def changes() -> Any:
    """What the test says."""
    return await CODE["now"]()


@workflow
async def steady() -> int:
    """Always the same."""
    return await add(1, 2)


async def waits() -> Any:
    """A call, then a signal."""
    await add(1, 2)
    return await callboard.signal("paid")


async def sleeps() -> Any:
    """Another wait at that place."""
    await add(1, 2)
    await callboard.sleep(3600)


async def calls() -> Any:
    """A call at that place."""
    await add(1, 2)
    return await add(3, 4)


async def more_after() -> Any:
    """Something after the place where the run stands."""
    await waits()
    return await add(5, 6)


async def another() -> Any:
    """Another call before it."""
    await held("x")
    return await waits()


async def none() -> Any:
    """It ends too soon."""
    return await add(1, 2)


async def raises() -> Any:
    """It fails at once."""
    raise KeyError("oh")


async def asks() -> Any:
    """It forgets the first call."""
    return await human.ask("Which?")


PROBLEMS = [
    (waits, ""),
    (more_after, ""),
    (calls, ":2 the run waits for callboard.signal, the code calls add.call"),
    (sleeps, ":2 the run waits for callboard.signal, the code does not"),
    (none, ":2 the run waits for callboard.signal, the code does not"),
    (another, ":1 the journal has a call of add.call, the code calls held.call"),
    (asks, ":1 the journal has a call of add.call, the code calls callboard.now"),
    (raises, "the code does not come to what is on record at 1: KeyError: 'oh'"),
]


async def test_runs_that_wait(board: Board) -> None:
    """All that were put aside are held against the code; nothing is called, and they hear nothing of it."""
    await board.host(add, held, changes, park_after=0.05)
    CODE["now"] = waits
    client = await board.client()
    runs = [await client.submit("changes") for _ in range(20)]
    for run in runs:
        await board.entries(run, "aside")
    for code, problem in PROBLEMS:
        CODE["now"] = code
        found = await client.check(changes)
        assert [one.run for one in found] == sorted(runs)
        for one in found:
            assert (one.workflow, one.status, one.steps) == ("changes", "waiting", 1)
            assert (problem in one.problem) if problem else (not one.problem), (code, one.problem)
    assert RAN == {"add": 20}
    CODE["now"] = waits
    await asyncio.gather(*(client.signal(run, "paid", 7) for run in runs))
    assert await asyncio.gather(*(client.result(run, 20) for run in runs)) == [7] * 20


async def under_way() -> Any:
    """Two calls at once, of which one has no outcome."""
    return await asyncio.gather(add(1, 2), held("first"))


async def another_under_way() -> Any:
    """Another call in the place of that one."""
    return await asyncio.gather(add(1, 2), add(3, 4))


async def test_a_call_that_is_under_way(board: Board) -> None:
    """The journal does not tell of it yet; its maker does."""
    await board.host(add, held, changes)
    CODE["now"] = under_way
    client = await board.client()
    run = await client.submit("changes")
    await board.entries(run, "result")
    await until(lambda: RAN["first"])
    await eventually(client.runs)
    (found,) = await client.check(changes)
    assert (found.status, found.problem) == ("running", "")
    CODE["now"] = another_under_way
    (found,) = await client.check(changes)
    assert found.problem == f"at {run}:2 the run waits for held.call, the code calls add.call"
    GATE.set()
    assert await client.result(run, 20) == [3, "first"]


async def later() -> Any:
    """A branch that comes to its call while another one waits."""

    async def second() -> Any:
        await asyncio.sleep(0.7)
        return await held("second")

    return await asyncio.gather(held("first"), second())


async def test_a_branch_that_takes_its_time(board: Board) -> None:
    """That another one stands is not the end of it, where it is known what is still to come."""
    await board.host(held, changes)
    CODE["now"] = later
    client = await board.client()
    run = await client.submit("changes")
    await until(lambda: RAN["second"])
    await eventually(client.runs)
    (found,) = await client.check(changes)
    assert (found.status, found.problem) == ("running", "")
    GATE.set()
    assert await client.result(run, 20) == ["first", "second"]


async def drops() -> Any:
    """It has other calls under way all the time, and stops each."""
    while not GATE.is_set():
        dropped = asyncio.ensure_future(held("dropped"))
        await add(1, 2)
        dropped.cancel()
        await asyncio.wait([dropped])
    return "done"


async def test_calls_that_are_stopped_meanwhile(board: Board) -> None:
    """Of these there never is an outcome: a run that waits for them no more is asked again."""
    await board.host(add, held, changes)
    CODE["now"] = drops
    client = await board.client()
    run = await client.submit("changes")
    await until(lambda: RAN["dropped"] > 3)
    await eventually(client.runs)
    found = [one for _ in range(3) for one in await client.check(changes)]
    assert [(one.status, one.problem) for one in found] == [("running", "")] * 3
    GATE.set()
    assert await client.result(run, 20) == "done"


async def dozes() -> Any:
    """It sleeps by itself between calls."""
    await add(1, 2)
    await asyncio.sleep(SLEEPS["for"])
    await add(3, 4)
    return await held("woken")


SLEEPS = {"for": 0.0}


async def test_code_that_sleeps(board: Board) -> None:
    """It has so many seconds; then it is told that nothing can be told, unless it has come as far as the run."""
    await board.host(add, held, changes)
    CODE["now"] = dozes
    SLEEPS["for"] = 0.0
    client = await board.client()
    run = await client.submit("changes")
    await until(lambda: RAN["woken"])
    await eventually(client.runs)
    SLEEPS["for"] = 3600.0
    (found,) = await client.check(changes, patience=0.5)
    assert found.problem.startswith("it cannot be told: in 0.5 s the code, which sleeps")
    SLEEPS["for"] = 0.5
    assert [one.problem for one in await client.check(changes)] == [""]
    GATE.set()
    assert await client.result(run, 20) == "woken"


async def cleans() -> Any:
    """It cleans up when it is stopped."""
    try:
        return await held("cleaned")
    finally:
        await add(1, 2)


async def test_a_run_that_was_cancelled(board: Board) -> None:
    """Nobody stops the code here: what it did then is no difference."""
    await board.host(add, held, changes)
    CODE["now"] = cleans
    client = await board.client()
    run = await client.submit("changes")
    await until(lambda: RAN["cleaned"])
    await client.cancel(run)
    assert (await client.done(run, 20)).status == "cancelled"

    async def told() -> bool:
        return any(one.finished for one in await client.runs())

    await eventually(told)
    (found,) = await client.check(changes, ended=1)
    assert (found.status, found.problem) == ("cancelled", "")


async def test_runs_that_have_ended(board: Board) -> None:
    """The latest of each, where somebody wants it; those of workflows that are not given are left alone."""
    await board.host(add, changes, steady)
    CODE["now"] = none
    client = await board.client()
    runs = []
    for name in ("changes", "changes", "changes", "steady", "steady"):
        runs.append(await client.submit(name))
        await client.result(runs[-1], 20)

    async def all_told() -> bool:
        return sum(bool(one.finished) for one in await client.runs()) == len(runs)

    await eventually(all_told)
    assert await client.check(changes, steady) == []
    assert await client.check(changes, steady, ended=2) == [
        Checked(run, name, "completed", 1)
        for run, name in zip(runs[1:], ("changes", "changes", "steady", "steady"), strict=True)
    ]
    CODE["now"] = raises
    told: list[tuple[str, int]] = []
    found = await check(client, [changes], 1, 10.0, lambda one, of: told.append((one.run, of)))
    assert told == [(runs[2], 1)]
    assert found[0].problem.startswith("it would have gone otherwise: ")
    assert RAN["add"] == 5


async def test_a_journal_that_is_cut(board: Board) -> None:
    """What cannot be checked is a problem, and said."""
    await board.host(add, changes, park_after=0.05)
    CODE["now"] = waits
    client = await board.client()
    run = await client.submit("changes")
    await board.entries(run, "aside")
    node = await board.node()
    purge = {"filter": subjects.run(run, "owner")}
    assert "error" not in await node.topology.api(f"STREAM.PURGE.{subjects.RUNS}", purge)
    (found,) = await client.check(changes)
    assert found.problem.startswith("it cannot be checked: ")
