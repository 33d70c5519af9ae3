"""A driver dies: another goes on from the journal, and nothing that was done is done again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.support.board import Board
from tests.support.waiting import SOON, eventually, until

import callboard
from callboard import agent, method, tool, workflow
from callboard.actors import caller, maker
from callboard.actors.declared import Workflow
from callboard.actors.host import Host
from callboard.actors.node import Node
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import Diverged, Fenced, RunFailed
from callboard.infra.messages.control import Taken
from callboard.infra.messages.registry import Takeover
from callboard.infra.messages.run import Owner, RunSummary
from callboard.infra.store import OnStored
from callboard.state.journal import decode_owner

RAN: Counter[str] = Counter()
GATES: dict[str, asyncio.Event] = {}
SEEN: list[Any] = []
"""What the workflow has seen, once for each time that it ran from the top."""


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run, all gates are shut."""
    RAN.clear()
    GATES.clear()
    SEEN.clear()


def gate(name: str) -> asyncio.Event:
    """The gate of this name."""
    return GATES.setdefault(name, asyncio.Event())


@tool
async def step(name: str) -> str:
    """Count how often it ran."""
    RAN[name] += 1
    return name


@tool
async def gated(name: str) -> str:
    """Wait for its gate."""
    RAN[name] += 1
    await gate(name).wait()
    return name


@tool
async def large(name: str) -> bytes:
    """A large value."""
    RAN[name] += 1
    return name.encode() * 40_000


@tool
async def length(data: bytes) -> int:
    """Take a large one."""
    RAN[f"length {len(data)}"] += 1
    return len(data)


@tool
async def fail(name: str) -> str:
    """Raise."""
    RAN[name] += 1
    raise ValueError(name)


@agent
class Nester:
    """Calls others."""

    @method
    async def deep(self, name: str) -> str:
        """A call that waits, below one that is done."""
        RAN[name] += 1
        await step(f"{name}.done")
        return await gated(f"{name}.waits")


async def takes_over(
    board: Board,
    flow: Workflow[Any, Any],
    waiting_at: str,
    *gates: str,
    times: int = 1,
    gone_on: Callable[[int], bool] = bool,
) -> tuple[str, Any]:
    """Kill the driver when the run waits at a gate, so many times; then open the gates.

    Args:
        gone_on: whether the last of so many drivers has come far enough to be killed.

    Gives the run's id and its outcome.
    """
    await board.host(step, gated, large, length, fail, Nester)
    driver = await board.host(flow)
    run = await board.submit(flow)
    await until(lambda: RAN[waiting_at] == 1)
    for number in range(times):
        await board.kill(driver)
        driver = await board.host(flow)
        await board.entries(run, "owner", count=number + 2)
        await until(partial(gone_on, number + 2))
    for name in gates or (waiting_at,):
        gate(name).set()
    return run, await board.done(run)


def value_of(done: Any) -> Any:
    """The value of a run that has completed."""
    assert done.status == "completed", done.error
    return msgspec.msgpack.decode(done.value)


# -- what was done is not done again ----------------------------------------------------------------------


@workflow
async def steps_flow() -> list[Any]:
    """Steps in turn and side by side, an error that is handled, and one that waits."""
    found: list[Any] = [await step("one")]
    found += await asyncio.gather(step("two"), step("three"))
    try:
        await fail("four")
    except ValueError as error:
        found.append(f"{error} caught")
    found.append(await gated("five"))
    found.append(await step("six"))
    return found


@workflow
def sync_steps_flow() -> list[Any]:
    """The same in plain code."""
    found: list[Any] = [str(step("one"))]
    found += [str(one) for one in (step("two"), step("three"))]
    try:
        str(fail("four"))
    except ValueError as error:
        found.append(f"{error} caught")
    found.append(str(gated("five")))
    found.append(str(step("six")))
    return found


