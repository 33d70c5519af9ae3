"""What the fault suite runs: nested calls, dependencies, retries, async and blocking handlers.

Every handler tells the ledger (``$FAULTS_LEDGER``) when it begins and ends. Results depend on the
arguments alone, so that :func:`expected` knows the one right outcome of every run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

from tests.faults import ledger

import callboard
from callboard.actors.scope import current
from callboard.infra.errors import OutcomeUnknown, Poisoned

_path = os.environ.get("FAULTS_LEDGER")
_writer = ledger.Writer(Path(_path)) if _path else None
_gate = Path(_path).with_name("gate") if _path else Path("gate")


def place() -> tuple[str, int]:
    """Future id and attempt of the call that is being handled here."""
    scope = current.get()
    assert scope is not None
    path = scope.prefix.removesuffix(".")
    if "~" not in path.rpartition(".")[2]:
        return path, 1
    future, _, attempt = path.rpartition("~")
    return future, int(attempt)


def execution() -> Any:
    """Tells the ledger of this execution."""
    assert _writer is not None, "FAULTS_LEDGER names the ledger"
    return _writer.execution(*place())


class Shaky(Exception):
    """Raised by an attempt that is meant to fail."""


@callboard.tool
async def add(a: int, b: int, pause: float = 0.0) -> int:
    """On the event loop."""
    with execution():
        await asyncio.sleep(pause)
        return a + b


@callboard.tool(concurrency=8)
def blocking(a: int, b: int, pause: float = 0.0) -> int:
    """In a thread."""
    with execution():
        time.sleep(pause)
        return a + b


@callboard.tool(retries=3, backoff=0.05)
async def flaky(value: int, failures: int) -> int:
    """Fails a given number of times first."""
    with execution():
        _, attempt = place()
        if attempt <= failures:
            raise Shaky(f"attempt {attempt} of {value}")
        return value


@callboard.tool
async def broken(value: int) -> int:
    """Never succeeds and is not retried."""
    with execution():
        raise Shaky(f"always: {value}")


@callboard.tool(concurrency=1)
async def held(number: int) -> int:
    """Runs until the file ``gate`` is there."""
    with execution():
        while not _gate.exists():
            await asyncio.sleep(0.01)
        return number


@callboard.tool
async def deadly(number: int) -> int:
    """Kills its host."""
    with execution():
        os.kill(os.getpid(), signal.SIGKILL)
        return number


@callboard.tool
async def shout(size: int) -> int:
    """Fails with so many characters."""
    with execution():
        raise Shaky("x" * size)


def happens(name: str) -> None:
    """Tell SQLite that something has happened; the key is not unique, so that it may be told twice."""
    with contextlib.closing(sqlite3.connect(_gate.with_name("effects"), timeout=30.0)) as base, base:
        base.execute("CREATE TABLE IF NOT EXISTS done (name TEXT NOT NULL)")
        base.execute("INSERT INTO done VALUES (?)", (name,))


def happened(name: str) -> bool:
    """Whether it has."""
    with contextlib.closing(sqlite3.connect(_gate.with_name("effects"), timeout=30.0)) as base, base:
        base.execute("CREATE TABLE IF NOT EXISTS done (name TEXT NOT NULL)")
        return base.execute("SELECT 1 FROM done WHERE name = ?", (name,)).fetchone() is not None


@callboard.tool(effect=True, concurrency=8)
def charge(number: int, name: str, pause: float) -> str:
    """An effect; nobody can tell afterwards. Every tenth kills its host, before or after it."""
    time.sleep(pause)
    if number % 20 == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    happens(name)
    if number % 20 == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(pause)
    return name


@callboard.workflow
async def charging(numbers: list[int], pause: float) -> list[str]:
    """All of them at once; of each, what its caller was told."""
    calls = [charge(number, f"{number}", pause) for number in numbers]
    given = await asyncio.gather(*calls, return_exceptions=True)
    return ["unknown" if isinstance(one, OutcomeUnknown) else str(one) for one in given]


@callboard.tool(concurrency=2)
async def hog(number: int, pause: float, blocks: bool) -> int:  # noqa: FBT001 - a tool takes what JSON has
    """Takes its time; or takes the event loop, as no handler should: with no pause until the file ``gate`` is there."""
    with execution():
        if blocks:
            while not pause and not _gate.exists():
                time.sleep(0.01)  # noqa: ASYNC251 - the fault itself
            time.sleep(pause)  # noqa: ASYNC251 - the fault itself
        else:
            await asyncio.sleep(pause)
        return number


@callboard.workflow
async def crowded(number: int, host: str, width: int, pause: float) -> int:
    """Two calls that take long in a host's lane, and many short ones behind them."""
    with callboard.options(host=host):
        long = [hog(number, pause, number % 2 == 0), hog(0, pause, False)]
        short = [hog(one, 0.0, False) for one in range(width)]
    return sum(await asyncio.gather(*long, *short))


PATIENCE = 2.0
"""Seconds for which what waits for its time waits at most: a retry, a time-out."""


