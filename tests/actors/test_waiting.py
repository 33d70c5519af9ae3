"""Runs that wait: for times, signals and people; put aside meanwhile, and brought back."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.client import Client as Plain
from nats.js.errors import KeyNotFoundError, NoKeysError
from tests.support.board import Board
from tests.support.gates import Gate
from tests.support.waiting import eventually, until

import callboard
from callboard import human, tool, workflow
from callboard.actors import waits as waits_module
from callboard.actors.client import Client
from callboard.actors.declared import Workflow
from callboard.actors.driver import Driver
from callboard.actors.host import Host
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    AnswerInvalid,
    DeadlineExceeded,
    InvalidArguments,
    JournalExpired,
    QuestionUnknown,
    RunCancelled,
    RunFailed,
    RunUnknown,
    WaitInvalid,
    WaitMisplaced,
    WaitTimeout,
)
from callboard.infra.messages.inbox import Question
from callboard.infra.server import EmbeddedServer
from callboard.state.journal import decode_aside, decode_owner

RAN: Counter[str] = Counter()
GATE = Gate()
SOON = {"park_after": 0.05}
"""With which a run that waits is put aside at once."""


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run."""
    RAN.clear()


class Verdict(msgspec.Struct):
    """What somebody decides."""

    ok: bool
    note: str = ""


@tool
async def step(name: str) -> str:
    """Count how often it ran."""
    RAN[name] += 1
    return name


@workflow
async def sleeper(seconds: float) -> list[str]:
    """Work, sleep, work."""
    RAN["from the top"] += 1
    first = await step("before")
    await callboard.sleep(seconds)
    return [first, await step("after")]


@workflow
async def until_then(seconds: float) -> float:
    """Wait for a time; how late it was."""
    when = callboard.now() + timedelta(seconds=seconds)
    await callboard.until(when)
    return time.time() - when.timestamp()


@workflow
def plain_waiter(timeout: float | None = None) -> list[Any]:
    """Wait in a thread."""
    RAN["from the top"] += 1
    _ = callboard.sleep(0.01)
    return [callboard.signal("go", timeout=timeout), str(step("after"))]


@workflow
async def listener(count: int = 1, timeout: float | None = None) -> list[Any]:
    """Wait for so many signals."""
    RAN["from the top"] += 1
    return [await callboard.signal("go", timeout=timeout) for _ in range(count)]


@workflow
async def beside() -> list[Any]:
    """Wait for a signal, and for what is neither a call nor a wait."""

    async def own() -> str:
        RAN["own"] += 1
        await GATE.wait()
        return "own"

    return list(await asyncio.gather(callboard.signal("go"), own()))


@workflow
async def own_timer(seconds: float) -> Any:
    """Wait with a timer of one's own around it, a longer one in a replay; then once more."""
    RAN["from the top"] += 1
    try:
        async with asyncio.timeout(seconds if RAN["from the top"] == 1 else 60.0):
            first = await callboard.signal("go")
    except TimeoutError:
        first = "timed out"
    await step(str(first))
    return [first, await callboard.signal("end")]


@workflow
async def race(seconds: float) -> Any:
    """A signal against a time."""
    both = asyncio.as_completed([callboard.signal("go"), callboard.sleep(seconds)])
    return await next(both)


@workflow
async def twice() -> str:
    """Work, and wait twice."""
    first = await step("before")
    for _ in range(2):
        await callboard.signal("go")
    return first


@workflow
async def branches() -> list[Any]:
    """Wait for several things at once, and pass a value on."""
    a, b = callboard.signal("a"), callboard.signal("b")
    return list(await asyncio.gather(step(a), b, callboard.sleep(0.01)))  # type: ignore[arg-type]


@workflow
async def asker(timeout: float | None = None) -> Verdict:
    """Ask somebody."""
    RAN["from the top"] += 1
    return await human.ask("Shall we?", schema=Verdict, timeout=timeout, to="boss")


@workflow
async def patient(*, asks: bool) -> str:
    """Wait as long as can be, and do something about it if nothing comes."""
    try:
        await (human.ask("Shall we?") if asks else callboard.signal("go"))
    except JournalExpired as error:
        RAN["told"] += 1
        return f"{error.fields['run']} of {error.fields['kept']:.0f} s"
    return "something came"