@pytest.mark.parametrize("flow", [steps_flow, sync_steps_flow], ids=["async", "sync"])
@pytest.mark.parametrize("times", [1, 3])
async def test_finished_calls_are_not_run_again(board: Board, flow: Workflow[Any, Any], times: int) -> None:
    """However often its driver dies: each step ran once, and the result is what it would have been."""
    run, done = await takes_over(board, flow, "five", times=times)
    assert value_of(done) == ["one", "two", "three", "four caught", "five", "six"]
    assert dict.fromkeys(("one", "two", "three", "four", "five", "six"), 1) == RAN
    assert done.epoch == times + 1
    owners = [decode_owner(entry.body) for entry in await board.entries(run, "owner")]
    assert [owner.epoch for owner in owners] == list(range(1, times + 2))
    assert len({owner.driver for owner in owners}) == times + 1


@workflow
async def nested_flow() -> str:
    """A call that has calls of its own."""
    return await Nester.deep("nested")


async def test_calls_of_calls_go_on_meanwhile(board: Board) -> None:
    """The driver's death concerns neither the agent nor what it has called."""
    _, done = await takes_over(board, nested_flow, "nested.waits")
    assert value_of(done) == "nested.waits"
    assert RAN == {"nested": 1, "nested.done": 1, "nested.waits": 1}


@workflow
async def large_flow() -> list[int]:
    """Large arguments and results before and after the death."""
    mine = await length(b"m" * 100_000)
    theirs = await length(large("x").arg)
    await gated("gate")
    again = await length(b"n" * 100_001)
    after = await step("after")
    return [mine, theirs, again, len(after)]


async def test_large_values_do_not_shift_the_places_of_calls(board: Board) -> None:
    """Storing a large value takes a moment on the side; ids must not depend on whether it had to be done."""
    run, done = await takes_over(board, large_flow, "gate")
    assert value_of(done) == [100_000, 40_000, 100_001, 5]
    assert set(RAN.values()) == {1}
    assert [result.future for result in await board.results(run)] == [f"{run}:{n}" for n in range(1, 7)]


@workflow
async def returning_flow() -> dict[str, Any]:
    """Give back futures of which one is done when the driver dies, and one is not."""
    return {"done": step("one"), "waits": gated("two"), "both": [step("three"), gated("two more")]}


async def test_a_result_with_futures_that_were_done_before(board: Board) -> None:
    """They were made again at the same places: that is no change of the code."""
    _, done = await takes_over(board, returning_flow, "two", "two", "two more")
    assert value_of(done) == {"done": "one", "waits": "two", "both": ["three", "two more"]}
    assert set(RAN.values()) == {1}


@workflow
async def careless_flow() -> str:
    """Make calls that nobody awaits."""
    _ = step("unseen")
    _ = fail("unseen error")
    return await gated("gate")


async def test_calls_that_nobody_awaits(board: Board) -> None:
    """Their results on record do not disturb."""
    _, done = await takes_over(board, careless_flow, "gate")
    assert value_of(done) == "gate"
    assert set(RAN.values()) == {1}


@workflow
async def race_flow() -> list[str]:
    """Take a way that depends on which of two comes first."""
    first, second = gated("slow"), gated("quick")
    done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    winner = next(iter(done)).result()
    after = await step(f"{winner} won")
    held = await gated("gate")
    return [winner, after, held, *sorted(await asyncio.gather(first, second))]


async def test_who_came_first_comes_first_again(board: Board) -> None:
    """The journal's order decides, so that code which depends on it takes the same way."""
    gate("quick").set()

    async def both() -> tuple[str, Any]:
        return await takes_over(board, race_flow, "gate", "gate", "slow")

    _, done = await both()
    assert value_of(done) == ["quick", "quick won", "gate", "quick", "slow"]
    assert RAN["quick won"] == 1
    assert RAN["slow won"] == 0


@workflow
async def completed_flow() -> list[str]:
    """Take a step for each of several calls as they come."""
    found: list[str] = []
    for one in asyncio.as_completed([gated(name) for name in "abc"]):
        found.append(await step(f"{await one} {len(found)}"))
    return [*found, await gated("gate")]


