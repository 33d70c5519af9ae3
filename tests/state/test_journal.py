"""The journal of a run: the lease, the entries, the outcome."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.state.conftest import Join, Process
from tests.support.waiting import until

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import Fenced, StoreRefused
from callboard.infra.messages.run import (
    Announced,
    Done,
    ErrorInfo,
    Owner,
    Pending,
    Result,
    RunSummary,
    Signal,
)
from callboard.state.journal import Outcomes, decode_done, encode, json_done, read_results

RUN = "run-1"


def owner(driver: str, epoch: int = 1, request: int = 7) -> Owner:
    """An owner's entry."""
    return Owner(driver=driver, epoch=epoch, request=request, workflow="w")


def packed(value: Any) -> msgspec.Raw:
    """A value as it stands in an entry."""
    return msgspec.Raw(msgspec.msgpack.encode(value))


def finished(value: Any = None, status: str = "completed", **fields: Any) -> Done:
    """An outcome."""
    return Done(run=RUN, workflow="w", status=status, value=packed(value), **fields)


async def put(process: Process, result: Result) -> int | StoreRefused:
    """Store a call's outcome and wait for it."""
    stored: asyncio.Future[int | StoreRefused] = asyncio.get_running_loop().create_future()
    process.journal.put_result(RUN, result, stored.set_result)
    return await stored


# -- the lease ------------------------------------------------------------------------------------------


async def test_the_first_owner_opens_the_journal(process: Process) -> None:
    """The lease is the first entry, and the journal tells who holds it."""
    lease = await process.journal.open(RUN, owner("a"))
    assert await process.journal.owner(RUN) == (lease.owner, lease.sequence)
    assert (lease.run, lease.owner.driver) == (RUN, "a")


@pytest.mark.parametrize("entry", ["owner", "signal", "result"])
async def test_a_journal_that_exists_cannot_be_opened(process: Process, entry: str) -> None:
    """Whatever stands there already, it has to be read first."""
    if entry == "owner":
        await process.journal.open(RUN, owner("a"))
    elif entry == "signal":
        await process.journal.put_signal(RUN, Signal("cancel"))
    else:
        await put(process, Result(f"{RUN}:1", "t.call"))
    with pytest.raises(Fenced):
        await process.journal.open(RUN, owner("b"))


async def test_of_many_that_open_at_once_one_has_the_lease(join: Join) -> None:
    """All others are fenced."""
    processes = [await join() for _ in range(4)]
    found = await asyncio.gather(
        *(process.journal.open(RUN, owner(str(n))) for n, process in enumerate(processes)),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in found) == ["Fenced", "Fenced", "Fenced", "Lease"]


async def test_the_lease_is_taken_over_once(process: Process) -> None:
    """Of two that want to take it over from the same owner the faster one has it."""
    first = await process.journal.open(RUN, owner("a"))
    second = await process.journal.take(RUN, owner("b", 2), first.sequence)
    assert second.sequence > first.sequence
    with pytest.raises(Fenced):
        await process.journal.take(RUN, owner("c", 2), first.sequence)
    assert await process.journal.owner(RUN) == (second.owner, second.sequence)


async def test_the_lease_of_a_run_that_had_only_a_signal(process: Process) -> None:
    """A run cancelled before it began has a journal and no owner: it is taken from nobody."""
    await process.journal.put_signal(RUN, Signal("cancel"))
    lease = await process.journal.take(RUN, owner("a"), 0)
    assert lease.owner.driver == "a"
    with pytest.raises(Fenced):
        await process.journal.take(RUN, owner("b"), 0)


