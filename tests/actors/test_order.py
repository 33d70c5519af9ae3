"""Managed state: the order of one maker's calls, whose outcomes count, and copies that come late."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest
from tests.support.board import Board, call_headers, call_subject, instance, packed
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import ManagedCounter, ManagedList, agent, method, tool, workflow
from callboard.actors.host import Host
from callboard.infra import subjects
from callboard.infra.errors import RunFailed
from callboard.infra.messages.control import Taken
from callboard.infra.messages.run import NIL, Result
from callboard.state.journal import encode
from callboard.state.managed import within
from callboard.state.session import Rules, Session
from callboard.state.shelf import Place
from callboard.state.states import States

GATE = Gate()
BEGUN: list[str] = anew([])


class Full(Exception):
    """There are so many lines."""


@agent(concurrency=8)
class Ledger:
    """Keeps lines."""

    lines: ManagedList[str]
    count: ManagedCounter

    @method(retries=2, backoff=0.02)
    async def add(self, text: str) -> int:
        """Keep a line; one that begins with ``shaky`` fails as long as it stands last in BEGUN."""
        BEGUN.append(text)
        self.lines.append(text)
        if text.startswith("shaky") and BEGUN.count(text) == 1:
            raise ValueError(text)
        return len(self.lines)

    @method
    async def all(self) -> list[str]:
        """All lines."""
        return list(self.lines)

    @method
    async def hold(self) -> None:
        """Keep a line when the gate opens."""
        BEGUN.append("hold")
        await GATE.wait()
        self.lines.append("hold")

    @method
    async def refuse(self) -> None:
        """Say how many there are, when the gate opens."""
        BEGUN.append("refuse")
        count = len(self.lines)
        await GATE.wait()
        raise Full(count)


@workflow
async def burst(texts: list[str]) -> list[str]:
    """All at once."""
    await asyncio.gather(*(Ledger.add(text) for text in texts))
    return await Ledger.all()


@tool
async def late_text() -> str:
    """Comes when the gate opens."""
    await GATE.wait()
    return "late"


@workflow
async def late_and_early() -> list[str]:
    """The argument of the first call comes later than that of the second."""
    await asyncio.gather(Ledger.add(late_text().arg), Ledger.add("early"))
    return await Ledger.all()


@workflow
async def both() -> None:
    """One call that waits, and another."""
    first, second = Ledger.hold(), Ledger.add("after")
    await first
    await second


@workflow
async def refused() -> None:
    """One that raises."""
    await Ledger.refuse()


@agent(state_ttl=1)
class Short:
    """Keeps what it has for a second."""

    count: ManagedCounter

    @method
    async def add(self) -> int:
        """One more."""
        self.count += 1
        return int(self.count)


@workflow
async def briefly() -> int:
    """One more."""
    return await Short.add()


@workflow
async def told(text: str) -> int:
    """One line."""
    return await Ledger.add(text)


async def opened(host: Host, session: str) -> Session:
    """A session as a host has it."""
    rules = instance(host, Ledger).rules
    assert rules is not None
    return await host.states.open("Ledger", session, rules)


async def lines(host: Host, session: str) -> list[str]:
    """What a session holds, read anew."""
    host.states.forget("Ledger", session)
    with within((await opened(host, session)).begin()):
        return list(Ledger().lines)


async def write(session: Session, text: str, call: str = "", result: Result | None = None) -> None:
    """Commit a line as a handler does."""
    with within(session.begin()):
        Ledger().lines.append(text)
        await session.commit(call, msgspec.Raw(encode(result)) if result else NIL)


async def test_calls_made_at_once_take_effect_in_the_order_in_which_they_were_made(board: Board) -> None:
    """On several hosts, when nobody knows yet who holds the session; also where one is tried again."""
    for _ in range(3):
        await board.host(Ledger)
    await board.host(burst)
    texts = [f"{'shaky' if number % 7 == 3 else 'line'} {number}" for number in range(20)]
    assert await board.run(burst, texts=texts) == texts


async def test_a_call_that_waits_for_its_arguments_counts_from_when_they_are_there(board: Board) -> None:
    """Calls that were made after it, and have theirs, go first."""
    await board.host(Ledger, late_text)
    await board.host(late_and_early)
    run = await board.submit(late_and_early)
    await until(lambda: BEGUN == ["early"])
    GATE.set()
    assert await (await board.client()).result(run, SOON) == ["early", "late"]


async def test_calls_of_several_makers_count_from_when_they_reach_the_holder(board: Board) -> None:
    """One after the other, as they have come."""
    holder = await board.host(Ledger)
    await board.host(both, told)
    client = await board.client()
    runs = [await client.submit(both.name, {}, session="s")]
    await until(lambda: BEGUN == ["hold"])
    for number, text in enumerate(("x", "y", "z"), 2):
        runs.append(await client.submit(told.name, {"text": text}, session="s"))
        await until(lambda number=number: len(instance(holder, Ledger).running) == number)  # type: ignore[misc]
    GATE.set()
    for run in runs:
        await client.result(run, SOON)
    assert [text for text in await lines(holder, "s") if text != "after"] == ["hold", "x", "y", "z"]


async def test_a_driver_that_has_lost_its_run_sends_nothing_more(board: Board) -> None:
    """It stops waiting for the first call, which goes on: the second one's turn has not come."""
    await board.host(Ledger)
    driver = await board.host(both)
    node = await board.node()
    sent: list[str] = []
    node.connection.subscribe("cb.call.Ledger.>", lambda subject, *_: sent.append(subject.decode()))
    await node.connection.flush()
    run = await board.submit(both)
    await until(lambda: BEGUN == ["hold"])
    taken = msgspec.msgpack.encode(Taken(run, 2))
    node.connection.publish(subjects.control(driver.id), taken)
    (member,) = driver.instances()
    await until(lambda: member.info().busy == 0)
    await driver.node.connection.flush()
    await node.connection.flush()
    assert len(sent) == 1
    GATE.set()


