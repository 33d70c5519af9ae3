"""Outcomes that leave with their commit: they count by the server's ack, whatever becomes of who waits or tells."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from tests.support.board import Board, call_headers, call_subject, packed
from tests.support.waiting import eventually, until

from callboard import ManagedList, agent, method, options, tool, workflow
from callboard.actors.commit_acks import AT_ONCE, HeldOutcome
from callboard.actors.host import Host
from callboard.actors.maker import QUIET
from callboard.infra import store, subjects
from callboard.infra.direct import Stored
from callboard.infra.messages.run import Result
from callboard.state.shelf import NatsShelf

RAN: Counter[str] = Counter()
GATE = asyncio.Event()
ENTERED = asyncio.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run, the gates are shut."""
    global GATE, ENTERED
    RAN.clear()
    GATE, ENTERED = asyncio.Event(), asyncio.Event()


@agent(concurrency=64)
class Ledger:
    """Keeps lines."""

    lines: ManagedList[str]

    @method
    async def enter(self, line: str) -> int:
        """Keep one."""
        RAN[line] += 1
        self.lines.append(line)
        return len(self.lines)

    @method
    async def wait(self, line: str) -> int:
        """Keep one when the gate opens."""
        ENTERED.set()
        await GATE.wait()
        return await self.enter(line)

    @method
    async def all(self) -> list[str]:
        """What is kept."""
        return list(self.lines)

    @method
    async def look_up(self, line: str) -> int:
        """Keep one, and what a tool says."""
        return await self.enter(f"{line} {await other()}")


@tool
async def other() -> str:
    """Something else."""
    return "other"


@tool
async def clerk(line: str) -> int:
    """Have a line kept."""
    return await Ledger.enter(line)


@workflow
async def entering(count: int) -> int:
    """Lines one after the other."""
    kept = 0
    for number in range(count):
        kept = await Ledger.enter(f"line {number}")
    return kept


@workflow
async def waiting() -> int:
    """A line when the gate opens."""
    return await Ledger.wait("line")


@workflow
async def by_a_clerk() -> int:
    """A line by way of a tool."""
    return await clerk("line")


@workflow
async def looking_up() -> int:
    """A line with what a tool says."""
    return await Ledger.look_up("line")


@workflow
async def at_once(count: int) -> list[int]:
    """One line in each of so many sessions."""

    async def one(number: int) -> int:
        with options(session=f"s{number}"):
            return await Ledger.enter(f"line {number}")

    return await asyncio.gather(*(one(number) for number in range(count)))


@workflow
async def first_of_two() -> list[str]:
    """Which of two calls is there first."""
    calls: list[Any] = [Ledger.enter("line"), other()]
    return [str(await done) for done in asyncio.as_completed(calls)]


async def raw(board: Board, run: str) -> list[Stored]:
    """The journal as the server has it."""
    node = await board.node()
    return await node.reader.read(subjects.RUNS, subjects.run(run, ">"))


def of_kind(entries: list[Stored], kind: str) -> list[Stored]:
    """Entries of a kind."""
    return [one for one in entries if one.subject.split(".")[3] == kind]


def results(entries: list[Stored]) -> list[Result]:
    """All outcomes, also those that are held."""
    decode = msgspec.msgpack.Decoder(Result).decode
    return [decode(one.body) for one in of_kind(entries, "result")]


async def test_the_outcome_leaves_with_the_commit(board: Board) -> None:
    """It is stored once, and counts by the ack that the server has put into the journal."""
    await board.host(Ledger, entering)
    run = await board.submit(entering, count=5)
    assert (await board.done(run)).status == "completed"
    entries = await raw(board, run)
    told = results(entries)
    assert [one.future for one in told] == [f"{run}:{number}" for number in range(1, 6)]
    assert all(one.commit for one in told)
    assert len(of_kind(entries, "commit")) == len(told)
    assert [one.future for one in await board.results(run)] == [one.future for one in told]
    await board.emptied(subjects.CALLS)