async def test_an_ack_lost_with_the_connection_does_not_fence_its_own_writer(process: Process) -> None:
    """The lease was stored, the ack for it was not heard, so the entry is sent again: it is still ours."""
    store = process.store
    heard = store._on_ack

    def deaf(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        acks.append(data)

    acks: list[bytes] = []
    sid = next(sid for sid, lane in process.connection.client._lanes.items() if lane == heard)
    process.connection.client._lanes[sid] = deaf
    opening = asyncio.create_task(process.journal.open(RUN, owner("a")))
    await until(lambda: acks)
    process.connection.client._lanes[sid] = heard
    store._resend_all()
    async with asyncio.timeout(30):
        lease = await opening
    assert await process.journal.owner(RUN) == (lease.owner, lease.sequence)


# -- the outcome -----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True])
async def test_the_owner_closes_the_run(process: Process, as_json: bool) -> None:  # noqa: FBT001 - a case
    """Its outcome is found afterwards, the same in either encoding."""
    lease = await process.journal.open(RUN, owner("a"))
    assert await process.journal.done(RUN) is None
    done = finished({"answer": [1, 2.5, None, "ä"]}, epoch=1, calls=3, took=0.25)
    await process.journal.close(lease, done, as_json=as_json)
    assert await process.journal.done(RUN) == done
    (entry,) = await process.journal.read(RUN, "done")
    assert (entry.body[:1] == b"{") == as_json
    if as_json:
        assert json.loads(entry.body)["value"] == {"answer": [1, 2.5, None, "ä"]}


async def test_who_has_lost_the_lease_cannot_close(process: Process) -> None:
    """The late writer is fenced, and the new owner's outcome is the one that stands."""
    old = await process.journal.open(RUN, owner("a"))
    new = await process.journal.take(RUN, owner("b", 2), old.sequence)
    with pytest.raises(Fenced):
        await process.journal.close(old, finished("old"), as_json=False)
    await process.journal.close(new, finished("new"), as_json=False)
    assert await process.journal.done(RUN) == finished("new")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.sampled_from(["completed", "failed", "cancelled"]))
def test_an_outcome_is_the_same_in_json_and_msgpack(value: Any, status: str) -> None:
    """Whoever sent JSON gets JSON, and loses nothing that JSON can say."""
    error = ErrorInfo("call_failed", "why", path=["w", "t.call"]) if status == "failed" else None
    done = finished(value, status, error=error)
    assert decode_done(encode(done), {}) == done
    body = json_done(done)
    assert body is not None
    again = decode_done(body, {H.CONTENT_TYPE: H.JSON})
    if not _has_infinity(value):
        assert msgspec.msgpack.decode(again.value) == value
    assert msgspec.structs.replace(again, value=done.value) == done


def test_a_value_in_the_blob_store_is_null_in_json() -> None:
    """With its digest, so that whoever reads JSON can read the rest of the outcome."""
    digest = "ab" * 32
    done = finished(None, blobs=[digest])
    done.value = msgspec.Raw(msgspec.msgpack.encode(msgspec.msgpack.Ext(1, bytes.fromhex(digest))))
    body = json_done(done)
    assert body is not None
    assert json.loads(body)["value"] is None
    assert json.loads(body)["blobs"] == [digest]
    assert decode_done(body, {H.CONTENT_TYPE: H.JSON}) == done


def _has_infinity(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_infinity, value))
    if isinstance(value, dict):
        return any(map(_has_infinity, value.values()))
    return isinstance(value, float) and value in {float("inf"), float("-inf")}


# -- entries ---------------------------------------------------------------------------------------


async def test_entries_are_read_in_journal_order(process: Process) -> None:
    """Whatever their kind; one kind alone, and what comes after an entry, can be asked for."""
    await process.journal.open(RUN, owner("a"))
    process.journal.put_pending(RUN, Pending([Announced(f"{RUN}:2", "t.call", [f"{RUN}:1"])]))
    await put(process, Result(f"{RUN}:1", "t.call", packed(1)))
    await put(process, Result(f"{RUN}:1.1", "u.call", packed(2)))
    await process.journal.put_signal(RUN, Signal("cancel", "why"))
    await process.journal.open("other", owner("b"))
    entries = await process.journal.read(RUN)
    kinds = [entry.subject.removeprefix(f"cb.run.{RUN}.") for entry in entries]
    assert kinds == ["owner", "pending", "result", "result.1", "signal"]
    assert [e.subject for e in await process.journal.read(RUN, "result")] == [f"cb.run.{RUN}.result"]
    later = await process.journal.read(RUN, "*", after=entries[1].sequence)
    assert [e.sequence for e in later] == [entries[2].sequence, entries[4].sequence]


