"""Dependencies over NATS: announced, sent when ready, by reference when large, failed with their cause."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from tests.support.board import Board
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import agent, method, tool, workflow
from callboard.actors.future import Future
from callboard.infra import headers as H
from callboard.infra.errors import (
    CallFailed,
    DependencyFailed,
    InvalidArguments,
    RunFailed,
    ValueMissing,
    ValueTooLarge,
)
from callboard.infra.messages.run import Pending

GATE = Gate()
STARTED: list[str] = anew([])
LARGE = random.Random(1).randbytes(300_000)
"""Above what travels inline, and of several chunks."""


@tool
async def add(a: int, b: int = 1) -> int:
    """Add."""
    STARTED.append(f"add {a} {b}")
    return a + b


@tool
async def gated(value: int) -> int:
    """Wait for the gate."""
    await GATE.wait()
    return value


@tool
async def large(fill: int = 0) -> bytes:
    """Give a large value."""
    return bytes([fill]) + LARGE


@tool
async def measure(data: list[bytes]) -> list[int]:
    """Sizes and sums."""
    return [len(data), *(len(one) + one[0] for one in data)]


@tool
async def pair_up(data: bytes) -> dict[str, Any]:
    """A large value among others."""
    return {"one": data, "two": [data[:3]]}


@tool
async def text() -> str:
    """A text."""
    return "three"


class Broken(Exception):
    """A user's error."""


@tool
async def fail(message: str) -> int:
    """Raise, from a cause."""
    try:
        raise KeyError("inner")
    except KeyError as cause:
        raise Broken(message) from cause


@agent
class Middle:
    """An agent between the workflow and tools."""

    @method
    async def passes_on(self, number: int) -> int:
        """Give back a call's future without waiting for it."""
        return add(number, 10)  # type: ignore[return-value]

    @method
    async def fails_later(self) -> int:
        """Give back a future that fails."""
        return fail("from below")  # type: ignore[return-value]

    @method
    async def depends(self, number: int) -> int:
        """Make calls that depend on each other."""
        return await add(add(number, 10).arg, add(number, 20).arg)

    @method
    async def deep(self, level: int) -> int:
        """Call itself until something fails at the bottom."""
        return await (fail("bottom") if level == 0 else Middle.deep(level - 1))


# -- when a call is sent ----------------------------------------------------------------------


@workflow
async def waiting_flow() -> int:
    """A call that waits for two others."""
    return await add(gated(1).arg, gated(2).arg)