async def test_one_that_a_handler_has_called_too(board: Board) -> None:
    """Whoever has made the call hears of it: here a handler, on another host."""
    await board.host(Ledger)
    await board.host(clerk, by_a_clerk)
    assert await board.run(by_a_clerk) == 1


async def test_a_handler_that_has_made_calls_saves_nothing(board: Board) -> None:
    """Beside them it would be an entry for a part of a millisecond: its outcome is stored alone."""
    await board.host(Ledger, other, looking_up)
    run = await board.submit(looking_up)
    assert (await board.done(run)).status == "completed"
    assert of_kind(await raw(board, run), "commit") == []
    assert RAN == {"line other": 1}


async def test_many_at_once_share_acks(board: Board) -> None:
    """Only a few outcomes leave with their commits; each line is kept once."""
    await board.host(Ledger, at_once)
    run = await board.submit(at_once, count=200)
    assert (await board.done(run)).status == "completed"
    names = {one.subject for one in of_kind(await raw(board, run), "commit")}
    assert 0 < len(names) <= AT_ONCE
    assert all(count == 1 for count in RAN.values())
    assert len(RAN) == 200


async def test_who_does_not_hear_acks_is_given_the_outcome_alone(board: Board) -> None:
    """A driver of another version says nothing of them."""
    await board.host(Ledger)
    node = await board.node()
    head = call_headers("r1:1", "enter", Cb_Creator="h-other")
    await node.store.stored(call_subject(Ledger), packed({"line": "a"}), head)
    (entry,) = await board.entries("r1", "result")
    assert msgspec.msgpack.decode(entry.body)["value"] == 1
    assert of_kind(await raw(board, "r1"), "commit") == []


@pytest.mark.parametrize("creator", ["", "no token", "a.b", ">"])
async def test_who_hears_acks_and_is_nobody(board: Board, creator: str) -> None:
    """Headers are anybody's: the outcome is given alone."""
    await board.host(Ledger)
    node = await board.node()
    head = call_headers("r1:1", "enter", Cb_Creator=creator, Cb_Hears="commit")
    await node.store.stored(call_subject(Ledger), packed({"line": "a"}), head)
    await board.entries("r1", "result")
    assert of_kind(await raw(board, "r1"), "commit") == []