async def test_the_server_repeats_what_is_stored(process: Process) -> None:
    """Who listens hears each entry once it stands in the journal, with its sequence."""
    heard: list[tuple[bytes, int]] = []
    process.connection.subscribe(
        subjects.journal(RUN, "*"),
        lambda subject, reply, data, head: heard.append((subject, H.find_int(head, b"Nats-Sequence"))),
    )
    lease = await process.journal.open(RUN, owner("a"))
    await put(process, Result(f"{RUN}:1", "t.call"))
    await process.journal.close(lease, finished(), as_json=False)
    await until(lambda: len(heard) == 3)
    stored = await process.journal.read(RUN)
    assert heard == [
        (entry.subject.replace("cb.run.", "cb.journal.").encode(), entry.sequence) for entry in stored
    ]


async def test_a_result_comes_back_as_it_was(process: Process) -> None:
    """With value, error, cause and times."""
    error = ErrorInfo("call_failed", "why", "m:E", [1], {"a": 2}, traceback="tb", path=["w", "t.call"])
    error.cause = ErrorInfo("terminal", "since")
    result = Result(f"{RUN}:1", "t.call", error=error, host="h", attempt=3, stage=2, waited=0.5, took=1.5)
    await put(process, result)
    (entry,) = await process.journal.read(RUN, "result")
    assert list(read_results(entry.body)) == [result]


async def test_outcomes_of_one_turn_are_one_entry(process: Process) -> None:
    """Of each maker's calls, in order, up to a size; each is told that it is stored."""
    told: list[int | StoreRefused] = []
    names = [f"{RUN}:{n}" for n in range(1, 101)] + [f"{RUN}:1.{n}" for n in range(1, 4)] + [f"{RUN}:2.1"]
    for name in names:
        process.journal.put_result(RUN, Result(name, "t.call"), told.append)
    big = msgspec.Raw(msgspec.msgpack.encode(b"x" * 20_000))
    process.journal.put_result(RUN, Result(f"{RUN}:3.1", "t.call", big), told.append)
    process.journal.put_result(RUN, Result(f"{RUN}:3.2", "t.call"), told.append)
    await until(lambda: len(told) == len(names) + 2)
    entries = await process.journal.read(RUN)
    held = [[result.future for result in read_results(entry.body)] for entry in entries]
    assert sorted(map(len, held)) == [1, 1, 1, 3, 36, 64]
    assert [name for some in held for name in some if "." not in name] == names[:100]
    assert [name for some in held for name in some if ":1." in name] == names[100:103]
    assert sum(isinstance(sequence, int) for sequence in told) == len(names) + 2


async def test_what_is_gathered_when_a_process_ends_is_stored(process: Process) -> None:
    """Closing a process flushes first."""
    process.journal.put_result(RUN, Result(f"{RUN}:1", "t.call"), lambda _: None)
    process.journal.put_result(RUN, Result(f"{RUN}:2", "t.call"), lambda _: None)
    process.journal.flush()
    await process.store.stop()
    (entry,) = await process.journal.read(RUN, "result")
    assert [result.future for result in read_results(entry.body)] == [f"{RUN}:1", f"{RUN}:2"]


async def test_the_errors_of_earlier_attempts(process: Process) -> None:
    """Those of one call, oldest first."""
    for future, message in ((f"{RUN}:1", "first"), (f"{RUN}:2", "other"), (f"{RUN}:1", "second")):
        process.journal.put_attempt(RUN, Result(future, "t.call", error=ErrorInfo("call_failed", message)))
    await until(lambda: process.store.outstanding == 0)
    found = await process.journal.attempts(RUN, f"{RUN}:1")
    assert [error.message for error in found] == ["first", "second"]


async def test_summaries(process: Process) -> None:
    """The last one of each run counts; a run without one is unknown."""
    for run, status in (("r1", "running"), ("r2", "running"), ("r1", "completed")):
        process.journal.put_summary(RunSummary(run=run, workflow="w", status=status))
    await until(lambda: process.store.outstanding == 0)
    summary = await process.journal.summary("r1")
    assert summary is not None
    assert summary.status == "completed"
    assert await process.journal.summary("r3") is None
    found = await process.journal.summaries()
    assert [(one.run, one.status) for one in found] == [("r2", "running"), ("r1", "completed")]


