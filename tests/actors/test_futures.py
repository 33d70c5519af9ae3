"""Futures over NATS: awaiting, waiting, cancelling, asking; and what is known of them."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
import threading
from collections.abc import Iterable
from typing import Any, cast

import msgspec
import pytest
from tests.support.board import Board
from tests.support.waiting import SOON

from callboard import agent, method, tool, workflow
from callboard.actors.future import Future, FutureInfo
from callboard.infra import headers as H
from callboard.infra.errors import ResultTimeout, RunFailed, WouldBlock

GATES: dict[str, asyncio.Event] = {}
"""Opened by a test to let handlers go on."""
SEEN: list[Any] = []
"""What workflows have seen, to be asked by the test: it runs in the same process."""


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Gates and sightings begin anew with each test."""
    GATES.clear()
    SEEN.clear()


@tool
async def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


@tool
async def gated(name: str, value: int = 0) -> int:
    """Wait until the gate of this name is open."""
    await GATES.setdefault(name, asyncio.Event()).wait()
    return value


@tool
async def fail(text: str) -> int:
    """Raise."""
    raise ValueError(text)


@agent
class Asker:
    """An agent that makes calls of its own."""

    @method
    async def ask(self, number: int) -> int:
        """Call a tool and look at its future."""
        call = add(number)
        value = await call
        SEEN.append(call.metadata)
        return value


def opened(*names: str) -> None:
    """Open gates, in this order."""
    for name in names:
        GATES.setdefault(name, asyncio.Event()).set()


# -- asyncio's ways to wait -------------------------------------------------------------------


@workflow
async def waiting_flow() -> dict[str, Any]:
    """Use each of asyncio's ways to wait for several."""
    a, b = gated("a", 1), gated("b", 2)
    first, rest = await asyncio.wait([a, b], return_when=asyncio.FIRST_COMPLETED)
    GATES["a"].set()
    both = sorted(await asyncio.gather(a, b))
    in_order = []
    for one in asyncio.as_completed([gated("c", 3), gated("d", 4)]):
        in_order.append(await one)
        opened("c")
    error = (await asyncio.gather(fail("x"), return_exceptions=True))[0]
    try:
        await asyncio.wait_for(gated("never"), 0.01)  # noqa: TID251 - as users write it
        timed_out = False
    except TimeoutError:
        timed_out = True
    group = []
    async with asyncio.TaskGroup() as tasks:
        group = [tasks.create_task(double(n)) for n in range(3)]
    return {
        "first": [f.result() for f in first],
        "rest": len(rest),
        "both": both,
        "in_order": in_order,
        "error": repr(error),
        "timed_out": timed_out,
        "group": [task.result() for task in group],
    }


async def double(number: int) -> int:
    """A helper coroutine that makes calls."""
    return await add(await add(number, 0), number)


async def test_asyncios_ways_to_wait(board: Board) -> None:
    """``wait``, ``gather``, ``as_completed``, ``wait_for`` and task groups work as with any future."""
    await board.host(add, gated, fail, waiting_flow)
    opened("b", "d")
    GATES["a"] = asyncio.Event()
    assert await board.run(waiting_flow) == {
        "first": [2],
        "rest": 1,
        "both": [1, 2],
        "in_order": [4, 3],
        "error": "ValueError('x')",
        "timed_out": True,
        "group": [0, 2, 4],
    }


@workflow
async def asking_flow() -> list[Any]:
    """Ask a future without waiting for it."""
    call = gated("a", 5)
    seen: list[Any] = [call.available(), call.done(), repr(call).split()[2:]]
    try:
        call.value()
    except WouldBlock as error:
        seen.append(error.message.split(" (")[0])
    called: list[int] = []
    call.add_done_callback(lambda future: called.append(future.result()))
    opened("a")
    await call
    seen += [call.available(), call.value(), call.result(), await call, called, call.exception()]
    return seen


async def test_asking_a_future(board: Board) -> None:
    """Before its outcome it is not available, and waiting on the loop is refused; afterwards all agree."""
    await board.host(gated, asking_flow)
    found = await board.run(asking_flow)
    assert found == [
        False,
        False,
        ["gated.call", "sent>"],
        "gated.call",
        True,
        5,
        5,
        5,
        [5],
        None,
    ]