@workflow
async def asks_and_listens() -> str:
    """Ask, then wait for a signal, then for another."""
    answer = await human.ask("Shall we?", schema=str)
    for _ in range(2):
        await callboard.signal("go")
    return str(answer)


@workflow
async def asks_for_nothing() -> Any:
    """Ask for what is no type."""
    return await human.ask("Shall we?", schema=len)


@workflow
async def leaver() -> str:
    """Leave waits behind."""
    waits = [human.ask("Anybody?"), callboard.sleep(60), callboard.signal("never", timeout=60)]
    await step(f"{len(waits)}")
    return "done"


@tool
async def misplaced() -> None:
    """Wait where there is no run."""
    await callboard.sleep(1)


@workflow
async def misplacing() -> None:
    """Call it."""
    await misplaced()


@workflow
async def unending(seconds: float) -> None:
    """Sleep too long."""
    await callboard.sleep(seconds)


@workflow
async def tidy(seconds: float = 1.5) -> str:
    """Clean up in a way that would change the run if it counted."""
    try:
        await callboard.sleep(seconds)
    finally:
        RAN["cleaned"] += 1
        callboard.now()
        await step("cleaned")
    return "done"


def driving(host: Host) -> int:
    """How many runs a host holds."""
    return sum(len(m._runs) + len(m._tasks) for m in host._members if isinstance(m, Driver))


async def waits(board: Board, run: str) -> None:
    """Wait until a run was put aside and nothing holds it; it may have come back by then, if it only sleeps."""
    await board.entries(run, "aside")
    await board.emptied(subjects.REQUESTS)


async def put_aside(board: Board, host: Host, flow: Workflow[Any, Any], **arguments: Any) -> str:
    """A run that is put aside."""
    run = await board.submit(flow, **arguments)
    await waits(board, run)
    await until(lambda: not driving(host))
    return run


async def value(board: Board, run: str) -> Any:
    """The result of a run."""
    return await (await board.client()).result(run, 30.0)


async def question(board: Board) -> Question:
    """The one open question."""
    client = await board.client()
    (found,) = await eventually(client.inbox)
    return found


async def nobody_asks(client: Client) -> bool:
    """Whether no question is open."""
    return not await client.inbox()


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("park_after", [0.0, 60.0])
async def test_a_sleep_ends(board: Board, park_after: float) -> None:
    """A run sleeps, put aside or not; what was done before is not done again."""
    await board.host(sleeper, step, park_after=park_after)
    began = time.time()
    seconds = 0.6 if park_after else 2.0  # in which it has to be put aside
    assert await board.run(sleeper, seconds=seconds) == ["before", "after"]
    assert time.time() - began >= seconds
    assert (RAN["before"], RAN["after"]) == (1, 1)
    assert RAN["from the top"] == (1 if park_after else 2)


async def test_until_is_never_early(board: Board) -> None:
    """A run goes on at the time, not before."""
    await board.host(until_then, **SOON)
    assert await board.run(until_then, seconds=0.5) >= 0.0


async def test_a_run_that_waits_holds_nothing(board: Board) -> None:
    """No message is left un-acked, the driver has forgotten the run, and it is said to wait."""
    host = await board.host(sleeper, step, **SOON)
    run = await put_aside(board, host, sleeper, seconds=60)
    client = await board.client()
    assert (await client.status(run)).status == "waiting"
    assert not host._waker or not any(pull.held for pull in host.pulls())
    (told,) = [event.data async for event in client.events(run, follow=False) if event.kind == "aside"]
    (wait,) = told["awaited"]
    assert (wait["call"], wait["until"] > time.time()) == ("callboard.sleep", True)
    assert "body" not in told, "a request may be large, or secret"
    await client.cancel(run)
    with pytest.raises(RunCancelled):
        await client.result(run, 30.0)


async def test_what_is_neither_call_nor_wait_begins_anew(board: Board) -> None:
    """It does not keep its run from being put aside."""
    host = await board.host(beside, **SOON)
    run = await put_aside(board, host, beside)
    assert RAN["own"] == 1
    GATE.set()
    client = await board.client()
    await client.signal(run, "go", 1)
    assert await client.result(run, 30.0) == [1, "own"]
    assert RAN["own"] == 2