async def test_the_run_goes_on_though_its_host_dies_with_the_commit(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host has sent it and hears nothing more: nobody else runs the call."""
    host = await board.host(Ledger)
    await board.host(entering)
    monkeypatch.setattr(host.node.store, "answered", lambda *_: None)
    monkeypatch.setattr(store, "_LATE", 3600.0)
    assert await board.run(entering, count=1) == 1
    await board.kill(host)
    await board.host(Ledger)
    await board.emptied(subjects.CALLS)
    assert RAN == {"line 0": 1}


async def test_an_ack_that_the_host_does_not_hear(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends the commit again, and then the outcome: they are one, and the next calls go on."""
    await board.host(Ledger)
    await board.host(entering)
    acked, deaf = HeldOutcome.acked, [True]

    def hears(self: HeldOutcome, *ack: Any) -> None:
        if not deaf:
            acked(self, *ack)
        else:
            deaf.pop()

    monkeypatch.setattr(HeldOutcome, "acked", hears)
    monkeypatch.setattr(store, "_LATE", 0.2)
    monkeypatch.setattr(store, "_SWEEP", 0.1)
    run = await board.submit(entering, count=3)
    assert (await board.done(run)).status == "completed"
    await board.emptied(subjects.CALLS)
    assert RAN == {"line 0": 1, "line 1": 1, "line 2": 1}
    first = [one for one in results(await raw(board, run)) if one.future == f"{run}:1"]
    assert [bool(one.commit) for one in first] == [True, False]


async def test_another_holder_is_faster(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome of who has lost the session does not count, though it was told."""
    await board.host(Ledger, entering)
    commit, early = NatsShelf.commit, [True]

    async def fenced(self: NatsShelf, place: Any, body: bytes, after: int, *rest: Any, **more: Any) -> int:
        if more.get("told") is not None and early:
            early.pop()
            await commit(self, place, body, after)  # as of another host, which has run the call, too
            body = body + b"\xc0"
        return await commit(self, place, body, after, *rest, **more)

    monkeypatch.setattr(NatsShelf, "commit", fenced)
    run = await board.submit(entering, count=2)
    assert (await board.done(run)).status == "completed"
    assert {one.future: bytes(one.value) for one in await board.results(run)} == {
        f"{run}:1": b"\x01",
        f"{run}:2": b"\x02",
    }
    entries = await raw(board, run)
    assert len([one for one in of_kind(entries, "commit") if b"error" in one.body]) == 1
    first, *others = [one for one in results(entries) if one.future == f"{run}:1"]
    assert first.commit
    assert not any(one.commit for one in others)


async def test_a_driver_that_has_taken_the_run_over(board: Board) -> None:
    """The ack goes to the one before, which is gone: the new one looks into the journal soon."""
    await board.host(Ledger)
    first = await board.host(waiting)
    run = await board.submit(waiting)
    await ENTERED.wait()
    await board.kill(first)
    second = await board.host(waiting)
    await until(lambda: any(maker.open for maker in second.caller.makers))
    GATE.set()
    assert (await board.done(run, timeout=QUIET / 2)).status == "completed"
    assert results(await raw(board, run))[0].commit.startswith(f"{first.id}.")
    assert RAN == {"line": 1}


async def _held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each commit leaves when the gate opens, after its outcome."""
    commit = NatsShelf.commit

    class Early:
        def __init__(self, told: Any) -> None:
            self.subject = told.subject

        def tell(self) -> None:
            pass

    async def late(self: NatsShelf, *rest: Any, **more: Any) -> int:
        if (told := more.get("told")) is not None:
            told.tell()
            more["told"] = Early(told)
            ENTERED.set()
            await GATE.wait()
        return await commit(self, *rest, **more)

    monkeypatch.setattr(NatsShelf, "commit", late)


async def test_outcomes_come_in_the_order_in_which_they_count(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was told first and counts later is given later, and again so on replay."""
    await _held_back(monkeypatch)
    await board.host(Ledger)
    await board.host(other, first_of_two)
    run = await board.submit(first_of_two)
    await board.entries(run, "result")
    await ENTERED.wait()
    GATE.set()
    assert msgspec.msgpack.decode((await board.done(run)).value) == ["other", "1"]
    told = [one.call for one in results(await raw(board, run))]
    client = await board.client()
    replayed = await client.replay(run, first_of_two)
    assert (replayed.status, replayed.value) == ("completed", ["other", "1"])
    assert sorted(told) == ["Ledger.enter", "other.call"]


async def test_a_driver_that_takes_over_gives_them_in_the_same_order(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before it was there, counting after."""
    await _held_back(monkeypatch)
    await board.host(Ledger)
    first = await board.host(first_of_two)
    run = await board.submit(first_of_two)
    await ENTERED.wait()
    await board.kill(first)
    second = await board.host(first_of_two)
    await until(lambda: any(len(maker.open) == 2 for maker in second.caller.makers))
    await board.host(other)
    await board.entries(run, "result")
    GATE.set()
    done = await board.done(run, timeout=QUIET / 2)
    assert msgspec.msgpack.decode(done.value) == ["other", "1"]


async def test_a_connection_that_is_lost_in_between(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ack came while the driver was away: it is read."""
    await _held_back(monkeypatch)
    await board.host(Ledger)
    driver = await board.host(entering)
    run = await board.submit(entering, count=1)
    await ENTERED.wait()
    await until(lambda: any(maker._held for maker in driver.caller.makers))
    await _cut_off(driver)
    GATE.set()
    node = await board.node()

    async def counts() -> list[Stored]:
        return await node.reader.read(subjects.RUNS, subjects.run(run, "commit.>"))

    await eventually(counts)
    assert (await board.done(run, timeout=QUIET / 2)).status == "completed"


async def _cut_off(host: Host) -> None:
    transport = host.node.connection.client._transport
    assert transport is not None
    transport.close()  # type: ignore[no-untyped-call]