async def test_a_waiting_call_is_announced_at_once_and_sent_when_it_is_ready(board: Board) -> None:
    """The journal knows it ahead of time; its message leaves the moment the last value is there."""
    node = await board.node()
    sent: list[str] = []

    def see(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        sent.append(H.decode(head)[H.FUTURE].partition(":")[2])

    node.connection.subscribe("cb.call.>", see)
    await node.connection.flush()
    await board.host(waiting_flow, add, gated)
    run = await board.submit(waiting_flow)
    entries = await board.entries(run, "pending")
    (announced,) = msgspec.msgpack.decode(entries[0].body, type=Pending).futures
    assert (announced.future, announced.call) == (f"{run}:3", "add.call")
    assert announced.deps == [f"{run}:1", f"{run}:2"]
    await until(lambda: len(sent) == 2)
    assert sorted(sent) == ["1", "2"]
    GATE.set()
    assert msgspec.msgpack.decode((await board.done(run)).value) == 3
    await node.connection.flush()
    assert sent[2:] == ["3"]


@workflow
async def wide_flow(width: int) -> int:
    """Many calls that wait for one."""
    first = gated(1)
    return sum(await asyncio.gather(*(add(first.arg, n) for n in range(width))))


async def test_thousands_that_wait_for_one(board: Board) -> None:
    """Announced together they take more than one message has room for; all are called."""
    await board.host(wide_flow, add, gated)
    run = await board.submit(wide_flow, width=12_000)
    entries = await board.entries(run, "pending", 12, timeout=2 * SOON)
    announced = [msgspec.msgpack.decode(entry.body, type=Pending).futures for entry in entries]
    assert len({one.future for batch in announced for one in batch}) == 12_000
    GATE.set()
    done = await board.done(run, timeout=2 * SOON)
    assert msgspec.msgpack.decode(done.value) == sum(range(12_000)) + 12_000


@workflow
async def narrow_flow(width: int) -> int:
    """One call that waits for many."""
    return await count([gated(n).arg for n in range(width)])


@tool
async def count(numbers: list[int]) -> int:
    """How many different ones."""
    return len(set(numbers))


async def test_one_that_waits_for_thousands(board: Board) -> None:
    """The list of its dependencies alone is longer than a message's headers should be."""
    GATE.set()
    await board.host(narrow_flow, count, gated)
    assert await board.run(narrow_flow, width=5000, timeout=2 * SOON) == 5000


# -- large values -----------------------------------------------------------------------------


@workflow
async def large_flow() -> dict[str, Any]:
    """Large values passed on unread, alone, together, and inside of others."""
    first, second = large(1), large(2)
    both = measure([first.arg, second.arg, b"\x03small"])
    inside = pair_up(first.arg)
    mine = measure([b"\x05" + LARGE])
    return {
        "both": await both,
        "inside": len((await inside)["one"]),
        "mine": await mine,
        "raw": [len(bytes(first.raw)), len(first.blobs)],
        "value": len(await first),
    }


async def test_large_values_travel_by_reference(board: Board) -> None:
    """As arguments and as results, joined into other values, and read only by who needs them."""
    await board.host(large_flow, large, measure, pair_up)
    size = len(LARGE) + 1
    assert await board.run(large_flow) == {
        "both": [3, size + 1, size + 2, 6 + 3],
        "inside": size,
        "mine": [1, size + 5],
        "raw": [35, 1],
        "value": size,
    }
    stream = await board.stream("OBJ_cb_blobs")
    assert stream["bytes"] < 6 * size, "each different value is stored once"


@workflow
async def large_result_flow(size: int) -> dict[str, Any]:
    """Return a large value, part of it still to come."""
    return {"mine": b"x" * size, "theirs": large(7)}


async def test_a_large_result_of_a_run(board: Board) -> None:
    """The client gets it whole; so does one that asks later."""
    await board.host(large_result_flow, large)
    run = await board.submit(large_result_flow, size=100_000)
    for _ in range(2):
        client = await board.client()
        found = await client.result(run, SOON)
        assert found == {"mine": b"x" * 100_000, "theirs": b"\x07" + LARGE}


@workflow
async def large_argument_flow(data: bytes) -> int:
    """Take a large argument."""
    return len(data)


async def test_a_large_argument_of_a_run(board: Board) -> None:
    """A request's arguments travel by reference, too."""
    await board.host(large_argument_flow)
    assert await board.run(large_argument_flow, data=LARGE) == len(LARGE)


@workflow
async def too_large_flow(where: str) -> Any:
    """Exceed the largest size in an argument, or in a result."""
    if where == "argument":
        return await measure([b"x" * 60_000])
    if where == "result":
        return await large(0)
    return b"x" * 60_000


@pytest.mark.parametrize("where", ["argument", "result", "run"])
async def test_a_value_above_the_largest_size(board: Board, where: str) -> None:
    """A typed error with both sizes, wherever it comes up."""
    await board.host(too_large_flow, measure, large, value_limit=50_000, inline_limit=1000)
    with pytest.raises(RunFailed) as caught:
        await board.run(too_large_flow, where=where)
    error = caught.value.__cause__
    assert isinstance(error, ValueTooLarge)
    assert error.fields["limit"] == 50_000
    assert error.fields["size"] > 50_000


async def test_a_large_value_that_has_expired(board: Board) -> None:
    """Who needs it gets a typed error that says how long values are kept."""
    host = await board.host(large_argument_flow)
    host.node.blobs.get = _gone  # type: ignore[method-assign]
    with pytest.raises(RunFailed) as caught:
        await board.run(large_argument_flow, data=LARGE)
    assert isinstance(caught.value.__cause__, ValueMissing)


async def _gone(digest: str) -> bytes:
    raise ValueMissing("not there any more", digest=digest)


# -- failures ---------------------------------------------------------------------------------


@workflow
async def chain_flow() -> int:
    """Depend on what depends on what fails."""
    return await add(add(fail("deep").arg, gated(1).arg).arg)


async def test_a_failed_dependency_fails_its_dependents_with_the_chain(board: Board) -> None:
    """They are never called; the error names each step down to the remote cause and its cause."""
    GATE.set()
    await board.host(chain_flow, add, fail, gated)
    with pytest.raises(RunFailed) as caught:
        await board.run(chain_flow)
    chain: list[BaseException] = []
    error: BaseException | None = caught.value.__cause__
    while error is not None:
        chain.append(error)
        error = error.__cause__
    assert [type(one) for one in chain] == [DependencyFailed, DependencyFailed, Broken, KeyError]
    assert STARTED == []
    outer = chain[0]
    assert isinstance(outer, DependencyFailed)
    assert outer.fields["path"] == ["chain_flow", "add.call"]
    assert outer.fields["dependency"].endswith(":3")
    assert "add.call was not called: its argument add.call failed" in outer.message
    assert "fail.call failed: Broken: deep" in str(chain[1])


@workflow
async def wrong_type_flow() -> list[str]:
    """A value of the wrong type, small and large, comes to light when it is there."""
    small = add(text().arg)  # type: ignore[arg-type]
    big = measure(large(0).arg)  # type: ignore[arg-type]
    found = await asyncio.gather(small, big, return_exceptions=True)
    return [f"{type(one).__name__}: {one}" for one in found]


async def test_a_dependency_of_the_wrong_type(board: Board) -> None:
    """A typed error that names the argument; what cannot be checked before is checked by the host."""
    await board.host(wrong_type_flow, add, text, large, measure)
    small, big = await board.run(wrong_type_flow)
    assert small.startswith(f"{InvalidArguments.__name__}: add.call: Expected `int`, got `str`")
    assert big.startswith(f"{InvalidArguments.__name__}: measure.call")
    assert STARTED == []


@workflow
async def careless_flow() -> list[str]:
    """Make calls that are wrong in themselves."""
    wrong: Any = add
    found = []
    for args in (("1",), (), (1, 2, 3), (object(),), (gated(1), "x")):
        try:
            _ = wrong(*args)
        except InvalidArguments as error:
            found.append(error.message.split(":")[0])
    return found


async def test_wrong_arguments_are_refused_before_anything_is_sent(board: Board) -> None:
    """Where the call is made; no message leaves, beside that of the call that was right."""
    node = await board.node()
    sent: list[str] = []
    node.connection.subscribe("cb.call.>", lambda subject, *_: sent.append(subject.decode()))
    await node.connection.flush()
    GATE.set()
    await board.host(careless_flow, gated, add)
    assert await board.run(careless_flow) == ["add.call"] * 5
    await node.connection.flush()
    assert sent == ["cb.call.gated.any.1"]
    assert STARTED == []


# -- through agents ---------------------------------------------------------------------------


@workflow
async def through_flow() -> list[int]:
    """Futures that agents make and hand back, passed on to others."""
    passed = Middle.passes_on(1)
    depends = Middle.depends(passed.arg)
    return [await passed, await depends, await add(depends.arg, passed.arg)]


async def test_futures_of_another_agents_making(board: Board) -> None:
    """What an agent returns unresolved is a value to its caller, on another host, too."""
    await board.host(through_flow, add)
    await board.host(Middle)
    assert await board.run(through_flow) == [11, 52, 63]


@workflow
async def failing_later_flow() -> int:
    """Call what returns a future that fails."""
    return await Middle.fails_later()


async def test_a_returned_future_that_fails(board: Board) -> None:
    """Its own error is the outcome, as if the handler had raised it."""
    await board.host(failing_later_flow, Middle, fail)
    with pytest.raises(RunFailed) as caught:
        await board.run(failing_later_flow)
    assert isinstance(caught.value.__cause__, Broken)
    assert caught.value.__cause__.args == ("from below",)


@tool
async def raises_type_error() -> int:
    """Raise what also means that a value cannot travel."""
    raise TypeError("mine")


@tool
async def passes_type_error_on() -> int:
    """Give back what raises."""
    return raises_type_error()  # type: ignore[return-value]


@workflow
async def type_error_flow() -> list[Any]:
    """Return a future that fails with a ``TypeError``, and call what does."""
    found = await asyncio.gather(passes_type_error_on(), return_exceptions=True)
    return [type(found[0]).__name__, raises_type_error()]


async def test_a_returned_future_that_fails_with_a_type_error(board: Board) -> None:
    """It is not mistaken for a result that cannot travel."""
    await board.host(type_error_flow, raises_type_error, passes_type_error_on)
    client = await board.client()
    run = await client.submit(type_error_flow.name)
    with pytest.raises(RunFailed) as caught:
        await client.result(run, SOON)
    assert isinstance(caught.value.__cause__, TypeError)
    results = {result.call: result for result in await board.results(run)}
    assert results["passes_type_error_on.call"].error is not None
    assert results["passes_type_error_on.call"].error.type == "builtins:TypeError"


@workflow
async def deep_flow(level: int) -> int:
    """Call down to where it fails."""
    return await Middle.deep(level)


async def test_an_error_from_deep_below_tells_its_whole_path(board: Board) -> None:
    """Which call of which call, through all levels; each level passes it on as itself."""
    await board.host(deep_flow, Middle)
    worker = await board.host(fail)
    run = await board.submit(deep_flow, level=2)
    client = await board.client()
    with pytest.raises(RunFailed) as caught:
        await client.result(run, SOON)
    error = caught.value.__cause__
    assert isinstance(error, Broken)
    notes = "\n".join(error.__notes__)
    assert "workflow path: deep_flow > Middle.deep > Middle.deep > Middle.deep > fail.call" in notes
    assert "Broken: bottom" in notes
    innermost = next(r for r in await board.results(run) if r.call == "fail.call")
    assert (innermost.host, innermost.attempt, innermost.future) == (worker.id, 1, f"{run}:1.1.1.1")


class Foreign(Exception):
    """An error of a module that the driver has not loaded."""

    __module__ = "no.such.module"


@tool
async def fail_foreign() -> int:
    """Raise it."""
    raise Foreign("x")


@workflow
async def unknown_class_flow() -> list[Any]:
    """Meet an error whose class this side has not got."""
    found = (await asyncio.gather(fail_foreign(), return_exceptions=True))[0]
    assert isinstance(found, CallFailed)
    known = [found.fields[name] for name in ("actor", "method", "attempt", "remote_type", "path")]
    return [*known, str(found)]


async def test_an_error_of_a_class_that_the_driver_has_not_got(board: Board) -> None:
    """It comes as ``CallFailed``, which knows the call and what it was."""
    await board.host(unknown_class_flow, fail_foreign)
    *known, said = await board.run(unknown_class_flow)
    path = ["unknown_class_flow", "fail_foreign.call"]
    assert known == ["fail_foreign", "call", 1, "no.such.module:Foreign", path]
    assert said == "fail_foreign.call raised Foreign: x"


@workflow
async def cross_flow() -> int:
    """Wait for futures made elsewhere in the same code."""
    made: list[Future[int]] = []

    async def maker() -> None:
        made.append(gated(3))
        made.append(add(made[0].arg))

    await asyncio.create_task(maker())
    GATE.set()
    return await add(made[1].arg, made[0].arg)


async def test_futures_made_in_another_branch(board: Board) -> None:
    """A concurrent branch's futures are dependencies like any other."""
    await board.host(cross_flow, add, gated)
    assert await board.run(cross_flow) == 7