async def test_as_completed_gives_the_same_order_again(board: Board) -> None:
    """That of the journal: each step finds the one that it came after."""
    await board.host(step, gated)
    driver = await board.host(completed_flow)
    run = await board.submit(completed_flow)
    for number, name in enumerate("cab"):
        await until(lambda name=name: RAN[name] == 1)  # type: ignore[misc]
        gate(name).set()
        await until(lambda name=name, number=number: RAN[f"{name} {number}"] == 1)  # type: ignore[misc]
    await until(lambda: RAN["gate"] == 1)
    await board.kill(driver)
    await board.host(completed_flow)
    gate("gate").set()
    assert value_of(await board.done(run)) == ["c 0", "a 1", "b 2", "gate"]
    assert set(RAN.values()) == {1}


@workflow
async def branches_flow() -> list[str]:
    """Concurrent branches whose calls finish in another order than they were made."""

    async def branch(name: str) -> str:
        await gated(f"{name}.1")
        await step(f"{name}.2")
        return await gated(f"{name}.3")

    return await asyncio.gather(*(branch(name) for name in "abc"))


async def test_concurrent_branches_find_their_own_results(board: Board) -> None:
    """Whatever order their calls ended in."""
    await board.host(step, gated)
    driver = await board.host(branches_flow)
    run = await board.submit(branches_flow)
    await until(lambda: RAN["c.1"] == 1)
    for name in ("c", "a"):
        gate(f"{name}.1").set()
        await until(lambda name=name: RAN[f"{name}.3"] == 1)  # type: ignore[misc]
    await board.kill(driver)
    await board.host(branches_flow)
    await board.entries(run, "owner", count=2)
    for name in ("a.3", "b.1", "b.3", "c.3"):
        gate(name).set()
    assert value_of(await board.done(run)) == ["a.3", "b.3", "c.3"]
    assert set(RAN.values()) == {1}


# -- time, random numbers, uuids --------------------------------------------------------------------------------


def _draw() -> list[Any]:
    return [
        callboard.now().isoformat(),
        callboard.random().random(),
        callboard.random().randrange(10**9),
        str(callboard.uuid()),
    ]


@workflow
async def drawing_flow() -> list[Any]:
    """Draw before the death and after it, in branches too."""

    async def branch() -> list[Any]:
        return _draw()

    drawn = [_draw(), *await asyncio.gather(branch(), branch())]
    SEEN.append(drawn)
    await gated("gate")
    later = _draw()
    SEEN[-1].append(later)
    await step("after")
    return drawn


@workflow
def sync_drawing_flow() -> list[Any]:
    """The same in plain code."""
    drawn = [_draw(), _draw()]
    SEEN.append(drawn)
    str(gated("gate"))
    drawn.append(_draw())
    str(step("after"))
    return drawn


@pytest.mark.parametrize("flow", [drawing_flow, sync_drawing_flow], ids=["async", "sync"])
async def test_time_and_random_numbers_replay_identically(board: Board, flow: Workflow[Any, Any]) -> None:
    """What was drawn before the death is drawn again; what is drawn for the first time is new."""
    _, done = await takes_over(board, flow, "gate", times=2, gone_on=lambda count: len(SEEN) == count)
    found = value_of(done)
    first, *others = SEEN
    assert len(others) == 2
    for one in others:
        assert one[: len(first)] == first
    assert found == SEEN[-1]
    flat = [item for drawn in found for item in drawn]
    assert len(set(flat)) == len(flat)


# -- who owns a run -------------------------------------------------------------------------------------------