async def test_the_timer_of_a_driver_that_died(board: Board) -> None:
    """Its driver dies while the run is aside: another one goes on when the time has come."""
    host = await board.host(sleeper, step, **SOON)
    run = await put_aside(board, host, sleeper, seconds=2.0)
    await board.kill(host)
    await board.host(sleeper, step, **SOON)
    assert await value(board, run) == ["before", "after"]
    assert RAN["before"] == 1


async def test_a_driver_dies_while_its_run_waits_in_memory(board: Board) -> None:
    """The same before it is put aside: the sleep is not begun anew."""
    host = await board.host(sleeper, step, park_after=60.0)
    began = time.time()
    run = await board.submit(sleeper, seconds=2.0)
    await until(lambda: any(w.open for w in waits_of(host)))
    await board.kill(host)
    await board.host(sleeper, step, park_after=60.0)
    assert await value(board, run) == ["before", "after"]
    assert time.time() - began >= 2.0
    (ends, fired) = [r for r in await board.results(run) if r.call in {"callboard.now", "callboard.sleep"}]
    assert (ends.call, fired.call) == ("callboard.now", "callboard.sleep")


def waits_of(host: Host) -> list[Any]:
    """The waits of all runs of a host."""
    return [
        r.maker.waits
        for m in host._members
        if isinstance(m, Driver)
        for r in m._runs.values()
        if r.maker.waits is not None
    ]


async def test_a_time_that_passed_while_nobody_was_there(board: Board) -> None:
    """It fires once, late."""
    host = await board.host(sleeper, step, **SOON)
    run = await put_aside(board, host, sleeper, seconds=1.5)
    await host.stop(grace=0.2)
    node = await board.node()

    async def fired() -> bool:
        return not await node.reader.read(subjects.CALLS, subjects.timer(">"))

    await eventually(fired)
    await board.host(sleeper, step, **SOON)
    assert await value(board, run) == ["before", "after"]
    assert [r.call for r in await board.results(run)].count("callboard.sleep") == 1


async def test_everything_is_killed_while_runs_wait(nats_server: EmbeddedServer) -> None:
    """Server and hosts die across the time; runs that slept, and runs that get a signal later, go on."""
    board = Board(nats_server.url)
    host = await board.host(sleeper, listener, step, **SOON)
    asleep = await put_aside(board, host, sleeper, seconds=2.0)
    listening = await put_aside(board, host, listener)
    await board.kill(host)
    await asyncio.to_thread(nats_server.kill)
    await asyncio.to_thread(nats_server.start)
    await board.host(sleeper, listener, step, **SOON)
    assert await value(board, asleep) == ["before", "after"]
    assert RAN["before"] == 1
    await (await board.client()).signal(listening, "go", "late")
    assert await value(board, listening) == ["late"]
    await board.close()


async def test_a_driver_dies_while_it_puts_a_run_aside(board: Board) -> None:
    """Between the entry and the ack: its heir has the request, and a signal wakes the run only once."""
    host = await board.host(listener, park_after=60.0)
    run = await board.submit(listener)
    await until(lambda: any(w.open for w in waits_of(host)))
    (driver,) = (m for m in host._members if isinstance(m, Driver))
    held = driver._runs[run]
    assert held.lease is not None
    assert held.maker.waits is not None
    await host.node.journal.put_aside(held.lease, driver._aside._entry(held, held.maker.waits))
    await board.kill(host)
    client = await board.client()
    await client.signal(run, "go", 1)
    await board.host(listener, **SOON)
    assert await client.result(run, 30.0) == [1]
    await board.emptied(subjects.REQUESTS)
    assert len(await client.node.journal.read(run, "done")) == 1


async def test_a_wake_up_that_was_not_needed(board: Board) -> None:
    """A request that brings a run back which is not aside changes nothing."""
    host = await board.host(listener, park_after=60.0)
    run = await board.submit(listener)
    await until(lambda: any(w.open for w in waits_of(host)))
    node = await board.node()
    head = H.encode([(H.RUN, run), (H.RESUME, f"{time.time():.3f}"), (H.MESSAGE_ID, f"{run}~1")])
    await node.store.stored(subjects.request("listener"), b"\x80", head)

    async def only_the_first() -> bool:
        return bool((await board.stream(subjects.REQUESTS))["messages"] == 1)

    await eventually(only_the_first)
    await (await board.client()).signal(run, "go", 1)
    assert await value(board, run) == [1]
    assert RAN["from the top"] == 1


