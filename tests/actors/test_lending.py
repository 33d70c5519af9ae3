"""Lending: a handler that waits for calls of its own keeps nobody from running."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from tests.support.board import Board, instance
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import agent, batchable, method, tool, workflow
from callboard.infra.errors import NestedTooDeep, ResultTimeout

DEEP = 40


@tool(concurrency=1)
async def awaits(depth: int) -> int:
    """Call itself, deeper than there are slots."""
    return 0 if depth == 0 else 1 + await awaits(depth - 1)


@tool(concurrency=2)
async def gathers(depth: int) -> int:
    """The same, two at a time."""
    if depth == 0:
        return 1
    return sum(await asyncio.gather(gathers(depth - 1), gathers(depth - 1)))


@tool(concurrency=1)
async def waits(depth: int) -> int:
    """The same with ``wait``, again and again."""
    if depth == 0:
        return 0
    call = waits(depth - 1)
    while not call.done():
        await asyncio.wait([call], timeout=0.001)
    return 1 + call.result()


@tool(concurrency=1)
async def completes(depth: int) -> int:
    """The same with ``as_completed``, in a branch."""

    async def one() -> int:
        for call in asyncio.as_completed([completes(depth - 1)]):
            return 1 + await call
        raise AssertionError

    return await asyncio.create_task(one()) if depth else 0


@tool(concurrency=1)
async def returns(depth: int) -> list[Any]:
    """The same by returning the call itself."""
    return [returns(depth - 1).arg] if depth else []


@tool(concurrency=1)
async def passes(depth: int) -> int:
    """The same with a call that waits for another."""
    return await plus(passes(depth - 1).arg, 1) if depth else 0


@tool(concurrency=1)
async def plus(first: int, second: int) -> int:
    """Add."""
    return first + second


@tool(concurrency=1)
def blocks(depth: int) -> int:
    """The same in a thread, where touching the value waits."""
    return 1 + blocks(depth - 1) if depth else 0  # type: ignore[operator]


@tool(concurrency=1)
def asks(depth: int) -> int:
    """The same in a thread, where ``value`` waits, now and then not long enough: it runs in between."""
    if depth == 0:
        return 0
    call = asks(depth - 1)
    while not call.available():
        try:
            return 1 + call.value(timeout=0.02)
        except ResultTimeout:
            continue
    return 1 + call.value()


@agent(concurrency=1)
class Batches:
    """A batchable method that calls itself."""

    @batchable(max_batch=4, max_wait=0.0)
    async def down(self, depths: list[int]) -> list[int]:
        """One call for each."""
        return [1 + await Batches.down(depth - 1) if depth else 0 for depth in depths]


@workflow
async def recursive(which: str, depth: int) -> Any:
    """Call one of them."""
    kinds = (awaits, gathers, waits, completes, returns, passes, blocks, asks)
    made: dict[str, Any] = {kind.name: kind for kind in kinds} | {"batches": Batches.down}
    return await made[which](depth)


@pytest.mark.parametrize("which", ["awaits", "waits", "completes", "passes", "blocks", "asks", "batches"])
async def test_calls_go_deeper_than_there_are_slots(board: Board, which: str) -> None:
    """However the handler waits; afterwards all slots are there again."""
    things = (awaits, waits, completes, passes, plus, blocks, asks, Batches)
    host = await board.host(*things, recursive)
    depth = 5 if which == "asks" else DEEP  # who looks again and again has a slot each time
    assert await board.run(recursive, which=which, depth=depth) == depth
    for thing in things:
        await until(lambda thing=thing: instance(host, thing).slots.busy == 0)  # type: ignore[misc]
        await until(lambda thing=thing: not instance(host, thing).running)  # type: ignore[misc]


async def test_a_tree_deeper_than_there_are_slots(board: Board) -> None:
    """Many wait at once."""
    host = await board.host(gathers, recursive)
    assert await board.run(recursive, which="gathers", depth=7) == 2**7
    await until(lambda: instance(host, gathers).slots.busy == 0)


TAKEN: list[str] = []


@tool(concurrency=1)
async def tree(name: str, depth: int) -> int:
    """Two below each, down to the leaves."""
    TAKEN.append(name)
    if depth == 0:
        return 1
    return sum(await asyncio.gather(tree(f"{name}0", depth - 1), tree(f"{name}1", depth - 1)))


@workflow
async def tree_flow(depth: int) -> int:
    """All of it."""
    return await tree("", depth)


async def test_calls_are_taken_in_the_order_in_which_they_were_made(board: Board) -> None:
    """So a wide recursion is under way as a whole before its first leaf is reached."""
    TAKEN.clear()
    await board.host(tree, tree_flow)
    assert await board.run(tree_flow, depth=4) == 2**4
    assert [len(name) for name in TAKEN] == [depth for depth in range(5) for _ in range(2**depth)]


async def test_a_call_that_is_returned_is_waited_for_without_a_slot(board: Board) -> None:
    """The handler has ended; its outcome has not come."""
    await board.host(returns, recursive)
    nested: list[Any] = []
    for _ in range(5):
        nested = [nested]
    assert await board.run(recursive, which="returns", depth=5) == nested


# -- who lends, and when --------------------------------------------------------------------------

GATE = Gate()
LOG: list[str] = anew([])


@tool(concurrency=1)
async def inner(name: str) -> str:
    """Wait for the gate."""
    LOG.append(f"inner {name}")
    await GATE.wait()
    return name


@agent(concurrency=1)
class Outer:
    """One slot."""

    @method
    async def computes(self, name: str) -> str:
        """Make a call, do something else, and only then wait for the call."""
        call = inner(name)
        LOG.append(f"computes {name}")
        await until(lambda: f"go on {name}" in LOG)
        LOG.append(f"waits {name}")
        found = await call
        LOG.append(f"has {name}")
        await until(lambda: f"end {name}" in LOG)
        return found

    @method
    async def quits(self, name: str) -> list[str]:
        """End while it waits for a call."""
        return list(await asyncio.gather(inner(name), self._fail(name)))

    async def _fail(self, name: str) -> str:
        await until(lambda: f"inner {name}" in LOG)
        raise ValueError(name)

    @method
    async def quick(self, name: str) -> str:
        """Need a slot for a moment."""
        LOG.append(f"quick {name}")
        return name

    @method
    def in_thread(self, name: str) -> str:
        """Make a call in a thread and compute."""
        call: Any = inner(name)
        call.add_done_callback(lambda _: LOG.append(f"told {name}"))
        LOG.append(f"computes {name}")
        OPEN.wait(SOON)
        return str(call.value())


OPEN = threading.Event()


@workflow
async def outer(which: str, name: str) -> str:
    """Call one of them."""
    methods: dict[str, Any] = {
        "computes": Outer.computes,
        "quick": Outer.quick,
        "quits": Outer.quits,
        "in_thread": Outer.in_thread,
    }
    return await methods[which](name)  # type: ignore[no-any-return]


async def test_a_slot_is_lent_only_while_the_handler_waits(board: Board) -> None:
    """Not while it does something else; and when it goes on nothing starts beside it."""
    host = await board.host(Outer, inner, outer)
    slots = instance(host, Outer).slots
    first = await board.submit(outer, which="computes", name="a")
    await until(lambda: {"computes a", "inner a"} <= set(LOG))
    second = await board.submit(outer, which="computes", name="b")
    third = await board.submit(outer, which="quick", name="c")
    assert slots.busy == 1
    LOG.append("go on a")
    await until(lambda: "computes b" in LOG)  # in the slot that the first one lends
    assert (slots.busy, slots.free) == (1, 0)
    GATE.set()
    await until(lambda: "has a" in LOG)  # goes on at once, beside the second
    assert (slots.busy, slots.free) == (2, -1)
    LOG.append("end a")
    assert (await board.done(first)).status == "completed"
    assert "quick c" not in LOG
    LOG.extend(["go on b", "end b"])
    for run in (second, third):
        assert (await board.done(run)).status == "completed"
    await until(lambda: slots.busy == 0)


async def test_a_thread_that_computes_does_not_lend(board: Board) -> None:
    """To be called back is not to wait."""
    OPEN.clear()
    host = await board.host(Outer, inner, outer)
    first = await board.submit(outer, which="in_thread", name="a")
    await until(lambda: {"computes a", "inner a"} <= set(LOG))
    second = await board.submit(outer, which="quick", name="b")
    await until(lambda: instance(host, Outer).slots.busy == 1)
    OPEN.set()
    assert (await board.done(second)).status == "completed"  # while the first one waits
    GATE.set()
    assert (await board.done(first)).status == "completed"
    assert "told a" in LOG


async def test_a_handler_that_ends_while_it_lends_leaves_its_slot_in_order(board: Board) -> None:
    """One of its branches has failed; the call that another one waits for is cancelled."""
    host = await board.host(Outer, inner, outer)
    for name in "ab":
        run = await board.submit(outer, which="quits", name=name)
        assert (await board.done(run)).status == "failed"
        await until(lambda: not instance(host, inner).running)
        assert instance(host, Outer).slots.busy == 0


async def test_what_is_cancelled_while_it_lends_leaves_its_slot_in_order(board: Board) -> None:
    """Its slot is neither lost nor counted twice."""
    host = await board.host(Outer, inner, outer)
    run = await board.submit(outer, which="computes", name="a")
    LOG.append("go on a")
    await until(lambda: {"waits a", "inner a"} <= set(LOG))
    slots = instance(host, Outer).slots
    await until(lambda: slots.busy == 0)
    await (await board.client()).cancel(run, "enough")
    assert (await board.done(run)).status == "cancelled"
    await until(lambda: not instance(host, Outer).running)
    assert slots.busy == 0
    assert await board.run(outer, which="quick", name="b") == "b"
    assert slots.busy == 0


# -- how deep -------------------------------------------------------------------------------------


@tool
async def endless(depth: int) -> int:
    """Never come to an end."""
    return await endless(depth + 1)


@workflow
async def endless_flow() -> int:
    """Call it."""
    return await endless(0)


async def test_endless_recursion_ends_with_an_error(board: Board) -> None:
    """When an id cannot get longer; it is not retried, and nothing is left behind."""
    host = await board.host(endless, endless_flow)
    run = await board.submit(endless_flow)
    done = await board.done(run, 60)
    assert done.error is not None
    assert (done.error.code, done.status) == (NestedTooDeep.code, "failed")
    assert done.error.fields["depth"] > 1000
    await board.emptied("CALLS")
    assert instance(host, endless).slots.busy == 0


@workflow
async def blocks_flow(depth: int) -> list[str]:
    """Call it twice."""
    found = [await asyncio.gather(blocks(depth), return_exceptions=True) for _ in range(2)]
    return [str(one) for one in found]


async def test_a_system_without_more_threads_fails_the_call(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an error that says what to do; the handler does not run later after all."""
    start = threading.Thread.start

    def refuse_others(thread: threading.Thread) -> None:
        if thread.name.startswith("callboard-blocks") and thread.name != "callboard-blocks_0":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_others)
    host = await board.host(blocks, blocks_flow)
    failed, after = await board.run(blocks_flow, depth=1)
    assert "blocks could not be started: can't start new thread" in failed
    assert "make it async" in failed
    assert "could not be started" in after
    assert await board.run(blocks_flow, depth=0) == ["[0]", "[0]"]
    assert instance(host, blocks).slots.busy == 0