async def test_a_driver_that_was_only_cut_off_is_fenced(board: Board) -> None:
    """It is alive, and does not know that another has taken over: nothing that it writes counts."""
    await board.host(step, gated, fail)
    first = await board.host(steps_flow)
    run = await board.submit(steps_flow)
    await until(lambda: RAN["five"] == 1)
    node = await board.node()
    (entry,) = await board.entries(run, "owner")
    known = decode_owner(entry.body)
    usurper = Owner(driver="h-other", epoch=2, request=known.request, workflow=known.workflow)
    with capture_logs() as logs:
        lease = await node.journal.take(run, usurper, entry.sequence)
        _tell_taken(node, known.driver, run)
        await until(lambda: "fenced" in [log["event"] for log in logs])
        driver = next(m for m in first._members if m.name == "steps_flow")
        await until(lambda: driver.info().busy == 0)
    gate("five").set()
    await board.entries(run, "result", count=5)
    assert await node.journal.done(run) is None
    assert await node.journal.owner(run) == (lease.owner, lease.sequence)
    assert RAN["six"] == 0
    third = Owner(driver="h-third", epoch=2, request=known.request, workflow=known.workflow)
    with pytest.raises(Fenced):
        await node.journal.take(run, third, entry.sequence)


async def test_calls_are_left_alone_when_their_driver_is_fenced(board: Board) -> None:
    """The successor waits for them: the one that lost the run must not cancel them."""
    worker = await board.host(step, gated, fail)
    await board.host(steps_flow)
    run = await board.submit(steps_flow)
    await until(lambda: RAN["five"] == 1)
    node = await board.node()
    (entry,) = await board.entries(run, "owner")
    known = decode_owner(entry.body)
    usurper = Owner(driver="h-other", epoch=2, request=known.request, workflow=known.workflow)
    await node.journal.take(run, usurper, entry.sequence)
    _tell_taken(node, known.driver, run)
    await until(lambda: all(member.info().busy == 0 for member in _drivers(board)))
    gate("five").set()
    await board.entries(run, "result", count=5)
    assert RAN["five"] == 1
    assert run not in worker.cancelled._runs


def _tell_taken(node: Node, driver: str, run: str) -> None:
    """As the successor does."""
    node.connection.publish(subjects.control(driver), msgspec.msgpack.encode(Taken(run=run, epoch=2)))


def _drivers(board: Board) -> list[Any]:
    return [member for host in board._hosts for member in host._members if member.info().workflow]


async def test_a_run_is_driven_by_one_of_many_drivers(board: Board) -> None:
    """All pull the same requests; each run has one owner from its beginning to its end."""
    await board.host(step, gated, fail)
    for _ in range(3):
        await board.host(steps_flow)
    gate("five").set()
    runs = [await board.submit(steps_flow) for _ in range(12)]
    for run in runs:
        assert value_of(await board.done(run)) == ["one", "two", "three", "four caught", "five", "six"]
        assert len(await board.entries(run, "owner")) == 1
    assert set(RAN.values()) == {12}


async def test_a_process_that_ends_does_not_end_its_runs(board: Board) -> None:
    """Its tasks are cancelled, as asyncio does at the end of a program: the run is no cancelled one."""
    await board.host(step, gated, fail)
    first = await board.host(steps_flow)
    run = await board.submit(steps_flow)
    await until(lambda: RAN["five"] == 1)
    for task in next(m for m in first._members if m.name == "steps_flow")._tasks:  # type: ignore[union-attr]
        task.cancel()
    await board.kill(first)
    await board.host(steps_flow)
    gate("five").set()
    assert value_of(await board.done(run))[-1] == "six"


async def test_a_run_that_was_cancelled_while_nobody_drove_it(board: Board) -> None:
    """Whoever takes it over closes it, without running any of its code, and its calls are stopped."""
    worker = await board.host(step, gated, fail)
    first = await board.host(steps_flow)
    run = await board.submit(steps_flow)
    await until(lambda: RAN["five"] == 1)
    await board.kill(first)
    client = await board.client()
    await client.cancel(run, "too slow")
    await board.host(steps_flow)
    done = await board.done(run)
    assert done.status == "cancelled"
    assert done.error is not None
    assert "too slow" in done.error.message
    await board.emptied("CALLS")
    await until(lambda: not any(member.info().busy for member in worker._members))