async def test_a_deadline_ends_a_run_that_is_aside(board: Board) -> None:
    """The deadline wakes it; it fails, and leaves no timer behind."""
    await board.host(sleeper, step, **SOON)
    client = await board.client()
    run = await client.submit("sleeper", {"seconds": 60}, deadline=2.0)
    await waits(board, run)
    with pytest.raises(RunFailed) as caught:
        await client.result(run, 30.0)
    assert isinstance(caught.value.__cause__, DeadlineExceeded)
    await board.emptied(subjects.CALLS)


async def test_a_draining_driver_puts_its_runs_aside(board: Board) -> None:
    """A host that leaves waits neither for its runs' times nor for its grace, and nobody takes them over."""
    host = await board.host(listener, park_after=60.0)
    run = await board.submit(listener)
    await until(lambda: any(w.open for w in waits_of(host)))
    await host.stop(grace=60.0)
    client = await board.client()
    assert await client.node.journal.aside(run) is not None
    await board.emptied(subjects.REQUESTS)
    await board.host(listener)
    await client.signal(run, "go", 1)
    assert await client.result(run, 30.0) == [1]


async def test_cleaning_up_does_not_count_while_aside(board: Board) -> None:
    """What code does on being put aside is not in the journal, so that the run goes on as it was."""
    host = await board.host(tidy, step, **SOON)
    run = await put_aside(board, host, tidy)
    assert await value(board, run) == "done"
    assert RAN["cleaned"] == 3  # aside, at the end, and by the tool, once
    assert (await board.done(run)).calls == 1


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [listener, plain_waiter])
async def test_a_signal_wakes_a_run(board: Board, flow: Workflow[Any, Any]) -> None:
    """A run that is aside comes back with the value of its signal, in async and plain workflows."""
    host = await board.host(flow, step, **SOON)
    run = await put_aside(board, host, flow)
    client = await board.client()
    await client.signal(run, "go", {"n": 1})
    assert (await client.result(run, 30.0))[0] == {"n": 1}
    assert RAN["from the top"] >= 2


async def test_signals_are_kept_and_given_in_order(board: Board) -> None:
    """Signals sent before anybody waits are given one by one; a repeated delivery gives none twice."""
    host = await board.host(listener, **SOON)
    run = await put_aside(board, host, listener, count=4)
    client = await board.client()
    await client.signal(run, "other")
    for number in range(4):
        await client.signal(run, "go", number)
    assert await client.result(run, 30.0) == [0, 1, 2, 3]
    consumed = [r.signal for r in await board.results(run)]
    assert len(set(consumed)) == 4


async def test_a_signal_that_does_not_come(board: Board) -> None:
    """After its time-out the wait fails, though the run was aside."""
    await board.host(listener, **SOON)
    client = await board.client()
    run = await client.submit("listener", {"timeout": 0.5})
    with pytest.raises(RunFailed) as caught:
        await client.result(run, 30.0)
    assert isinstance(caught.value.__cause__, WaitTimeout)


async def test_a_timer_of_ones_own_ends_no_wait_of_a_run_that_is_aside(board: Board) -> None:
    """It is gone with the run; what is kept by the server ends such a wait."""
    host = await board.host(own_timer, race, sleeper, step, **SOON)
    run = await put_aside(board, host, own_timer, seconds=2.0)
    await board.run(sleeper, seconds=2.5)  # its time is over, and longer
    client = await board.client()
    assert (await client.status(run)).status == "waiting"
    assert RAN["timed out"] == 0
    assert len(await board.entries(run, "owner")) == 1
    await client.signal(run, "go", "late")
    await client.signal(run, "end", "end")
    assert await client.result(run, 30.0) == ["late", "end"]


async def test_a_timer_of_ones_own_begins_anew(board: Board) -> None:
    """One that has ended its wait is on no record: after a signal the run goes another way."""
    host = await board.host(own_timer, step, park_after=1.0)
    run = await put_aside(board, host, own_timer, seconds=0.1)
    assert RAN["timed out"] == 1
    client = await board.client()
    await client.signal(run, "go", "late")
    await client.signal(run, "end", "end")
    assert await client.result(run, 30.0) == ["late", "end"]
    assert RAN["late"] == 0, "the step that ran after the time-out is not repeated"