async def test_what_a_holder_says_that_is_none_any_more_does_not_count(board: Board) -> None:
    """Its handler raises over a state that others have changed: the next holder's answer is the outcome."""
    stale = await board.host(Ledger)
    await board.host(refused)
    client = await board.client()
    run = await client.submit(refused.name, {}, session="s")
    await until(lambda: BEGUN == ["refuse"])
    other = await board.host(Ledger)
    session = await opened(other, "s")
    await session.take(other.id)
    await write(session, "meanwhile")
    GATE.set()
    with pytest.raises(RunFailed) as failed:
        await client.result(run, SOON)
    assert isinstance(failed.value.__cause__, Full)
    assert failed.value.__cause__.args == (1,)
    assert BEGUN == ["refuse", "refuse"]
    await until(lambda: instance(stale, Ledger).running == {})


async def test_a_call_that_was_passed_on_late_does_not_run_again(board: Board) -> None:
    """The state has forgotten it by then, the journal has not."""
    holder = await board.host(Ledger, told, burst, state_history=8)
    client = await board.client()
    run = await client.submit(told.name, {"text": "once"}, session="s")
    await client.result(run, SOON)
    await client.run(burst.name, {"texts": [str(n) for n in range(12)]}, session="s", timeout=30)
    holder.recent.clear()
    other = await board.host(Ledger, state_history=8)
    node = await board.node()
    head = call_headers(f"{run}:1", "add", Cb_Session="s", Nats_Msg_Id="a copy")
    await node.store.stored(subjects.call("Ledger", other.id, 1), packed({"text": "once"}), head)
    await board.emptied("CALLS")
    assert BEGUN.count("once") == 1
    assert (await lines(holder, "s")).count("once") == 1