@workflow
def value_flow() -> list[Any]:
    """Wait with and without a limit in plain code."""
    call: Any = gated("a", 5)
    seen: list[Any] = [call.available()]
    try:
        call.value(timeout=0.02)
    except ResultTimeout as error:
        seen.append(error.fields["timeout"])
    done = threading.Event()
    call.add_done_callback(lambda _: done.set())
    assert call.arg is call
    call._self_future.get_loop().call_soon_threadsafe(opened, "a")
    seen += [call.value(timeout=SOON), done.wait(SOON), call.available(), call.cancel()]
    return seen


async def test_waiting_for_a_value_in_plain_code(board: Board) -> None:
    """A limit raises a typed error and leaves the call alone; without one it waits."""
    await board.host(gated, value_flow)
    assert await board.run(value_flow) == [False, 0.02, 5, True, True, False]


# -- lazy values ------------------------------------------------------------------------------


@workflow
def typed_flow(n: int) -> int:
    """Plain code that type checkers take as it is, and that decides by what it is given."""
    total = add(n, 1).arg
    doubled = add(total, total).arg
    return doubled + total if total == n + 1 else -1


async def test_plain_code_with_types(board: Board) -> None:
    """What ``arg`` gives there is the lazy value: it may be passed on, compared and counted with."""
    await board.host(add, typed_flow)
    assert await board.run(typed_flow, n=2) == 9
    assert await asyncio.to_thread(typed_flow.run_local, 2) == 9


@tool
async def give(what: str) -> Any:
    """Give a value of many kinds."""
    return {
        "int": 7,
        "float": 2.5,
        "text": "Hello",
        "list": [3, 1, 2],
        "dict": {"a": 1, "b": [2]},
        "none": None,
        "true": True,
        "empty": [],
        "point": {"x": 1, "y": 2},
    }[what]


class Point(msgspec.Struct):
    """A struct."""

    x: int
    y: int


@tool
async def point() -> Point:
    """Give a struct."""
    return Point(1, 2)


def _lazily() -> dict[str, tuple[Any, Any]]:
    """For each use of a lazy value what it gives and what the plain value would give."""
    number, ratio, text, items, table = (give(what) for what in ("int", "float", "text", "list", "dict"))
    n: Any = number
    t: Any = text
    i: Any = items
    d: Any = table
    p: Any = point()
    true: Any = give("true")
    empty: Any = give("empty")
    return {
        "arithmetic": (n + 1, 8),
        "reflected": (1 - n, -6),
        "both lazy": (n * ratio, 17.5),
        "power": (2**n, 128),
        "negative": (-n, -7),
        "divmod": (divmod(n, 2), (3, 1)),
        "rounding": (round(give("float"), 0), 2.0),  # type: ignore[call-overload]
        "index": ([10, 20, 30, 40, 50, 60, 70, 80][n], 80),
        "range": (list(range(n))[-1], 6),
        "comparison": (n > 5 and n == 7 and n != 8 and not n < 7, True),
        "truth": (bool(true) and not empty, True),
        "hash": ({n: "x"}[7], "x"),
        "format": (f"{n:03d} {t!s:>6} {ratio:.2f}", "007  Hello 2.50"),
        "text": (t.upper() + t[1:3] + "!", "HELLOel!"),
        "concatenation": (t + "-" + t, "Hello-Hello"),
        "contains": ("ell" in t and 3 in i and "a" in d, True),
        "length": (len(i) + len(t) + len(d), 10),
        "iteration": ([x * 2 for x in i], [6, 2, 4]),
        "sorting": (sorted(i), [1, 2, 3]),
        "unpacking": ((*i, *t), (3, 1, 2, "H", "e", "l", "l", "o")),
        "slicing": (i[::-1], [2, 1, 3]),
        "sum": (sum(i) + max(i), 9),
        "keywords": (dict(**d)["a"], 1),
        "keys": (sorted(d), ["a", "b"]),
        "nested": (d["b"][0], 2),
        "attribute": (p.x + p.y, 3),
        "isinstance": (isinstance(n, int) and isinstance(p, Point) and isinstance(i, list), True),
        "not isinstance": (isinstance(n, str), False),
        "class": (n.__class__ is int, True),
        "math": (math.sqrt(n + 2), 3.0),
        "json": (json.dumps(d["b"]), "[2]"),
        "repr": (repr(i), "[3, 1, 2]"),
        "repr inside": (str([n, t]), "[7, 'Hello']"),
        "copy": (copy.copy(i) == [3, 1, 2] and copy.deepcopy(d)["b"] == [2], True),
        "pickle": (pickle.loads(pickle.dumps(d)), {"a": 1, "b": [2]}),  # noqa: S301 - our own
        "value": (p.value() == Point(1, 2) and type(n.value()) is int, True),
    }