@pytest.mark.parametrize("comes", [False, True])
async def test_a_race_with_a_sleep(board: Board, *, comes: bool) -> None:
    """It has its end though the run is put aside, whichever is first."""
    host = await board.host(race, **SOON)
    run = await put_aside(board, host, race, seconds=60.0 if comes else 2.0)
    client = await board.client()
    if comes:
        await client.signal(run, "go", "in time")
    assert await client.result(run, 30.0) == ("in time" if comes else None)
    await board.emptied(subjects.CALLS)


async def test_signals_by_any_client(board: Board) -> None:
    """A plain message in JSON to the run's journal is a signal, also while no host is there."""
    host = await board.host(listener, **SOON)
    run = await put_aside(board, host, listener)
    await host.stop(grace=0.2)
    node = await board.node()
    await node.store.stored(subjects.run(run, "signal"), b'{"name": "go", "value": [1, "two"]}')
    await board.host(listener, **SOON)
    assert await value(board, run) == [[1, "two"]]


async def test_several_waits_at_once(board: Board) -> None:
    """Waits side by side, of which one is passed on before it is there."""
    host = await board.host(branches, step, **SOON)
    run = await board.submit(branches)
    await waits(board, run)
    client = await board.client()
    await client.signal(run, "b", 2)
    await client.signal(run, "a", "first")
    assert await client.result(run, 30.0) == ["first", 2, None]
    await until(lambda: not driving(host))


async def test_the_end_clears_what_was_waited_for(board: Board) -> None:
    """A run that ends leaves no timer and no question."""
    await board.host(leaver, step)
    client = await board.client()
    assert await board.run(leaver) == "done"
    await board.emptied(subjects.CALLS)
    await eventually(lambda: nobody_asks(client))


async def never(stream: str, subject: str) -> None:
    """What a process does that dies before it can."""
    await asyncio.Event().wait()


async def test_the_heir_of_a_driver_that_died_before_it_cleaned_up(board: Board) -> None:
    """Nothing is asked any more that was answered, and no timer of a wait outlasts the run."""
    host = await board.host(asks_and_listens, park_after=60.0)
    host.node.topology.purge = never  # type: ignore[method-assign]
    run = await board.submit(asks_and_listens)
    client = await board.client()
    await client.answer((await question(board)).id, "yes")
    await client.signal(run, "go")

    async def resolved() -> bool:
        return len([r for r in await board.results(run) if r.signal]) == 2

    await eventually(resolved)
    await board.kill(host)
    assert len(await client.inbox()) == 1
    await board.host(asks_and_listens, **SOON)
    await eventually(lambda: nobody_asks(client))
    await client.signal(run, "go")
    assert await client.result(run, 30.0) == "yes"
    await board.emptied(subjects.CALLS)


async def test_a_driver_that_dies_between_the_end_and_cleaning_up(board: Board) -> None:
    """Whoever is given the request next does it."""
    host = await board.host(leaver, step)
    host.node.topology.purge = never  # type: ignore[method-assign]
    run = await board.submit(leaver)
    await board.done(run)
    await board.kill(host)
    client = await board.client()
    assert len(await client.inbox()) == 1
    await board.host(leaver, step)
    await board.emptied(subjects.REQUESTS)
    await board.emptied(subjects.CALLS)
    await eventually(lambda: nobody_asks(client))


async def test_a_run_is_cancelled_while_nobody_drives_it(board: Board) -> None:
    """Whoever takes it over runs nothing, but takes back what it asked and the timers of its waits."""
    host = await board.host(leaver)  # nobody is there for its call, so that all is open
    run = await board.submit(leaver)
    client = await board.client()
    await question(board)
    await until(lambda: not any(wait.unstored for wait in waits_of(host)[0].open.values()))
    await board.kill(host)
    await client.cancel(run)
    await board.host(leaver, step)
    with pytest.raises(RunCancelled):
        await client.result(run, 30.0)
    await board.emptied(subjects.REQUESTS)
    await board.emptied(subjects.CALLS)
    await eventually(lambda: nobody_asks(client))