@pytest.mark.parametrize("told", [[], ["running"]])
async def test_the_journal_knows_of_an_end_first(process: Process, told: list[str]) -> None:
    """A run that is closed has ended, whatever the bucket still says."""
    for status in told:
        process.journal.put_summary(RunSummary(run=RUN, workflow="w", status=status))
    lease = await process.journal.open(RUN, Owner("h-1", 1, 7, "w", "mine"))
    await until(lambda: process.store.outstanding == 0)
    standing = await process.journal.summary(RUN)
    assert (standing.status if standing else "") == "".join(told)
    await process.journal.close(
        lease, Done(RUN, "w", "failed", error=ErrorInfo("x", "no"), took=2), as_json=True
    )
    ended = await process.journal.summary(RUN)
    assert ended is not None
    assert (ended.status, ended.session, ended.driver, ended.error) == ("failed", "mine", "h-1", "no")
    assert ended.finished == pytest.approx(ended.started + 2)


# -- which calls are done --------------------------------------------------------------------------


async def test_outcomes_follow_the_journal(process: Process) -> None:
    """A call is known once it has its outcome; the next question reads only what is new."""
    outcomes = Outcomes(process.journal)
    assert not await outcomes.known(RUN, f"{RUN}:1")
    await put(process, Result(f"{RUN}:1", "t.call"))
    await put(process, Result(f"{RUN}:5.1", "t.call"))
    assert await outcomes.known(RUN, f"{RUN}:1")
    assert not await outcomes.known(RUN, f"{RUN}:2")
    assert await outcomes.known(RUN, f"{RUN}:5.1")
    await put(process, Result(f"{RUN}:2", "t.call"))
    assert await outcomes.known(RUN, f"{RUN}:2")


async def test_a_refusal_is_no_outcome(process: Process) -> None:
    """A call refused by a full lane comes again, so it is not done."""
    outcomes = Outcomes(process.journal)
    await put(process, Result(f"{RUN}:1", "t.call", error=ErrorInfo("overloaded", "full")))
    assert not await outcomes.known(RUN, f"{RUN}:1")


async def test_all_calls_of_a_run_that_has_ended_are_done(process: Process) -> None:
    """Nobody waits for them any more."""
    lease = await process.journal.open(RUN, owner("a"))
    await process.journal.close(lease, finished(), as_json=False)
    assert await Outcomes(process.journal).known(RUN, f"{RUN}:1")


async def test_outcomes_of_many_runs_at_once(process: Process) -> None:
    """Questions beside each other are answered right, and the memory for runs is bounded."""
    outcomes = Outcomes(process.journal, size=4)
    told: list[int | StoreRefused] = []
    for number in range(0, 20, 2):
        process.journal.put_result(f"r{number}", Result(f"r{number}:1", "t.call"), told.append)
    await until(lambda: len(told) == 10)
    asked = [f"r{number}" for number in range(20)] * 3
    found = await asyncio.gather(*(outcomes.known(run, f"{run}:1") for run in asked))
    assert found == [number % 2 == 0 for number in range(20)] * 3
    assert len(outcomes._done) <= 4


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"not msgpack", b"\x80", b"\x93\x01\x02\x03"])
async def test_garbage_in_a_journal_is_passed_over(process: Process, garbage: bytes) -> None:
    """Anybody can publish there: what is no entry hides none of the others and raises nothing."""
    for kind in ("result", "attempt", "owner", "signal", "pending", "nonsense"):
        await process.store.stored(subjects.run(RUN, kind), garbage)
    await put(process, Result(f"{RUN}:1", "t.call"))
    process.journal.put_attempt(RUN, Result(f"{RUN}:1", "t.call", error=ErrorInfo("call_failed", "why")))
    await until(lambda: process.store.outstanding == 0)
    assert await Outcomes(process.journal).known(RUN, f"{RUN}:1")
    assert [error.message for error in await process.journal.attempts(RUN, f"{RUN}:1")] == ["why"]
    await process.store.stored(subjects.run_summary(RUN), garbage)
    assert await process.journal.summaries() == []
    assert await process.journal.summary(RUN) is None
