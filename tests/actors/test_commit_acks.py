"""Outcomes that leave with their commit: they count by the server's ack, whatever becomes of who waits or tells."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from tests.support.board import Board, call_headers, call_subject, packed
from tests.support.waiting import eventually, until

from callboard import ManagedList, agent, method, options, signal, tool, workflow
from callboard.actors.commit_acks import AT_ONCE, CommitAcks, HeldOutcome
from callboard.actors.host import Host
from callboard.actors.maker import QUIET, CallMaker
from callboard.infra import store, subjects
from callboard.infra.direct import Stored
from callboard.infra.messages.run import Result, Signal
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
async def then_wait() -> str:
    """A line, and then a signal."""
    await Ledger.enter("line")
    return str(await signal("go"))


@workflow
async def then_many() -> int:
    """A line when the gate opens, and then many other calls."""
    await Ledger.wait("line")
    return sum([len(await other()) for _ in range(20)])


@tool(concurrency=16)
async def named(key: str, number: int) -> dict[str, int]:
    """A number under a key, when the gate opens."""
    RAN[key] += 1
    await GATE.wait()
    return {key: number}


@workflow
async def name_several(key: str) -> int:
    """Several at once."""
    return sum(one[key] for one in await asyncio.gather(*(named(key, number) for number in range(4))))


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
    """It sends the commit again soon, and then the outcome: they are one, and the next calls go on."""
    on_ack, deaf = CommitAcks._on_ack, [True]

    def hears(self: CommitAcks, *ack: Any) -> None:
        if not deaf:
            on_ack(self, *ack)
        else:
            deaf.pop()

    monkeypatch.setattr(CommitAcks, "_on_ack", hears)
    await board.host(Ledger)
    await board.host(entering)
    run = await board.submit(entering, count=3)
    assert (await board.done(run, timeout=store._LATE)).status == "completed"
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
    await _stored(board, run, "commit.>")
    assert (await board.done(run, timeout=QUIET / 2)).status == "completed"


@pytest.mark.parametrize("key", ["branch", "commit"])
async def test_a_value_may_have_a_key_of_that_name(board: Board, key: str) -> None:
    """Outcomes that were stored together while the driver was away are all read."""
    await board.host(named)
    driver = await board.host(name_several)
    run = await board.submit(name_several, key=key)
    await until(lambda: RAN[key] == 4)
    await _cut_off(driver)
    GATE.set()
    assert (await board.done(run, timeout=QUIET / 2)).status == "completed"


@pytest.mark.parametrize("body", [b"rubbish", b"", b'{"stream":"OTHER","seq":3}', b'{"seq":"x"}'])
async def test_rubbish_where_an_ack_is_to_come(
    board: Board, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """Anybody can publish to a journal: it is passed over, and the ack counts."""
    tell = HeldOutcome.tell

    def litters(self: HeldOutcome) -> None:
        tell(self)
        self._node.connection.publish(self.subject, body)

    monkeypatch.setattr(HeldOutcome, "tell", litters)
    host = await board.host(Ledger)
    await board.host(entering)
    assert await board.run(entering, count=3) == 3
    await until(lambda: not host.commit_acks._under_way and not host.node.store._elsewhere)
    assert RAN == {"line 0": 1, "line 1": 1, "line 2": 1}


async def test_a_journal_without_room(board: Board) -> None:
    """The ack is lost there, and the outcome stored later: soon after there is room."""
    await board.host(Ledger)
    await board.host(waiting)
    run = await board.submit(waiting)
    await ENTERED.wait()
    node = await board.node()
    info = await node.topology.api("STREAM.INFO.RUNS")
    full = {**info["config"], "max_msgs": info["state"]["messages"]}
    assert "error" not in await node.topology.api("STREAM.UPDATE.RUNS", full)
    GATE.set()
    host_store = (await _holder(board)).node.store
    await until(lambda: host_store.full_at > 0)
    assert "error" not in await node.topology.api("STREAM.UPDATE.RUNS", info["config"])
    assert (await board.done(run, timeout=store._LATE)).status == "completed"
    assert RAN == {"line": 1}


async def _stored(board: Board, run: str, kind: str) -> list[Stored]:
    """Wait for entries of a kind, whether they count or not."""
    node = await board.node()
    return await eventually(lambda: node.reader.read(subjects.RUNS, subjects.run(run, kind)))


async def _holder(board: Board) -> Host:
    return next(host for host in board._hosts if any(one.name == "Ledger" for one in host.declarations))


async def test_a_commit_that_nobody_takes(board: Board) -> None:
    """Whoever publishes to another's subject is not told that there is no stream: it is asked for soon."""
    await board.host(Ledger)
    await board.host(waiting)
    run = await board.submit(waiting)
    await ENTERED.wait()
    node = await board.node()
    bucket = f"KV_{subjects.STATE_BUCKET}"
    config = (await node.topology.api(f"STREAM.INFO.{bucket}"))["config"]
    elsewhere = {**config, "subjects": ["nowhere.>"]}
    assert "error" not in await node.topology.api(f"STREAM.UPDATE.{bucket}", elsewhere)
    GATE.set()
    await _stored(board, run, "result")
    assert "error" not in await node.topology.api(f"STREAM.UPDATE.{bucket}", config)
    assert (await board.done(run, timeout=store._LATE)).status == "completed"
    assert RAN == {"line": 1}