# -- the code has changed ----------------------------------------------------------------------------------------


def changed(flow: Workflow[Any, Any], function: Any) -> Workflow[Any, Any]:
    """Another workflow under the same name."""
    return workflow(name=flow.name)(function)


async def other_call() -> list[Any]:
    """Make another call where there was one."""
    await step("one")
    return [await gated("instead")]


async def fewer_calls() -> list[Any]:
    """End before the journal does."""
    return [await step("one")]


async def other_memory() -> list[Any]:
    """Ask for the time where there was a call."""
    return [callboard.now().isoformat()]


@pytest.mark.parametrize(
    ("function", "place", "journal", "code"),
    [
        (other_call, 2, "step.call", "gated.call"),
        (fewer_calls, 2, "step.call", ""),
        (other_memory, 1, "step.call", "callboard.now"),
    ],
    ids=["other call", "fewer calls", "the time instead"],
)
async def test_a_changed_workflow_stops_with_both_calls(
    board: Board, function: Any, place: int, journal: str, code: str
) -> None:
    """The run fails with an error that names the place, what is on record, and what the code does now."""
    await board.host(step, gated, fail)
    first = await board.host(steps_flow)
    run = await board.submit(steps_flow)
    await until(lambda: RAN["five"] == 1)
    await board.kill(first)
    await board.host(changed(steps_flow, function))
    with pytest.raises(RunFailed) as caught:
        await (await board.client()).result(run, SOON)
    error = caught.value.__cause__
    assert isinstance(error, Diverged)
    assert error.fields == {"future": f"{run}:{place}", "journal": journal, "code": code}
    assert journal in error.message
    assert RAN["instead"] == 0
    gate("five").set()


async def same_calls() -> list[Any]:
    """The same calls in other words, and one more at the end."""
    found: list[Any] = [await step("one"), await step("two"), await step("three")]
    failed = (await asyncio.gather(fail("four"), return_exceptions=True))[0]
    return [*found, repr(failed), await gated("five"), await step("more")]


async def gone_on_as(board: Board, code: Any) -> Any:
    """What becomes of ``steps_flow`` when its driver dies, and the next one has other code."""
    await board.host(step, gated, fail)
    first = await board.host(steps_flow)
    run = await board.submit(steps_flow)
    await until(lambda: RAN["five"] == 1)
    await board.kill(first)
    await board.host(changed(steps_flow, code))
    gate("five").set()
    return value_of(await board.done(run))


async def test_a_change_that_changes_no_call_is_none(board: Board) -> None:
    """Only calls and their places count; what comes after the journal's end is free."""
    assert (await gone_on_as(board, same_calls))[-2:] == ["five", "more"]
    assert set(RAN.values()) == {1}


# -- in the middle of something else -------------------------------------------------------------------------------


@tool(retries=1, backoff=0.6, backoff_max=0.6)
async def flaky(name: str) -> str:
    """Fail the first time."""
    RAN[name] += 1
    if RAN[name] == 1:
        raise ValueError(name)
    return name


@workflow
async def flaky_flow() -> str:
    """Call it."""
    return await flaky("once")


async def test_a_call_that_backs_off_survives_its_driver(board: Board) -> None:
    """The stream's schedule brings it back; its second attempt resolves the successor's future."""
    await board.host(flaky)
    first = await board.host(flaky_flow)
    run = await board.submit(flaky_flow)
    await until(lambda: RAN["once"] == 1)
    await board.entries(run, "attempt")
    await board.kill(first)
    await board.host(flaky_flow)
    assert value_of(await board.done(run)) == "once"
    assert RAN == {"once": 2}


@tool(concurrency=1, max_queue=1)
async def narrow(name: str) -> str:
    """One at a time, and one may wait."""
    RAN[name] += 1
    await gate("narrow").wait()
    return name