@callboard.tool(retries=2, backoff=PATIENCE, backoff_max=PATIENCE)
async def returning(value: int) -> int:
    """Fails the first time; a schedule brings it back."""
    with execution():
        if place()[1] == 1:
            raise Shaky(f"first attempt of {value}")
        return value


@callboard.tool(timeout=PATIENCE, retries=2, backoff=0.05, idempotent=True)
async def endless(value: int) -> int:
    """Hangs the first time, so that its time-out comes due."""
    with execution():
        if place()[1] == 1:
            await asyncio.sleep(3600)
        return value


@callboard.agent
class Collector:
    """Waits for a full batch, which never comes."""

    @callboard.batchable(max_batch=1000, max_wait=PATIENCE)
    async def collect(self, values: list[int], futures: list[str]) -> list[int]:
        """Is told the ids of its calls: a batch's own is of the first one only."""
        assert _writer is not None
        with contextlib.ExitStack() as all_of_them:
            for future in futures:
                all_of_them.enter_context(_writer.execution(future, 1))
            return values


@callboard.agent
class Clerk:
    """An agent whose handlers make calls of their own."""

    async def total(self, values: list[int], pause: float = 0.0) -> int:
        """Adds pairwise, in parallel."""
        with execution():
            left = list(values)
            while len(left) > 1:
                pairs = [add(left[i], left[i + 1], pause) for i in range(0, len(left) - 1, 2)]
                left = [*(await asyncio.gather(*pairs)), *left[len(pairs) * 2 :]]
            return left[0]

    def total_blocking(self, values: list[int]) -> int:
        """Adds one after the other, in a thread that waits for each."""
        with execution():
            sum_ = 0
            for value in values:
                sum_ = blocking(sum_, value).value()
            return sum_


@callboard.workflow
async def mixed(number: int, width: int, pause: float) -> int:
    """Fan-out over unresolved futures, retries, a blocking tool, an agent that calls a tool."""
    first = add(number, 1, pause)
    parts = [add(first.arg, i, pause) for i in range(width)]
    shaky = flaky(parts[0].arg, number % 3)
    slow = blocking(first.arg, 2, pause)
    total = Clerk.total([*(part.arg for part in parts), shaky.arg, slow.arg], pause)
    return await total


@callboard.workflow
def plain(number: int, steps: int, pause: float) -> int:
    """Sequential code without await: its values are waited for when they are touched."""
    value: Any = number
    for step in range(steps):
        value = add(value, step, pause)
    return Clerk.total_blocking([value, blocking(number, 1, pause).arg]).value()


@callboard.workflow
async def failing(number: int, pause: float) -> int:
    """Its last call fails for good."""
    return await broken(add(number, 1, pause).arg)


@callboard.workflow
async def chain(number: int, steps: int, pause: float) -> int:
    """One call after the other."""
    value = number
    for step in range(steps):
        value = await add(value, step, pause)
    return value


@callboard.workflow
async def timed(number: int) -> int:
    """A retry, a time-out and a batch, all of which take their time."""
    scope = current.get()
    assert scope is not None
    late = [returning(number), endless(number), Collector.collect(number, f"{scope.prefix}3")]
    return sum(await asyncio.gather(*late))


@callboard.workflow
async def patient(number: int, seconds: float) -> int:
    """Calls, and between them waits, across which the run is put aside."""
    first = await add(number, 1)
    await callboard.sleep(seconds)
    second = await callboard.signal("go", type=int)
    return await add(first, second)


@callboard.workflow
async def holding(number: int) -> int:
    """One call that lasts until the gate is open."""
    return await held(number)


@callboard.workflow
async def dying(number: int) -> int:
    """Its call kills whoever handles it."""
    return await deadly(number)


@callboard.workflow
async def shouting(number: int, at_home: bool) -> int:  # noqa: FBT001 - a workflow takes what JSON has
    """Fails with more than a message has room for, by itself or in a call."""
    if at_home:
        raise Shaky("x" * 3_000_000)
    return await shout(3_000_000)


@callboard.workflow
async def crowd(number: int, width: int) -> int:
    """Makes many calls that nobody serves, and fails, so that all of them are cancelled at once."""
    _calls = [nobody(number) for _ in range(width)]
    await add(number, 1)
    raise Shaky("enough")


@callboard.tool
async def nobody(number: int) -> int:
    """No host runs it."""
    return number


def expected(workflow: str, arguments: dict[str, Any]) -> Any:
    """The one right outcome: a value, or the type of the error."""
    number = arguments["number"]
    if workflow == "mixed":
        first = number + 1
        parts = [first + i for i in range(arguments["width"])]
        return sum(parts) + parts[0] + first + 2
    if workflow == "plain":
        return number + sum(range(arguments["steps"])) + number + 1
    if workflow == "chain":
        return number + sum(range(arguments["steps"]))
    if workflow == "patient":
        return number + 1 + number
    if workflow == "crowded":
        return number + sum(range(arguments["width"]))
    known: dict[str, Any] = {"holding": number, "timed": 3 * number, "dying": Poisoned}
    return known.get(workflow, Shaky)