async def test_wrong_signals_are_refused(board: Board) -> None:
    """Reserved names, runs that have ended, runs that never were."""
    await board.host(sleeper, step)
    client = await board.client()
    run = await client.submit("sleeper", {"seconds": 0})
    await client.result(run, 30.0)

    async def ended() -> bool:
        return bool((await client.status(run)).finished)

    await eventually(ended)
    with pytest.raises(InvalidArguments):
        await client.signal(run, "cancel")
    with pytest.raises(RunUnknown):
        await client.signal(run, "go")
    with pytest.raises(RunUnknown):
        await client.signal("never", "go")


# -- people ----------------------------------------------------------------------------------------


async def test_a_question_is_answered(board: Board) -> None:
    """It stands in the inbox with all there is to know, until an answer that fits resolves it."""
    host = await board.host(asker, **SOON)
    run = await put_aside(board, host, asker)
    client = await board.client()
    asked = await question(board)
    assert (asked.run, asked.workflow, asked.question, asked.to) == (run, "asker", "Shall we?", "boss")
    assert "Verdict" in str(asked.schema)
    assert await client.inbox("somebody else") == []
    for wrong in ({"note": "x"}, {"ok": "yes"}, "yes"):
        with pytest.raises(AnswerInvalid):
            await client.answer(asked.id, wrong)
    await client.answer(asked.id, {"ok": True})
    assert await client.result(run, 30.0) == {"ok": True, "note": ""}
    await eventually(lambda: nobody_asks(client))
    with pytest.raises(QuestionUnknown):
        await client.answer(asked.id, {"ok": False})


async def listed(wire: Plain) -> dict[str, dict[str, Any]]:
    """The open questions as any NATS client sees them: those in the bucket, by their keys."""
    bucket = await wire.jetstream().key_value("cb_inbox")
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(NoKeysError, KeyNotFoundError):  # there is none, or it has just been answered
        for key in await bucket.keys():
            found[key] = msgspec.msgpack.decode((await bucket.get(key)).value or b"")
    return found


async def test_an_answer_by_any_client(board: Board) -> None:
    """It lists what is open and answers; what does not fit leaves the question open, and says why."""
    host = await board.host(asker, **SOON)
    run = await put_aside(board, host, asker)
    wire = await nats.connect(board.url)
    ((key, asked),) = (await listed(wire)).items()
    assert key.partition(".")[0] == asked["run"] == run
    assert (asked["workflow"], asked["question"], asked["to"]) == ("asker", "Shall we?", "boss")
    assert "Verdict" in str(asked["schema"])

    async def answer(value: dict[str, Any], number: int) -> None:
        body = {"name": "answer", "future": asked["id"], "value": value}
        head = {"Nats-Msg-Id": f"{run} answer {number}"}
        await wire.jetstream().publish(f"cb.run.{run}.signal", msgspec.json.encode(body), headers=head)

    await answer({"ok": 3}, 1)

    async def refused() -> bool:
        return bool((await listed(wire))[key].get("problem"))

    await eventually(refused)
    await answer({"ok": False, "note": "no"}, 2)
    assert await value(board, run) == {"ok": False, "note": "no"}

    async def nothing_is_open() -> bool:
        return not await listed(wire)

    await eventually(nothing_is_open)
    await wire.close()


async def test_the_first_answer_counts(board: Board) -> None:
    """Who answers after somebody else is told so, also while no host is there, and at the same time."""
    host = await board.host(asker, **SOON)
    run = await put_aside(board, host, asker)
    await host.stop(grace=0.2)
    clients = [await board.client() for _ in range(5)]
    await clients[0].signal(run, "other")
    asked = await question(board)
    body = {"name": "answer", "future": asked.id, "value": 3}  # counts for nothing
    await clients[0].node.store.stored(subjects.run(run, "signal"), msgspec.json.encode(body))
    answers = [client.answer(run, {"ok": True, "note": f"{n}"}) for n, client in enumerate(clients)]
    told = await asyncio.gather(*answers, return_exceptions=True)
    (first,) = (n for n, outcome in enumerate(told) if outcome is None)
    assert all(isinstance(outcome, QuestionUnknown) for n, outcome in enumerate(told) if n != first)
    with pytest.raises(QuestionUnknown, match="answered already"):
        await clients[0].answer(asked.id, {"ok": False})
    await board.host(asker, **SOON)
    assert (await value(board, run))["note"] == f"{first}"


