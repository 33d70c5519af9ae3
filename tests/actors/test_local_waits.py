"""Waits are the same with a board and without: futures that count from the call, or the same error."""

from __future__ import annotations

import asyncio
import builtins
import math
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from tests.support.board import Board
from tests.support.waiting import SOON

import callboard
from callboard import human, tool, workflow
from callboard.actors import local_waits
from callboard.actors.declared import Workflow
from callboard.infra.errors import InvalidResult, WaitInvalid

LONG = 3600.0
SHORT = 0.05

Ran = Callable[[Workflow[Any, Any], Any], Awaitable[Any]]


@tool
async def given(value: Any) -> Any:
    """Give back what it is given."""
    return value


@workflow
async def raced() -> list[int]:
    """The faster of two, by `asyncio.wait`; the other one is cancelled."""
    waits: list[Any] = [callboard.sleep(SHORT), callboard.sleep(LONG)]
    done, left = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    found = [waits.index(one) for one in done]
    assert [one.cancel() for one in left] == [True]
    return found + [waits.index(one) for one in waits if one.cancelled()]


@workflow
async def used() -> list[Any]:
    """In all the ways in which a future is."""
    cancelled: Any = callboard.sleep(LONG)
    cancelled.cancel()
    told: list[Any] = list(await asyncio.gather(callboard.sleep(SHORT), cancelled, return_exceptions=True))
    shielded: Any = asyncio.shield(callboard.until(datetime.now(UTC) + timedelta(seconds=SHORT)))
    late: Any = callboard.sleep(LONG)
    try:
        async with asyncio.timeout(SHORT):
            await late
    except TimeoutError:
        told.append(late.cancelled())
    passed_on = await given(callboard.sleep(SHORT))
    return [told[0], type(told[1]).__name__, told[2], await shielded, passed_on]


@workflow
async def left_behind() -> str:
    """End while something is waited for."""
    LEFT.append(callboard.sleep(LONG))
    return "done"


LEFT: list[Any] = []


@workflow
async def counted() -> bool:
    """Whether a sleep of which a part is over is over before a shorter one that begins then."""
    begun: Any = callboard.sleep(0.4)
    await asyncio.sleep(0.3)
    later: Any = callboard.sleep(0.2)
    over, _ = await asyncio.wait([begun, later], return_when=asyncio.FIRST_COMPLETED)
    return begun in over


@workflow
def plain() -> list[Any]:
    """In plain code a wait is over when it returns."""
    began = time.monotonic()
    told: list[Any] = [callboard.sleep(SHORT), callboard.until(datetime.now(UTC) + timedelta(seconds=SHORT))]
    return [*told, time.monotonic() - began >= 2 * SHORT]


UNSOUND: dict[str, Callable[[], Awaitable[Any]]] = {
    "sleep nan": lambda: callboard.sleep(math.nan),
    "sleep inf": lambda: callboard.sleep(math.inf),
    "sleep -inf": lambda: callboard.sleep(-math.inf),
    "sleep huge": lambda: callboard.sleep(10**5000),
    "sleep long": lambda: callboard.sleep(1e12),
    "sleep text": lambda: callboard.sleep("1"),  # type: ignore[arg-type]
    "sleep nothing": lambda: callboard.sleep(None),  # type: ignore[arg-type]
    "until naive": lambda: callboard.until(datetime(2024, 1, 1)),  # noqa: DTZ001 - it is to be refused
    "until a day": lambda: callboard.until(date(2024, 1, 1)),  # type: ignore[arg-type]
    "until a number": lambda: callboard.until(1.0),  # type: ignore[arg-type]
    "until the end": lambda: callboard.until(datetime.max.replace(tzinfo=UTC)),
    "signal nan": lambda: callboard.signal("x", timeout=math.nan),
    "signal inf": lambda: callboard.signal("x", timeout=math.inf),
    "signal text": lambda: callboard.signal("x", timeout="1"),  # type: ignore[arg-type]
    "signal number": lambda: callboard.signal(5, timeout=1),  # type: ignore[arg-type]
}
OVER: dict[str, Callable[[], Awaitable[Any]]] = {
    "sleep 0": lambda: callboard.sleep(0),
    "sleep -1": lambda: callboard.sleep(-1),
    "sleep long ago": lambda: callboard.sleep(-1e300),
    "until yesterday": lambda: callboard.until(datetime.now(UTC) - timedelta(days=1)),
    "until 1970": lambda: callboard.until(datetime(1970, 1, 1, tzinfo=UTC)),
    "until 1": lambda: callboard.until(datetime(1, 1, 1, tzinfo=UTC)),
    "until before 1": lambda: callboard.until(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=5)))),
}