@workflow
def lazy_flow() -> dict[str, list[str]]:
    """Use values in all the ways that plain code does."""
    return {what: [repr(found), repr(wanted)] for what, (found, wanted) in _lazily().items()}


async def test_lazy_values_are_used_like_the_values_themselves(board: Board) -> None:
    """Unmodified plain code works with what calls give, whatever it does with it."""
    await board.host(give, point, lazy_flow)
    found = await board.run(lazy_flow)
    assert len(found) > 30
    assert {what: pair[0] for what, pair in found.items()} == {what: pair[1] for what, pair in found.items()}


@tool
async def pair() -> tuple[int, str]:
    """Give a value whose kind the annotation tells."""
    return 1, "one"


@tool
async def perhaps(count: int) -> list[int] | None:
    """Give a value of one of several kinds."""
    return list(range(count)) or None


@workflow
def iterating_flow() -> list[Any]:
    """Iterate over values which nothing has touched before."""
    items: Any = give("list")
    more: Any = give("list")
    numbers: Any = perhaps(2)
    both: Any = pair()
    number, word = cast("Any", pair())
    with pytest.raises(TypeError, match="object is not iterable"):
        iter(cast("Any", give("int")))
    return [
        [x for x in items],  # noqa: C416 - the loop is what is tested
        [*more, *numbers],
        list(both),
        [number, word],
        isinstance(point(), Iterable),
    ]


async def test_iterating_may_be_the_first_touch(board: Board) -> None:
    """A loop over what a call gives waits for it; nobody needs to touch it before."""
    await board.host(give, point, pair, perhaps, iterating_flow)
    assert await board.run(iterating_flow) == [
        [3, 1, 2],
        [3, 1, 2, 0, 1],
        [1, "one"],
        [1, "one"],
        False,
    ]


@workflow
def overlapping_flow() -> Any:
    """Make two calls of which the first ends only when the second has begun."""
    first, second = gated("late", 1), notifying()
    return first + second  # type: ignore[operator]


@tool
async def notifying() -> int:
    """Open the gate for the other."""
    opened("late")
    return 2


async def test_plain_code_gets_the_parallelism_of_its_futures(board: Board) -> None:
    """A call does not wait for the ones before it as long as nobody touches their values."""
    await board.host(gated, notifying, overlapping_flow)
    assert await board.run(overlapping_flow) == 3


@workflow
def failing_flow() -> str:
    """Touch what has failed."""
    broken = fail("lazily")
    try:
        len(broken)  # type: ignore[arg-type]
    except ValueError as error:
        return f"{error} {broken.available()}"
    return "no error"


async def test_a_lazy_value_of_a_failed_call_raises_where_it_is_touched(board: Board) -> None:
    """Its own exception."""
    await board.host(fail, failing_flow)
    assert await board.run(failing_flow) == "lazily True"


# -- what is known of a future ----------------------------------------------------------------


@workflow
async def knowing_flow() -> int:
    """Look at futures while they go through their states."""
    first = gated("a", 1)
    second = add(first.arg, 2)
    third = add(second.arg, first.arg)
    assert second.reprioritize(3)
    assert not first.reprioritize(5)  # it is on its way
    SEEN.append([one.metadata for one in (first, second, third)])
    opened("a")
    value = await third
    SEEN.append([one.metadata for one in (first, second, third)])
    failed = fail("x")
    await asyncio.wait([failed])
    cancelled = gated("b")
    unsent = add(cancelled.arg, 1)
    SEEN.append([cancelled.metadata.state, unsent.metadata.state])
    for one in (unsent, cancelled):
        one.cancel()
    SEEN.append([one.metadata.state for one in (failed, cancelled, unsent)])
    SEEN.append([first.reprioritize(9)])
    return value