@workflow
async def narrow_flow() -> list[str]:
    """More than may wait."""
    return await asyncio.gather(*(narrow(str(n)) for n in range(5)))


async def test_a_call_that_was_refused_is_sent_again_by_the_successor(board: Board) -> None:
    """The stream knows its id already, so that it must come under another."""
    await board.host(narrow)
    first = await board.host(narrow_flow)
    run = await board.submit(narrow_flow)
    await board.entries(run, "result", count=2)
    await board.kill(first)
    gate("narrow").set()
    await board.host(narrow_flow)
    assert sorted(value_of(await board.done(run, timeout=60))) == ["0", "1", "2", "3", "4"]


@workflow
async def early_flow() -> str:
    """One call."""
    return await gated("late")


@pytest.fixture
def _never_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a driver has missed stays missed: else it reads its journal again after a while."""
    for module in (caller, maker):
        monkeypatch.setattr(module, "QUIET", 600.0)


@pytest.mark.usefixtures("_never_looked_for")
async def test_a_result_that_comes_while_nobody_drives_the_run(board: Board) -> None:
    """It stands in the journal, and the successor goes on at once."""
    await board.host(gated)
    first = await board.host(early_flow)
    run = await board.submit(early_flow)
    await until(lambda: RAN["late"] == 1)
    await board.kill(first)
    gate("late").set()
    await board.entries(run, "result")
    await board.host(early_flow)
    assert value_of(await board.done(run)) == "late"


@pytest.mark.usefixtures("_never_looked_for")
async def test_results_that_come_at_the_very_moment_of_a_takeover(board: Board) -> None:
    """None is missed between reading the journal and listening to it."""
    await board.host(gated)
    first = await board.host(early_flow)
    runs = [await board.submit(early_flow) for _ in range(60)]
    await until(lambda: RAN["late"] == 60)
    await board.kill(first)
    second = await board.host(early_flow)
    asyncio.get_running_loop().call_soon(_open_soon, second)
    for run in runs:
        assert value_of(await board.done(run)) == "late"
    assert RAN["late"] == 60


def _open_soon(host: Host) -> None:
    """Open the gate as soon as the host has taken its first run."""
    driver = next(m for m in host._members if m.name == "early_flow")
    if driver.info().busy:
        gate("late").set()
    else:
        asyncio.get_running_loop().call_later(0.001, _open_soon, host)


async def test_the_outcome_keeps_the_requesters_encoding(board: Board) -> None:
    """JSON for who sent JSON, though another driver closes the run."""
    await board.host(gated)
    first = await board.host(early_flow)
    node = await board.node()
    await node.store.stored("cb.request.early_flow", b"{}", H.encode([(H.RUN, "r")]))
    await until(lambda: RAN["late"] == 1)
    await board.kill(first)
    gate("late").set()
    await board.host(early_flow)
    (entry,) = await board.entries("r", "done")
    assert entry.headers[H.CONTENT_TYPE] == H.JSON


# -- who acts for the dead -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", [-3600.0, 3600.0], ids=["behind", "ahead"])
async def test_a_claim_whose_holder_did_nothing_is_void(
    board: Board, monkeypatch: pytest.MonkeyPatch, clock: float
) -> None:
    """After some seconds, whatever this host's clock shows; until then it is heeded."""
    await board.host(early_flow)
    first = await board.host(gated)
    run = await board.submit(early_flow)
    await until(lambda: RAN["late"] == 1)
    second = await board.host(gated)
    await until(lambda: first.id in second.watch.alive)
    node = await board.node()
    claim = msgspec.msgpack.encode(Takeover("h-gone", time.time()))
    await node.store.stored(subjects.registry(f"takeover.{first.id}"), claim)
    claimed_at = time.monotonic()
    await board.kill(first)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + clock)
    await until(lambda: RAN["late"] == 2)
    assert time.monotonic() - claimed_at > 2.0, "the claim was not heeded"
    gate("late").set()
    assert value_of(await board.done(run)) == "late"


