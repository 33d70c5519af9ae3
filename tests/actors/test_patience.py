"""Time-outs by expected run times: only where another attempt follows, and only where much is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from tests.support.board import Board
from tests.support.waiting import SOON, until

from callboard import agent, batchable, tool, workflow
from callboard.actors.patience import ENOUGH
from callboard.infra import subjects
from callboard.infra.messages.runtimes import Curve, Line

GATE: asyncio.Event
ENTERED: list[str]
SOONER = {"timeout_least": 0.2}
WANTED = {**SOONER, "timeout_last": True}


async def _pass(name: str) -> str:
    ENTERED.append(name)
    await GATE.wait()
    return name


@tool
async def plain(name: str) -> str:
    """Wait for the gate."""
    return await _pass(name)


@tool(effect=True)
async def pay(name: str) -> str:
    """The same, once."""
    return await _pass(name)


@tool(timeout=600)
async def patient(name: str) -> str:
    """The same, with a time-out of its own."""
    return await _pass(name)


@tool
async def asks(name: str) -> str:
    """Call another one, which does not come back soon."""
    return await patient(name)


@agent
class Together:
    """The same for several at once."""

    @batchable(max_batch=2)
    async def wait(self, names: list[str]) -> list[str]:
        """All of them."""
        return [await _pass(name) for name in names]


@tool(idempotent=True, retries=1, backoff=0.01)
async def harmless(name: str) -> str:
    """Wait for the gate, but for the second attempt."""
    ENTERED.append(name)
    if len(ENTERED) != 2:
        await GATE.wait()
    return name


@tool(retries=1, retry_on=(Exception,))
async def harmful(name: str) -> str:
    """Wait for the gate."""
    return await _pass(name)


@tool(idempotent=True)
async def once(name: str) -> str:
    """Wait for the gate; there is one attempt."""
    return await _pass(name)


@workflow
async def call_together() -> str:
    """One call."""
    return await Together.wait("x")


@workflow
async def call_harmless() -> str:
    """One call."""
    return await harmless("x")


@workflow
async def call_harmful() -> str:
    """One call."""
    return await harmful("x")


@workflow
async def call_once() -> str:
    """One call."""
    return await once("x")


@workflow
async def call_plain() -> str:
    """One call."""
    return await plain("x")


@workflow
async def call_pay() -> str:
    """One call."""
    return await pay("x")


@workflow
async def call_asks() -> str:
    """One call."""
    return await asks("x")


@pytest.fixture(autouse=True)
async def anew() -> None:
    """Nothing has happened, and the gate is shut."""
    global GATE, ENTERED
    GATE, ENTERED = asyncio.Event(), []


def curve(call: str, count: int = ENOUGH, bits: range = range(33)) -> Curve:
    """All calls of a method have taken a microsecond."""
    return Curve(call, middle=1e-6, lines=[Line(size, -20.0, 0.0, count, 1e-6) for size in bits])


async def started(board: Board, known: list[Curve], **settings: Any) -> None:
    """A host that knows these curves."""
    node = await board.node()
    for one in known:
        subject = subjects.runtime_curve(*one.call.split("."))
        await node.store.stored(subject, msgspec.msgpack.encode(one))
    handlers = (plain, pay, patient, asks, harmful, harmless, once, Together)
    flows = (call_plain, call_pay, call_asks, call_harmful, call_harmless, call_once, call_together)
    host = await board.host(*handlers, *flows, **settings)
    await until(lambda: len(host.expectations) == len(known))


async def test_what_is_far_too_slow_is_stopped(board: Board) -> None:
    """Its caller gets a time-out that tells where it comes from."""
    await started(board, [curve("plain.call")], **WANTED)
    run = await board.submit(call_plain)
    done = await board.done(run)
    assert done.status == "failed"
    assert done.error is not None
    assert done.error.code == "call_timeout"
    assert "timeout_factor" in done.error.message


async def test_what_was_stopped_is_tried_again_only_if_that_does_no_harm(board: Board) -> None:
    """As after a time-out of its own."""
    await started(board, [curve("plain.call"), curve("harmless.call")], **WANTED)
    failed = await board.done(await board.submit(call_plain))
    assert failed.error is not None
    assert (failed.error.code, ENTERED) == ("call_timeout", ["x"])
    ENTERED.clear()
    assert await board.run(call_harmless) == "x"
    assert ENTERED == ["x", "x"]


async def test_an_attempt_that_another_follows_is_stopped_by_default(board: Board) -> None:
    """It hangs where the next one does not."""
    await started(board, [curve("harmless.call")], **SOONER)
    assert await board.run(call_harmless) == "x"
    assert ENTERED == ["x", "x"]


async def test_what_has_a_deadline_is_not_stopped(board: Board, nothing_stops: Awaiter) -> None:
    """There would be less time for what begins anew."""
    await started(board, [curve("harmless.call")], **SOONER)
    client = await board.client()
    run = await client.submit("call_harmless", deadline=SOON)
    await nothing_stops()
    GATE.set()
    assert await client.result(run) == "x"
    assert ENTERED == ["x"]


async def test_the_last_attempt_takes_as_long_as_it_takes(board: Board, nothing_stops: Awaiter) -> None:
    """What is stopped for being slow fails no call."""
    ENTERED.extend(["one", "two"])
    await started(board, [curve("harmless.call")], **SOONER)
    run = await board.submit(call_harmless)
    await until(lambda: ENTERED == ["one", "two", "x", "x"])
    await nothing_stops()
    GATE.set()
    assert bytes((await board.done(run)).value) == msgspec.msgpack.encode("x")
    assert len(ENTERED) == 4


Known = Callable[[], list[Curve]]


@pytest.mark.parametrize(
    ("flow", "known", "settings"),
    [
        pytest.param(call_plain, lambda: [curve("plain.call")], SOONER, id="fails"),
        pytest.param(call_harmful, lambda: [curve("harmful.call")], SOONER, id="does_harm"),
        pytest.param(call_once, lambda: [curve("once.call")], SOONER, id="has_one_attempt"),
        pytest.param(
            call_harmless, lambda: [curve("harmless.call")], {**SOONER, "timeout_factor": 0}, id="not_wanted"
        ),
        pytest.param(
            call_plain, lambda: [curve("plain.call")], {**WANTED, "timeout_least": 600}, id="too_early"
        ),
        pytest.param(call_plain, lambda: [curve("plain.call", ENOUGH - 1)], WANTED, id="too_few"),
        pytest.param(call_plain, lambda: [curve("plain.call", bits=range(20, 33))], WANTED, id="other_sizes"),
        pytest.param(call_plain, list, WANTED, id="unknown"),
        pytest.param(call_pay, lambda: [curve("pay.call")], WANTED, id="an_effect"),
        pytest.param(call_together, lambda: [curve("Together.wait")], WANTED, id="a_batch"),
        pytest.param(call_asks, lambda: [curve("asks.call"), curve("patient.call")], WANTED, id="waits"),
    ],
)
async def test_what_is_not_stopped(
    board: Board, flow: Any, known: Known, settings: dict[str, float], nothing_stops: Awaiter
) -> None:
    """It goes on until it has its outcome."""
    await started(board, known(), **settings)
    run = await board.submit(flow)
    await nothing_stops()
    GATE.set()
    assert bytes((await board.done(run)).value) == msgspec.msgpack.encode("x")


Awaiter = Callable[[], Awaitable[None]]


@pytest.fixture
def nothing_stops() -> Awaiter:
    """Wait until the handler runs, and for longer than it would be given."""

    async def wait() -> None:
        await until(lambda: "x" in ENTERED)
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        loop.call_later(3 * SOONER["timeout_least"], over.set_result, None)
        await over

    return wait
