"""Replays: a workflow's code against what is on record of a run, and nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from tests.support.board import Board
from tests.support.gates import Gate
from tests.support.waiting import until

import callboard
from callboard import human, tool, workflow
from callboard.actors.client import Client
from callboard.actors.declared import Workflow
from callboard.actors.replay import Replay, Step
from callboard.infra import subjects
from callboard.infra.errors import JournalIncomplete, RunFailed, RunUnknown, UnknownActor
from callboard.infra.messages.run import Owner
from callboard.state.journal import encode

RAN: Counter[str] = Counter()
SECOND = Gate()
CODE: dict[str, Callable[[], Any]] = {}
"""What a workflow does that does not always do the same."""
WRITTEN = ("REQUESTS", "CALLS", "RUNS", "DEAD", "KV_cb_runs", "KV_cb_inbox", "KV_cb_state", "OBJ_cb_blobs")


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
async def fail(text: str) -> str:
    """Raise."""
    raise ValueError(text)


@tool
async def large(size: int) -> bytes:
    """Large."""
    RAN["large"] += 1
    return b"x" * size


@tool
async def held(name: str) -> str:
    """Wait for its gate."""
    RAN[name] += 1
    await SECOND.wait()
    return name


@workflow
async def everything(number: int) -> list[Any]:
    """All that a journal records."""
    began = callboard.now()
    drawn = callboard.random().random()
    key = callboard.uuid()
    sums = [add(each, add(each, 1).arg) for each in range(number)]
    taken = [await one for one in asyncio.as_completed(sums)]
    size = len(await large(200_000))
    await callboard.sleep(0.01)
    paid = await callboard.signal("paid", type=int)
    answer = await human.ask("Which word?")
    failed = ""
    try:
        await fail("no")
    except ValueError as error:
        failed = str(error)
    return [began.isoformat(), drawn, str(key), taken, size, paid, answer, failed, bytes(70_000)]


@workflow
def plain(number: int) -> int:
    """The same in a thread: lazy values."""
    first = add(number, 1)
    return add(first.arg, 2).value() + 1


@workflow
async def holds() -> str:
    """Calls one after the other, of which the second waits."""
    await add(1, 2)
    return await held("second")


@workflow
async def changes() -> Any:
    """What the test says."""
    return await CODE["now"]()


async def ended(board: Board, flow: Workflow[Any, Any], **arguments: Any) -> tuple[Client, str]:
    """A run that has ended, and a client."""
    client = await board.client()
    run = await client.submit(flow.name, arguments)
    await client.done(run)
    return client, run


async def positions(board: Board) -> dict[str, int]:
    """Up to where streams were ever written that a replay could write to."""
    return {name: (await board.stream(name))["last_seq"] for name in WRITTEN}


async def test_all_that_is_on_record_is_given(board: Board) -> None:
    """Times, draws, outcomes in their order, large values, signals, answers, errors; nothing is written."""
    await board.host(add, fail, large, everything)
    client = await board.client()
    run = await client.submit("everything", {"number": 3})
    await client.signal(run, "paid", 7)
    await until_asked(client)
    await client.answer(run, "word")
    await client.result(run)
    await board.emptied("REQUESTS")
    before, ran = await positions(board), RAN.copy()

    steps: list[Step] = []
    replayed = await client.replay(run, everything, on_step=steps.append)

    assert (replayed.ending, replayed.status, replayed.is_as_recorded) == ("same", "completed", True)
    assert replayed.value == await client.result(run)
    assert replayed.steps == steps
    assert [step.number for step in steps] == list(range(1, replayed.recorded + 1))
    assert (await positions(board), RAN) == (before, ran)
    by_call = {step.call: step for step in steps}
    assert by_call["callboard.signal"].value == 7
    assert by_call["human.ask"].value == "word"
    failed = by_call["fail.call"]
    assert failed.error is not None
    assert (failed.error.message, failed.value, failed.arguments) == ("ValueError: no", None, {"text": "no"})
    assert by_call["large.call"].host
    assert {"a": 0, "b": "<3>"} in [step.arguments for step in steps]


async def until_asked(client: Client) -> None:
    """Wait until a question is open."""
    while not await client.inbox():
        await asyncio.sleep(0.005)


async def test_a_plain_workflow(board: Board) -> None:
    """In a thread, with lazy values."""
    await board.host(add, plain)
    client, run = await ended(board, plain, number=4)
    replayed = await client.replay(run, plain)
    assert (replayed.ending, replayed.value) == ("same", 8)
    assert [step.arguments for step in replayed.steps] == [{"a": 4, "b": 1}, {"a": "<1>", "b": 2}]


@pytest.mark.parametrize("sync", [False, True])
async def test_it_stops_after_a_step(board: Board, *, sync: bool) -> None:
    """Then the calls under way are told of."""
    flow: Workflow[Any, Any] = plain if sync else two
    await board.host(add, plain, two)
    client, run = await ended(board, flow, number=4)
    replayed = await client.replay(run, flow, until=1)
    assert (replayed.ending, replayed.is_cut, replayed.is_as_recorded) == ("stands", True, True)
    assert [step.path for step in replayed.steps] == ["1"]
    assert [(one.path, one.call, one.state) for one in replayed.open] == [("2", "add.call", "sent")]
    assert RAN["add"] == 2


@workflow
async def two(number: int) -> int:
    """The same on the loop."""
    first = await add(number, 1)
    return await add(first, 2) + 1


async def test_a_run_that_goes_on(board: Board) -> None:
    """It stands where the run does, which hears nothing of it."""
    await board.host(add, held, holds)
    client = await board.client()
    run = await client.submit("holds")
    await until(lambda: RAN["second"])
    replayed = await client.replay(run, holds)
    assert (replayed.ending, replayed.status, replayed.is_as_recorded) == ("stands", "running", True)
    assert [(one.call, one.arguments) for one in replayed.open] == [("held.call", {"name": "second"})]
    SECOND.set()
    assert await client.result(run) == "second"
    assert RAN == {"add": 1, "second": 1}
    assert (await client.replay(run, holds)).ending == "same"


@workflow
async def listens() -> int:
    """Waits for a signal after a call."""
    return await add(1, await callboard.signal("paid", type=int))


async def test_a_run_that_is_put_aside(board: Board) -> None:
    """It waits, and nobody drives it."""
    await board.host(add, listens, park_after=0.05)
    client = await board.client()
    run = await client.submit("listens")
    await board.entries(run, "aside")
    replayed = await client.replay(run, listens)
    assert (replayed.ending, replayed.status) == ("stands", "waiting")
    assert [one.call for one in replayed.open] == ["callboard.signal"]


async def test_one_that_was_cancelled(board: Board) -> None:
    """The code stands where it was stopped."""
    await board.host(add, held, holds)
    client = await board.client()
    run = await client.submit("holds")
    await until(lambda: RAN["second"])
    await client.cancel(run, "enough")
    await client.done(run)
    replayed = await client.replay(run, holds)
    assert (replayed.ending, replayed.status, replayed.is_as_recorded) == ("stands", "cancelled", True)


async def one_call() -> int:
    """What the run did."""
    return await add(1, 2)


async def another_call() -> str:
    """Something else at the same place."""
    return await fail("what")


async def no_call() -> int:
    """Not what the run did."""
    return 3


async def one_more() -> int:
    """More than the run did."""
    return await add(await add(1, 2), 3)


async def another_result() -> int:
    """The same call, and something else of it."""
    return await add(1, 2) + 1


async def raises() -> int:
    """The same call, and an error."""
    await add(1, 2)
    raise KeyError("oh")


@pytest.mark.parametrize(
    ("code", "ending", "code_of_error"),
    [
        (another_call, "diverged", "diverged"),
        (no_call, "diverged", "diverged"),
        (one_more, "stands", None),
        (another_result, "other", None),
        (raises, "other", "call_failed"),
    ],
)
async def test_code_that_does_something_else(
    board: Board, code: Callable[[], Any], ending: str, code_of_error: str | None
) -> None:
    """It is told, and never called."""
    await board.host(add, changes)
    CODE["now"] = one_call
    client, run = await ended(board, changes)
    CODE["now"] = code
    replayed = await client.replay(run, changes)
    assert (replayed.ending, replayed.is_as_recorded) == (ending, False)
    assert (replayed.error.code if replayed.error else None) == code_of_error
    assert RAN["add"] == 1


async def test_a_run_that_has_failed_fails_again(board: Board) -> None:
    """With the same error."""
    await board.host(add, changes)
    CODE["now"] = raises
    client, run = await ended(board, changes)
    with pytest.raises(RunFailed):
        await client.result(run)
    replayed = await client.replay(run, changes)
    assert (replayed.ending, replayed.status) == ("same", "failed")


async def test_large_arguments_of_a_run(board: Board) -> None:
    """They are kept beside the journal, also those that came as JSON."""
    await board.host(measure)
    client = await board.client()
    for as_json in (False, True):
        run = await client.submit("measure", {"text": "x" * 100_000}, as_json=as_json)
        assert await client.result(run) == 100_000
        replayed = await client.replay(run, measure)
        assert (replayed.ending, replayed.value) == ("same", 100_000)


@workflow
async def measure(text: str) -> int:
    """How long it is."""
    return len(text)


async def test_what_cannot_be_replayed(board: Board) -> None:
    """Nothing is known of it, its journal is not whole, its request was not kept, or the code is another's."""
    await board.host(add, plain)
    client, run = await ended(board, plain, number=1)
    with pytest.raises(RunUnknown, match="no run nothing"):
        await client.replay("nothing", plain)
    with pytest.raises(UnknownActor, match="'plain' here"):
        await client.replay(run, two)
    await board.emptied("REQUESTS")
    for at, (epoch, reason) in enumerate([(1, "request"), (2, "expired")]):
        old = Owner("h-old", epoch, 10**6, "plain")
        await client.node.store.stored(subjects.run(f"old{at}", "owner"), encode(old))
        with pytest.raises(JournalIncomplete) as refused:
            await client.replay(f"old{at}", plain)
        assert refused.value.fields["reason"] == reason


async def test_a_run_that_nobody_has_taken(board: Board) -> None:
    """There is nothing on record: the code stands at its first call."""
    await board.client()
    run = await board.submit(plain, number=1)
    client = await board.client()
    replayed: Replay = await client.replay(run, plain)
    assert (replayed.ending, replayed.status, replayed.recorded) == ("stands", "accepted", 0)
    assert [(one.path, one.state) for one in replayed.open] == [("1", "sent"), ("2", "waiting")]


async def test_a_record_is_plain_data(board: Board) -> None:
    """It can be written as it is."""
    await board.host(add, plain)
    client, run = await ended(board, plain, number=1)
    replayed = await client.replay(run, plain)
    assert msgspec.json.decode(msgspec.json.encode(replayed.steps[0]))["call"] == "add.call"