async def other_arguments() -> list[Any]:
    """The same calls with other arguments."""
    found: list[Any] = [await step("1"), await step("2"), await step("3")]
    failed = (await asyncio.gather(fail("4"), return_exceptions=True))[0]
    return [*found, repr(failed), await gated("five")]


async def test_other_arguments_are_no_change(board: Board) -> None:
    """Calls on record have their results, whatever they are called with now."""
    assert await gone_on_as(board, other_arguments) == ["one", "two", "three", "ValueError('four')", "five"]
    assert {RAN[name] for name in "1234"} == {0}


# -- ends, and what is between them ----------------------------------------------------------------------------------


_PAUSE = 0.5


@workflow
async def sleepy_flow() -> str:
    """Sleep between two calls, and tell when; the first time for longer than its driver lives."""
    await step("before")
    SEEN.append(("sleeps", time.monotonic()))
    await asyncio.sleep(_PAUSE if len(SEEN) > 1 else 600)
    SEEN.append(("slept", time.monotonic()))
    return await step("after")


async def test_a_sleep_begins_anew(board: Board) -> None:
    """It is no call and stands in no journal: whoever takes over sleeps all of it again."""
    await board.host(step)
    first = await board.host(sleepy_flow)
    run = await board.submit(sleepy_flow)
    await until(lambda: SEEN)
    await board.kill(first)
    await board.host(sleepy_flow)
    assert value_of(await board.done(run)) == "after"
    assert [what for what, _ in SEEN] == ["sleeps", "sleeps", "slept"]
    assert SEEN[2][1] - SEEN[1][1] >= _PAUSE * 0.9
    assert RAN == {"before": 1, "after": 1}


async def test_twenty_takeovers_in_a_row_end_a_run(board: Board) -> None:
    """The code of a run that every driver has lost may be what kills them: it ends, for an operator to see."""
    worker = await board.host(gated)
    driver = await board.host(early_flow)
    run = await board.submit(early_flow)
    await until(lambda: RAN["late"] == 1)
    for epoch in range(2, 22):
        await driver.stop(grace=0.0)
        driver = await board.host(early_flow)
        await board.entries(run, "owner", count=epoch)
    done = await board.done(run)
    assert (done.status, done.epoch) == ("failed", 21)
    assert done.error is not None
    assert (done.error.code, done.error.fields["delivered"]) == ("poisoned", 20)
    (letter,) = await board.letters()
    assert (letter.actor, letter.reason) == ("early_flow", "too_many_deliveries")
    assert RAN["late"] == 1
    await board.emptied("REQUESTS")
    assert (await (await board.client()).status(run)).status == "failed"
    gate("late").set()
    await until(lambda: not any(member.info().busy for member in worker.instances()))


async def test_a_driver_that_dies_between_outcome_and_summary(board: Board) -> None:
    """Whoever is given the request next finds the outcome, writes the summary, and runs nothing."""
    await board.host(gated)
    first = await board.host(early_flow)
    run = await board.submit(early_flow)
    await until(lambda: RAN["late"] == 1)
    tell = first.node.journal.put_summary
    died = asyncio.Event()

    def dies(summary: RunSummary, on_stored: OnStored | None = None) -> None:
        if summary.status == "running":
            tell(summary, on_stored)
            return
        died.set()
        raise asyncio.CancelledError  # nothing of what would come next happens any more

    first.node.journal.put_summary = dies  # type: ignore[method-assign]
    gate("late").set()
    await died.wait()
    await board.kill(first)
    client = await board.client()
    assert (await board.stream("REQUESTS"))["messages"] == 1
    await board.host(early_flow)
    await board.emptied("REQUESTS")
    assert len(await board.entries(run, "done")) == len(await board.entries(run, "owner")) == 1
    node = await board.node()

    async def told() -> bool:
        return [one.status for one in await node.journal.summaries()] == ["completed"]

    await eventually(told)
    assert await client.result(run, SOON) == "late"
    assert RAN["late"] == 1