@workflow
async def waiting(what: str) -> str:
    """Wait for something unsound."""
    try:
        await {**UNSOUND, **OVER}[what]()
    except WaitInvalid as error:
        return error.message
    return "over"


@workflow
def waiting_plainly(what: str) -> str:
    """The same in a thread."""
    try:
        _ = {**UNSOUND, **OVER}[what]()
    except WaitInvalid as error:
        return error.message
    return "over"


@pytest.fixture(params=["board", "local"])
def ran(request: pytest.FixtureRequest) -> Ran:
    """Runs a workflow, on a board or without one."""
    if request.param == "local":
        return lambda flow, arguments: asyncio.to_thread(flow.run_local, **arguments)
    board: Board = request.getfixturevalue("board")

    async def on_board(flow: Workflow[Any, Any], arguments: Any) -> Any:
        await board.host(flow, given)
        return await board.run(flow, **arguments)

    return on_board


async def test_a_wait_is_a_future(ran: Ran) -> None:
    """It can be raced, gathered, shielded, given a time-out, cancelled, and passed on."""
    assert await ran(raced, {}) == [0, 1]
    assert await ran(used, {}) == [None, "CancelledError", True, None, None]


async def test_a_wait_counts_from_its_call(ran: Ran) -> None:
    """Not from where it is awaited."""
    assert await ran(counted, {})


async def test_waits_in_plain_code(ran: Ran) -> None:
    """They hold up their thread, and give nothing."""
    assert await ran(plain, {}) == [None, None, True]


@pytest.mark.parametrize("flow", [waiting, waiting_plainly])
async def test_what_is_no_time_is_refused(ran: Ran, flow: Workflow[Any, Any]) -> None:
    """With one error for all of it, that says what to give."""
    told = {what: await ran(flow, {"what": what}) for what in UNSOUND}
    assert told["sleep nan"] == "sleep takes seconds, which nan is not: give a finite number"
    assert told["sleep text"] == "sleep takes seconds, which '1' is not: give a finite number"
    assert told["until naive"].endswith("has no time zone: use datetime.now(UTC) and the like")
    assert told["sleep long"].endswith("is more than a hundred years: give less")
    assert told["signal nan"].startswith("the timeout of signal('x') takes seconds")
    assert [what for what, message in told.items() if message == "over"] == []


@pytest.mark.parametrize("flow", [waiting, waiting_plainly])
async def test_a_time_that_has_passed_is_over_at_once(ran: Ran, flow: Workflow[Any, Any]) -> None:
    """However long ago it was."""
    assert {what: await ran(flow, {"what": what}) for what in OVER} == dict.fromkeys(OVER, "over")


async def test_waits_outside_of_any_run() -> None:
    """The same futures."""
    waits: list[Any] = [callboard.sleep(0), callboard.sleep(LONG)]
    done, left = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    assert (done, left) == ({waits[0]}, {waits[1]})
    waits[1].cancel()


TAKEN_BACK = threading.Event()


@workflow
async def asking() -> list[Any]:
    """Two questions at once, of which one answer is passed on; and one that is taken back before it is put."""
    first, second, third = (human.ask(name, schema=int) for name in ("first?", "second?", "third?"))
    third.cancel()  # type: ignore[attr-defined]
    await asyncio.wait([third])  # type: ignore[type-var]
    TAKEN_BACK.set()
    return [await given(first), await second]


async def test_a_question_on_a_terminal_is_a_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one at a time, asked again until the answer fits."""
    TAKEN_BACK.clear()
    lines = iter(["one", "1", "2"])
    asked: list[str] = []

    def answer(prompt: str) -> str:
        TAKEN_BACK.wait(SOON)
        asked.append(prompt)
        return next(lines)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(builtins, "input", answer)
    assert await asyncio.to_thread(asking.run_local) == [1, 2]
    assert [prompt.splitlines()[-1] for prompt in asked] == ["first? ", "first? ", "second? "]


async def test_an_answer_on_a_terminal_that_cannot_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a number of thirty digits."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(builtins, "input", lambda prompt: "1" * 30)
    with pytest.raises(InvalidResult, match="cannot travel"):
        await human.ask("how many?", schema=int)


async def test_the_end_of_a_local_run_ends_its_waits() -> None:
    """Nothing goes on behind it."""
    LEFT.clear()
    assert await left_behind() == "done"
    assert [one.cancelled() for one in LEFT] == [True]


async def test_plain_code_that_is_called_on_an_event_loop_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has nothing to await with."""
    paused: list[float] = []
    monkeypatch.setattr(local_waits, "pause", paused.append)
    plain()
    first, second = paused
    assert first == SHORT >= second