async def test_nobody_answers(board: Board) -> None:
    """The time-out ends the question."""
    host = await board.host(asker, **SOON)
    run = await board.submit(asker, timeout=0.8)
    client = await board.client()
    with pytest.raises(RunFailed) as caught:
        await client.result(run, 30.0)
    assert isinstance(caught.value.__cause__, WaitTimeout)
    await until(lambda: not driving(host))
    await eventually(lambda: nobody_asks(client))


# -- where waits do not belong ---------------------------------------------------------------------


async def test_waits_in_handlers_are_refused(board: Board) -> None:
    """A handler holds a slot: it cannot wait like this."""
    await board.host(misplacing, misplaced)
    with pytest.raises(RunFailed) as caught:
        await board.run(misplacing)
    assert isinstance(caught.value.__cause__, WaitMisplaced)


async def test_what_nobody_could_answer_is_refused(board: Board) -> None:
    """The question is not put."""
    await board.host(asks_for_nothing)
    with pytest.raises(RunFailed, match="give a type") as caught:
        await board.run(asks_for_nothing)
    assert isinstance(caught.value.__cause__, WaitInvalid)


UNANSWERABLE: dict[str, tuple[dict[str, Any], str]] = {
    "question": ({"question": 5}, "human.ask: question is 5: give a text"),
    "no question": ({"question": None}, "human.ask: question is None: give a text"),
    "several people": ({"to": ["a", "b"]}, "human.ask: to is ['a', 'b']: give a text"),
    "nobody": ({"to": None}, "human.ask: to is None: give a text"),
    "timeout": (
        {"timeout": "1"},
        "the timeout of human.ask takes seconds, which '1' is not: give a finite number",
    ),
    "nan": ({"timeout": float("nan")}, "the timeout of human.ask takes seconds, which nan is not"),
    "schema": ({"schema": 5}, "human.ask: no value can be read as 5: give a type"),
    "keys": ({"schema": {1: "integer"}}, "human.ask: nobody could read the question: Expected `str`"),
    "values": ({"schema": {"type": object()}}, "human.ask: nobody could read the question: Encoding objects"),
    "letters": ({"question": "\ud800"}, "human.ask: nobody could read the question: 'utf-8' codec"),
}


@workflow
async def asks_in_vain(what: str) -> list[str]:
    """Ask what nobody could answer; what one is told, and whether somebody can be asked afterwards."""
    asked: Any = {"question": "Shall we?", "timeout": 60, **UNANSWERABLE[what][0]}
    try:
        await human.ask(asked.pop("question"), **asked)
    except WaitInvalid as error:
        return [error.message, await human.ask("Well?")]
    return []


async def test_what_nobody_could_read_is_refused(board: Board) -> None:
    """At once, with what to give instead; the run may go on, and ask better."""
    await board.host(asks_in_vain, **SOON)
    client = await board.client()
    for what, (_, message) in UNANSWERABLE.items():
        run = await board.submit(asks_in_vain, what=what)
        assert (await question(board)).question == "Well?"
        await client.answer(run, "fine")
        told = await value(board, run)
        assert (told[0][: len(message)], told[1]) == (message, "fine")


async def test_waits_longer_than_journals_are_refused(board: Board) -> None:
    """Nobody could go on with the run then."""
    await board.host(unending)
    with pytest.raises(RunFailed) as caught:
        await board.run(unending, seconds=46 * 86_400)
    assert isinstance(caught.value.__cause__, WaitInvalid)


async def test_a_wait_of_a_month(board: Board) -> None:
    """By the settings as they are it is put aside like any other."""
    host = await board.host(listener, **SOON)
    run = await put_aside(board, host, listener, timeout=31 * 86_400)
    client = await board.client()
    await client.signal(run, "go", 1)
    assert await client.result(run, 30.0) == [1]