async def test_a_host_that_stood_still_does_not_run_what_others_have_run(board: Board) -> None:
    """It has had the call since before the others ran it, and takes the session over from them."""
    late = await board.host(Ledger, state_history=8)
    driver = await board.host(told, burst)
    holder = await board.host(Ledger, state_history=8)
    open_now = late.states.open

    async def open_late(actor: str, session: str, rules: Rules) -> Session:
        await GATE.wait()
        return await open_now(actor, session, rules)

    late.states.open = open_late  # type: ignore[method-assign]
    head = call_headers("01RUN:1", "add", Cb_Session="s", Nats_Msg_Id="a copy")
    await driver.node.store.stored(subjects.call("Ledger", late.id, 1), packed({"text": "once"}), head)
    await until(lambda: instance(late, Ledger).running != {})
    session = await opened(holder, "s")
    await session.take(holder.id)
    outcome = Result("01RUN:1", "Ledger.add", host=holder.id)
    await write(session, "once", "01RUN:1", outcome)
    await driver.node.store.stored("cb.run.01RUN.result", encode(outcome))
    for number in range(12):
        await write(session, str(number), f"01RUN:{number + 2}", outcome)
    await board.kill(holder)
    await board.emptied_of_host(holder)
    GATE.set()
    await board.emptied("CALLS")
    assert BEGUN == []
    assert (await lines(late, "s")).count("once") == 1


async def test_the_last_outcome_of_a_dead_holder_comes_into_the_journal(board: Board) -> None:
    """It died after its commit: whoever takes the session over says what came of the call."""
    holder = await board.host(Ledger)
    session = await opened(holder, "s")
    await session.take(holder.id)
    outcome = Result("01RUN:1", "Ledger.add", msgspec.Raw(packed(1)), host=holder.id)
    await write(session, "once", "01RUN:1", outcome)
    other = await board.host(Ledger, told)
    await board.kill(holder)
    await board.emptied_of_host(holder)
    client = await board.client()
    assert await client.run(told.name, {"text": "next"}, session="s", timeout=30) == 2
    assert [result.future for result in await board.results("01RUN")] == ["01RUN:1"]
    node = await board.node()
    head = call_headers("01RUN:1", "add", Cb_Session="s", Nats_Msg_Id="a copy", Cb_Again="1")
    await node.store.stored(call_subject(Ledger), packed({"text": "once"}), head)
    await board.emptied("CALLS")
    assert await lines(other, "s") == ["once", "next"]


async def test_the_next_calls_of_a_session_read_nothing(board: Board) -> None:
    """Its holder has the state, and knows that nobody else had the calls."""
    holder = await board.host(Ledger)
    await board.host(burst)
    client = await board.client()
    await client.run(burst.name, {"texts": ["first"]}, session="s", timeout=30)
    node = await board.node()
    reads: list[str] = []
    for subject in ("$JS.API.DIRECT.GET.KV_cb_state", "$JS.API.DIRECT.GET.KV_cb_state.>"):
        node.connection.subscribe(subject, lambda subject, *_: reads.append(subject.decode()))
    await node.connection.flush()

    async def known(run: str, future: str) -> bool:
        reads.append(f"{run} {future}")
        return False

    holder.outcomes.known = known  # type: ignore[method-assign]
    await client.run(burst.name, {"texts": ["second", "third"]}, session="s", timeout=30)
    await node.connection.flush()
    assert reads == []


async def test_a_state_that_was_deleted_or_imported_is_not_gone_on_with(board: Board) -> None:
    """Its holder had it in memory: a handler may run once more, and only what it does to the new state counts."""
    await board.host(Ledger)
    await board.host(burst)
    client = await board.client()
    await client.run(burst.name, {"texts": ["a"]}, session="s", timeout=30)
    node = await board.node()
    states = States(node.shelf, node.settings)
    kept = await states.export("Ledger", "s")
    await states.delete("Ledger", "s")
    assert await client.run(burst.name, {"texts": ["b"]}, session="s", timeout=30) == ["b"]
    await states.import_(kept, replace=True)
    assert await client.run(burst.name, {"texts": ["c"]}, session="s", timeout=30) == ["a", "c"]
    assert max(Counter(BEGUN).values()) <= 2


async def test_a_state_that_expired_in_memory_is_not_gone_on_with(board: Board) -> None:
    """It is kept so long after its last commit, whoever has it."""
    host = await board.host(Short)
    await board.host(briefly)
    client = await board.client()
    assert await client.run(briefly.name, {}, session="s", timeout=30) == 1
    session = host.states._open[Place("Short", "s")]  # as it is in memory, however late it is by now
    await until(lambda: session.expired)
    assert await client.run(briefly.name, {}, session="s", timeout=30) == 1