async def test_what_is_known_of_a_future(board: Board) -> None:
    """State, dependencies, consumers, creator, executor, stage, priority and attempt, before and after."""
    driver = await board.host(knowing_flow, add, fail)
    worker = await board.host(gated)
    run = await board.submit(knowing_flow)
    assert (await board.done(run)).status == "completed"
    before, after, late, ends, again = SEEN
    ids = [f"{run}:1", f"{run}:2", f"{run}:3"]

    def info(number: int, state: str, **known: Any) -> FutureInfo:
        given: dict[str, Any] = {
            "future": ids[number],
            "call": "gated.call" if number == 0 else "add.call",
            "state": state,
            "dependencies": [(), (ids[0],), (ids[1], ids[0])][number],
            "consumers": [(ids[1], ids[2]), (ids[2],), ()][number],
            "creator": driver.id,
            "executor": "",
            "session": run,
            "stage": number + 1,
            "priority": 3 if number == 1 else 0,
            "attempt": 1,
        }
        return FutureInfo(**given | known)

    assert before == [info(0, "sent"), info(1, "waiting"), info(2, "waiting")]
    assert after == [
        info(0, "done", executor=worker.id),
        info(1, "done", executor=driver.id),
        info(2, "done", executor=driver.id),
    ]
    assert late == ["sent", "waiting"]
    assert ends == ["failed", "cancelled", "cancelled"]
    assert again == [False]


@workflow
async def wire_flow() -> int:
    """Make calls of which one waits for the others."""
    await gated("gate")
    return await Asker.ask(add(add(1).arg, 2).arg)


async def test_what_the_wire_tells_of_a_call(board: Board) -> None:
    """Headers of a call, as any NATS client sees them."""
    node = await board.node()
    calls: dict[str, dict[str, str]] = {}

    def see(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        found = H.decode(head)
        calls[found[H.FUTURE].partition(":")[2]] = found | {"subject": subject.decode()}

    node.connection.subscribe("cb.call.>", see)
    await node.connection.flush()
    driver = await board.host(wire_flow, gated)
    worker = await board.host(add, Asker)
    client = await board.client()
    opened("gate")
    run = await client.submit("wire_flow", session="s-1", deadline=60, priority=2)
    assert await client.result(run, SOON) == 5
    await node.connection.flush()
    common = {H.RUN: run, H.SESSION: "s-1", H.WORKFLOW: "wire_flow", H.PRIORITY: "2"}
    assert set(calls) == {"1", "2", "3", "4", "4.1"}
    for headers in calls.values():
        assert common.items() <= headers.items()
        assert float(headers[H.DEADLINE]) > 0
        assert headers[H.MESSAGE_ID] == headers[H.FUTURE]
    assert calls["3"][H.DEPS] == f"{run}:2"
    assert calls["4"][H.DEPS] == f"{run}:3"
    assert [calls[n][H.STAGE] for n in ("2", "3", "4", "4.1")] == ["2", "3", "4", "5"]
    assert calls["4"]["subject"] == "cb.call.Asker.any.0"
    assert (calls["4"][H.METHOD], calls["4"][H.CREATOR]) == ("ask", driver.id)
    assert calls["4.1"][H.CREATOR] == worker.id
    assert calls["4.1"][H.PATH] == "wire_flow,Asker.ask"
    assert H.PATH not in calls["4"]


async def test_a_future_seen_from_inside_an_agent(board: Board) -> None:
    """Calls made by a handler have metadata, too: its host made them, deeper in the run."""
    worker = await board.host(add, Asker, wire_flow, gated)
    opened("gate")
    run = await board.submit(wire_flow)
    assert (await board.done(run)).status == "completed"
    (info,) = SEEN
    assert (info.future, info.call, info.state) == (f"{run}:4.1", "add.call", "done")
    assert (info.creator, info.executor, info.stage) == (worker.id, worker.id, 5)


async def test_futures_belong_to_calls(board: Board) -> None:
    """What a stub gives is a future in async code, there being no other way to make one."""

    @workflow
    async def flow() -> list[bool]:
        call = add(1)
        found = [isinstance(call, Future), isinstance(call, asyncio.Future), asyncio.isfuture(call)]
        await call
        return found

    await board.host(add, flow)
    assert await board.run(flow) == [True, True, True]


async def test_a_failed_call_that_nobody_awaits_fails_nobody(board: Board) -> None:
    """The workflow did not look: its run ends well."""

    @workflow
    async def flow() -> str:
        _ = fail("unseen")
        await add(1)
        return "well"

    await board.host(add, fail, flow, raising_flow)
    assert await board.run(flow) == "well"
    with pytest.raises(RunFailed):
        await board.run(raising_flow)


@workflow
async def raising_flow() -> int:
    """Look at it."""
    return await fail("seen")