async def test_where_journals_stay_waits_may_be_as_long_as_they_like(board: Board) -> None:
    """An age of 0 removes nothing."""
    host = await board.host(listener, journal_max_age=0, blob_max_age=0, **SOON)
    run = await put_aside(board, host, listener, timeout=400 * 86_400)
    client = await board.client()
    await client.signal(run, "go", 1)
    assert await client.result(run, 30.0) == [1]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_waits_that_are_together_longer_than_journals(board: Board, cancelled: bool) -> None:  # noqa: FBT001 - a parameter
    """What was done first is known no more when the run comes back: it ends, and does nothing again."""
    host = await board.host(twice, step, **SOON)
    run = await put_aside(board, host, twice)
    client = await board.client()
    (first,) = await board.entries(run, "aside")
    await client.signal(run, "go")
    await board.entries(run, "aside", 2)
    await until(lambda: not driving(host))
    await board.emptied(subjects.REQUESTS)
    await client.node.topology.api(
        f"STREAM.PURGE.{subjects.RUNS}", {"seq": first.sequence}
    )  # as its age does
    if cancelled:
        await client.cancel(run)
        with pytest.raises(RunCancelled):
            await client.result(run, 30.0)
    else:
        await client.signal(run, "go")
        with pytest.raises(RunFailed, match="journal_max_age") as caught:
            await client.result(run, 30.0)
        assert isinstance(caught.value.__cause__, JournalExpired)
    await board.emptied(subjects.REQUESTS)
    assert (RAN["before"], (await client.status(run)).finished > 0) == (1, True)


@pytest.mark.parametrize("asks", [False, True])
async def test_a_wait_without_timeout_ends_before_its_journal_goes(
    board: Board,
    monkeypatch: pytest.MonkeyPatch,
    asks: bool,  # noqa: FBT001 - a parameter
) -> None:
    """It raises where it stands, though it was put aside; a question is asked no more."""
    monkeypatch.setattr(waits_module, "_LEFT_SHARE", 0.98)  # 4 s are left to put it aside
    host = await board.host(patient, journal_max_age=200, **SOON)
    run = await put_aside(board, host, patient, asks=asks)
    client = await board.client()
    assert await client.result(run, 30.0) == f"{run} of 200 s"
    assert RAN["told"] == 1
    await eventually(lambda: nobody_asks(client))


@pytest.mark.parametrize(("kept", "left"), [(0, None), (100, 10), (45 * 86_400, 86_400)])
async def test_when_a_wait_without_timeout_ends(board: Board, kept: float, left: float | None) -> None:
    """A day before the journal goes, a tenth of its age before, or never."""
    host = await board.host(listener, journal_max_age=kept, blob_max_age=2 * kept)
    run = await board.submit(listener)
    (driver,) = [member for member in host._members if isinstance(member, Driver)]
    await until(lambda: bool(driver.waits_of(run)))
    (owner,) = await board.entries(run, "owner")
    (wait,) = driver.waits_of(run)
    expected = 0.0 if left is None else decode_owner(owner.body).at + kept - left
    assert wait.until == pytest.approx(expected, abs=1e-3)


async def test_without_a_board() -> None:
    """Sleeping works; for signals and questions there is nobody outside."""
    assert await until_then(0.01) >= 0.0
    with pytest.raises(WaitMisplaced):
        await misplacing()
    with pytest.raises(WaitMisplaced):
        await listener()
    with pytest.raises(WaitMisplaced):
        await asker()
    with pytest.raises(WaitInvalid):
        await callboard.until(datetime.now(UTC).replace(tzinfo=None))


# -- many ------------------------------------------------------------------------------------------


async def test_thousands_wait_and_cost_nothing(board: Board) -> None:
    """2,000 runs wait: the driver holds none of them, the server 2 KB each, and each comes back for its signal."""
    count = 2000
    host = await board.host(listener, **SOON)
    client = await board.client()
    runs = [subjects.new_id() for _ in range(count)]
    await asyncio.gather(*(client.submit("listener", {}, run=run) for run in runs))
    await board.emptied(subjects.REQUESTS, 60.0)
    await until(lambda: not driving(host), 60.0)
    kept = [await board.stream(name) for name in ("REQUESTS", "CALLS", "RUNS", "KV_cb_runs", "KV_cb_inbox")]
    assert sum(one["bytes"] for one in kept) / count <= 2048
    last = await client.node.reader.last(subjects.RUNS, subjects.run(runs[0], "aside"))
    assert last is not None
    assert decode_aside(last.body).headers[H.RUN] == runs[0]
    some = runs[::40]
    await asyncio.gather(*(client.signal(run, "go", run) for run in some))
    assert await asyncio.gather(*(client.result(run, 30.0) for run in some)) == [[run] for run in some]
    assert RAN["from the top"] == count + len(some)