async def test_a_handler_that_is_stopped_while_it_commits(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit is acked all the same, and the store waits for nothing."""
    tell, stops = HeldOutcome.tell, [True]

    def stopped(self: HeldOutcome) -> None:
        tell(self)
        task = asyncio.current_task()
        if stops and task is not None:
            stops.pop()
            asyncio.get_running_loop().call_soon(task.cancel)

    monkeypatch.setattr(HeldOutcome, "tell", stopped)
    monkeypatch.setattr(store, "_LATE", 3600.0)
    host = await board.host(Ledger)
    await board.host(entering)
    run = await board.submit(entering, count=1)
    assert (await board.done(run)).status == "completed"
    await until(lambda: not host.node.store.outstanding)
    assert not host.node.store._elsewhere


async def test_a_run_that_rests_after_such_a_call_is_not_woken(board: Board) -> None:
    """What counts has been heard."""
    await board.host(Ledger)
    driver = await board.host(then_wait, park_after=0.1)
    run = await board.submit(then_wait)
    await board.entries(run, "aside")
    await until(lambda: not driver.caller.makers)
    node = await board.node()
    await node.journal.put_signal(run, Signal("go", value=msgspec.Raw(packed("on"))))
    assert (await board.done(run)).status == "completed"
    kinds = [entry.subject.split(".")[3] for entry in await raw(board, run)]
    assert kinds.count("aside") == 1


@pytest.mark.parametrize("stale", [False, True])
async def test_an_outcome_that_will_never_count_is_not_waited_for(
    board: Board, monkeypatch: pytest.MonkeyPatch, *, stale: bool
) -> None:
    """One was held, and stored again without: who takes the run over looks for no ack of the first."""
    await board.host(Ledger, other)
    first = await board.host(then_many)
    run = await board.submit(then_many)
    await ENTERED.wait()
    await board.kill(first)
    node = await board.node()
    result = Result(f"{run}:1", "Ledger.wait", msgspec.Raw(b"\x01"), host="h", sticky=True)
    if stale:
        await node.journal.add(run, msgspec.structs.replace(result, commit=f"{first.id}.h-gone.3"))
    await node.journal.add(run, result)
    reads, resync = Counter[str](), CallMaker.resync

    async def counted(self: CallMaker) -> None:
        reads["resync"] += 1
        await resync(self)

    monkeypatch.setattr(CallMaker, "resync", counted)
    await board.host(then_many)
    assert (await board.done(run)).status == "completed"
    assert reads["resync"] < 5


async def test_who_follows_a_run_reads_each_entry_once(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many outcomes were held."""
    await board.host(Ledger, entering)
    client = await board.client()
    read, seen = client.node.reader.read, Counter[int]()

    async def counted(stream: str, *rest: Any, **more: Any) -> list[Stored]:
        found = await read(stream, *rest, **more)
        seen.update(entry.sequence for entry in found if stream == subjects.RUNS)
        return found

    monkeypatch.setattr(client.node.reader, "read", counted)
    run = await client.submit(entering.name, {"count": 50})
    events = [event async for event in client.events(run)]
    assert len([event for event in events if event.kind == "result"]) == 50
    assert seen.most_common(1)[0][1] == 1


async def _cut_off(host: Host) -> None:
    transport = host.node.connection.client._transport
    assert transport is not None
    transport.close()  # type: ignore[no-untyped-call]
