"""Moving sessions: the calls that wait go after it, what runs ends first, nothing runs twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.support.board import Board, call_headers, instance, packed
from tests.support.waiting import SOON, eventually, until

from callboard import ManagedCounter, ManagedList, agent, batchable, method, workflow
from callboard.actors.client import Client
from callboard.actors.declared import declaration
from callboard.actors.host import Host
from callboard.infra import subjects
from callboard.infra.errors import (
    DeclarationInvalid,
    MigrationFailed,
    NoDestination,
    ResultTimeout,
    RunFailed,
    SessionHeld,
    SessionUnmovable,
    StateUnknown,
    StoreRefused,
    UnknownActor,
)
from callboard.infra.messages.control import Activate, Migrate, Migrated
from callboard.state.session import Session

RAN: Counter[str] = Counter()
GATE = asyncio.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run, the gate is shut."""
    global GATE  # noqa: PLW0603 - an event belongs to the loop of one test
    RAN.clear()
    GATE = asyncio.Event()


@agent(concurrency=1)
class Diary:
    """Keeps lines."""

    lines: ManagedList[str]
    count: ManagedCounter

    @method
    async def write(self, text: str) -> list[str]:
        """Keep a line."""
        RAN[text] += 1
        self.lines.append(text)
        self.count += 1
        return list(self.lines)

    @method
    async def wait(self, text: str) -> list[str]:
        """Keep a line when the gate opens."""
        RAN[text] += 1
        self.lines.append(text)
        await GATE.wait()
        return list(self.lines)

    @method(preemptable=True)
    async def linger(self, text: str) -> list[str]:
        """The same, and may be stopped."""
        RAN[text] += 1
        self.lines.append(text)
        await GATE.wait()
        return list(self.lines)


@workflow
async def entry(text: str, how: str = "write") -> list[str]:
    """One line."""
    stub = {"write": Diary.write, "wait": Diary.wait, "linger": Diary.linger}[how]
    return await stub(text)


@workflow
async def entries(texts: list[str]) -> list[list[str]]:
    """Many lines, made at once."""
    return list(await asyncio.gather(*(Diary.write(text) for text in texts)))


@agent
class Plain:
    """Keeps nothing."""

    async def go(self) -> int:
        """Nothing."""
        return 1


async def holder(client: Client, session: str, actor: str = "Diary") -> str:
    """Who holds a session."""
    return (await client.state.show(actor, session)).holder


async def parted(board: Board) -> tuple[Client, Host, Host]:
    """A session "s" with one line, its holder, and another host; both know each other, and nobody steals."""
    hosts = [await board.host(Diary, steal_after=0.0), await board.host(Diary, steal_after=0.0)]
    await board.host(entry, entries)
    client = await board.client()
    assert await client.run("entry", {"text": "first"}, session="s", timeout=30) == ["first"]
    held = await holder(client, "s")
    for host in hosts:
        await until(lambda host=host: len(host.watch.serving("Diary")) == 2)  # type: ignore[misc]
    return client, *sorted(hosts, key=lambda host: host.id != held)  # type: ignore[return-value]


async def test_an_idle_session_moves(board: Board) -> None:
    """The other host holds it, and has it open; the next call runs there, and finds what was kept."""
    client, source, other = await parted(board)
    (moved,) = await client.migrate("s", "Diary")
    assert (moved.host, moved.epoch, moved.error) == (other.id, 2, None)
    assert await holder(client, "s") == other.id
    assert ("Diary", "s") in other.states._open
    assert ("Diary", "s") not in source.states._open
    assert await client.run("entry", {"text": "second"}, session="s", timeout=30) == ["first", "second"]
    assert await holder(client, "s") == other.id


async def test_to_a_host_by_its_name(board: Board) -> None:
    """The one that has it now; from another one than is named nothing moves."""
    first = await board.host(Diary, entry, entries)
    client = await board.client()
    await client.run("entry", {"text": "first"}, session="s", timeout=30)
    await board.kill(await board.named("left", Diary))
    left, right = await board.named("left", Diary), await board.named("right", Diary)
    for one, other in ((first, left), (left, right)):
        await until(lambda one=one, other=other: one.watch.serves(other.id, "Diary"))  # type: ignore[misc]
    assert (await client.migrate("s", "Diary", destination="left"))[0].host == left.id
    with pytest.raises(MigrationFailed, match="nothing was moved"):
        await client.migrate("s", "Diary", "right")
    assert (await client.migrate("s", "Diary", "left", "right"))[0].host == right.id
    with pytest.raises(NoDestination, match="host middle cannot"):
        await client.migrate("s", "Diary", destination="middle")


async def test_a_call_that_runs_ends_first(board: Board) -> None:
    """What waits behind it goes after the session, in its order, and each call runs once."""
    client, source, other = await parted(board)
    first = await client.submit("entry", {"text": "long", "how": "wait"}, session="s")
    await until(lambda: RAN["long"] == 1)
    runs = [await client.submit("entry", {"text": str(number)}, session="s") for number in range(5)]
    await until(lambda: len(instance(source, Diary).running) == 6)
    moving = asyncio.create_task(client.migrate("s", "Diary", source.id, other.id))
    await until(lambda: bool(source.migrations._moves))
    late = await client.submit("entry", {"text": "late"}, session="s")
    assert not moving.done()
    GATE.set()
    (moved,) = await moving
    assert moved.calls >= 5
    assert await client.result(first, SOON) == ["first", "long"]
    for run in [*runs, late]:
        await client.result(run, SOON)
    view = await client.state.show("Diary", "s")
    assert sorted(view.attributes["lines"][2:]) == ["0", "1", "2", "3", "4", "late"]
    assert view.attributes["lines"][:2] == ["first", "long"]
    assert view.holder == other.id
    assert set(RAN.values()) == {1}
    await until(lambda: instance(source, Diary).running == {})


async def test_two_who_want_it_elsewhere(board: Board) -> None:
    """The first one has it moved; the other one is told where it is."""
    client, source, other = await parted(board)
    third = await board.host(Diary)
    await until(lambda: source.watch.serves(third.id, "Diary"))
    run = await client.submit("entry", {"text": "long", "how": "wait"}, session="s")
    await until(lambda: RAN["long"] == 1)
    wanted, migrate = set(), source.migrations.migrate

    async def heard_of(asked: Migrate) -> Migrated:
        wanted.add(asked.to)
        return await migrate(asked)

    source.migrations.migrate = heard_of  # type: ignore[method-assign]
    first = asyncio.create_task(client.migrate("s", "Diary", source.id, other.id))
    await until(lambda: bool(source.migrations._moves))
    second = asyncio.create_task(client.migrate("s", "Diary", source.id, third.id))
    await until(lambda: wanted == {other.id, third.id})
    assert not second.done()
    GATE.set()
    assert (await first)[0].host == other.id
    with pytest.raises(MigrationFailed, match="ask for it once more") as caught:
        await second
    assert caught.value.fields["host"] == other.id
    await client.result(run, SOON)
    assert (await client.migrate("s", "Diary", None, third.id))[0].host == third.id


async def test_a_preemptable_call_is_stopped(board: Board) -> None:
    """It runs again where the session is then, before those that waited behind it."""
    client, source, other = await parted(board)
    first = await client.submit("entry", {"text": "long", "how": "linger"}, session="s")
    await until(lambda: RAN["long"] == 1)
    second = await client.submit("entry", {"text": "after"}, session="s")
    await until(lambda: len(instance(source, Diary).running) == 2)
    (moved,) = await client.migrate("s", "Diary")
    assert (moved.host, moved.calls) == (other.id, 2)
    await until(lambda: RAN["long"] == 2)
    GATE.set()
    assert await client.result(first, SOON) == ["first", "long"]
    assert await client.result(second, SOON) == ["first", "long", "after"]


async def test_calls_behind_one_that_runs_in_another_session(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many sessions move in one go while the only slot is taken; their calls run elsewhere at once."""
    monkeypatch.setattr("callboard.actors.instance.STUCK", 600.0)  # what has come stays until it is moved
    client, source, other = await parted(board)
    sessions = [f"t{number}" for number in range(20)]
    for session in sessions:
        await client.run("entry", {"text": "x"}, session=session, timeout=30)
    await client.migrate(
        [s for s in sessions if await holder(client, s) != source.id], "Diary", None, source.id
    )
    long = await client.submit("entry", {"text": "long", "how": "wait"}, session="s")
    await until(lambda: RAN["long"] == 1)
    runs = [await client.submit("entry", {"text": f"y{s}"}, session=s) for s in sessions]
    await until(lambda: len(instance(source, Diary).running) == 21)
    moved = await client.migrate(sessions, "Diary")
    assert {one.host for one in moved} == {other.id}
    assert [one.calls for one in moved] == [1] * 20
    for run, session in zip(runs, sessions, strict=True):
        assert await client.result(run, SOON) == ["x", f"y{session}"]
    GATE.set()
    await client.result(long, SOON)
    assert {count for text, count in RAN.items() if text != "x"} == {1}


async def test_there_and_back_under_load(board: Board) -> None:
    """A session that moves all the time: every call runs once, each maker's in its order."""
    client, source, other = await parted(board)
    runs = [
        await client.submit("entries", {"texts": [f"{maker}-{n}" for n in range(20)]}, session="s")
        for maker in range(4)
    ]
    moves = 0
    while len(RAN) < 81:
        await client.migrate("s", "Diary", None, (source, other)[moves % 2].id)
        moves += 1
    for run in runs:
        await client.result(run, SOON)
    lines = (await client.state.show("Diary", "s")).attributes["lines"]
    assert moves > 2
    for maker in range(4):
        assert [line for line in lines if line.startswith(f"{maker}-")] == [f"{maker}-{n}" for n in range(20)]
    assert set(RAN.values()) == {1}


async def test_makers_are_told(board: Board) -> None:
    """The next call of a maker goes to the new holder at once; nobody passes it on."""
    client, _, other = await parted(board)
    driver = next(host for host in board._hosts if not host.watch.serves(host.id, "Diary"))
    await client.migrate("s", "Diary")
    await until(lambda: driver.caller.holder("Diary", "s") == other.id)
    node = await board.node()
    sent: list[str] = []
    node.connection.subscribe("cb.call.Diary.>", lambda subject, *_: sent.append(subject.decode()))
    await node.connection.flush()
    await client.run("entry", {"text": "x"}, session="s", timeout=30)
    await until(lambda: sent)
    assert sent == [f"cb.call.Diary.{other.id}.1"]


async def send(board: Board, host: Host, future: str) -> None:
    """A call in a host's lane, as a maker sends it that has heard nothing."""
    node = await board.node()
    head = call_headers(future, "write", Cb_Session="s", Nats_Msg_Id=future)
    await node.store.stored(subjects.call("Diary", host.id, 1), packed({"text": future}), head)


async def test_a_late_call_is_passed_on_without_a_slot(board: Board) -> None:
    """Whoever sends it to the source has not heard; the only slot is taken there by another session."""
    client, source, other = await parted(board)
    await client.run("entry", {"text": "x"}, session="t", timeout=30)
    await client.migrate("t", "Diary", None, source.id)
    long = await client.submit("entry", {"text": "long", "how": "wait"}, session="t")
    await until(lambda: RAN["long"] == 1)
    await client.migrate("s", "Diary", None, other.id)
    await send(board, source, "01RUN:1")
    await board.entries("01RUN", "result")
    assert (await board.results("01RUN"))[0].host == other.id
    GATE.set()
    await client.result(long, SOON)


async def test_two_hosts_do_not_pass_a_call_to_and_fro(board: Board) -> None:
    """The session came back, and its host has not heard: it remembers where it once sent it."""
    client, source, other = await parted(board)
    await client.migrate("s", "Diary", None, other.id)

    told: list[Activate] = []

    async def deaf(asked: Activate) -> None:
        told.append(asked)

    source.migrations.activate = deaf  # type: ignore[method-assign]
    await client.migrate("s", "Diary", None, source.id)
    assert [one.sessions for one in told] == [{"s": 3}]
    node = await board.node()
    sent: list[str] = []
    node.connection.subscribe("cb.call.Diary.>", lambda subject, *_: sent.append(subject.decode()))
    await node.connection.flush()
    await send(board, other, "01RUN:1")
    await board.entries("01RUN", "result")
    assert (await board.results("01RUN"))[0].host == source.id
    await until(lambda: len(sent) >= 2)
    assert sent == [f"cb.call.Diary.{other.id}.1", f"cb.call.Diary.{source.id}.1"]


async def test_a_call_that_comes_back_while_it_is_passed_on(board: Board) -> None:
    """The session has come back, and the call with it, before its first message is settled: it is run."""
    client, source, other = await parted(board)
    await client.migrate("s", "Diary", None, other.id)
    stored, back = source.node.store.stored, asyncio.Event()

    async def comes_back(subject: str, body: bytes, head: bytes | None = None, ack: str = "") -> int:
        if not subject.startswith("cb.call.Diary."):
            return await stored(subject, body, head, ack)
        await client.migrate("s", "Diary", None, source.id)
        sequence = await stored(subjects.call("Diary", source.id, 1), body, head)
        await until(lambda: any(call.copies for call in instance(source, Diary).running.values()))
        back.set()
        return sequence

    source.node.store.stored = comes_back  # type: ignore[method-assign]
    await send(board, source, "01RUN:1")
    async with asyncio.timeout(30):
        await back.wait()
    await board.entries("01RUN", "result")
    assert RAN["01RUN:1"] == 1


async def test_what_cannot_be_moved(board: Board) -> None:
    """Each reason is an error of its own, and the session stays."""
    client, source, other = await parted(board)
    await board.host(Plain)
    with pytest.raises(UnknownActor):
        await client.migrate("s", "Nobody")
    with pytest.raises(StateUnknown):
        await client.migrate("no such", "Diary")
    with pytest.raises(SessionUnmovable, match="keeps nothing"):
        await client.migrate("s", "Plain")
    with pytest.raises(NoDestination, match="nowhere"):
        await client.migrate("s", "Diary", None, "nowhere")
    with pytest.raises(MigrationFailed, match=source.id):
        await client.migrate("s", "Diary", other.id)
    await other.stop()
    with pytest.raises(NoDestination, match="no other host"):
        await client.migrate("s", "Diary")
    assert await holder(client, "s") == source.id
    assert (await client.migrate("s", "Diary", None, source.id))[0].host == source.id


async def test_a_call_that_does_not_end_in_time(board: Board) -> None:
    """Whoever asked is told; the session moves when the call ends."""
    client, source, other = await parted(board)
    run = await client.submit("entry", {"text": "long", "how": "wait"}, session="s")
    await until(lambda: RAN["long"] == 1)
    with pytest.raises(ResultTimeout, match="when those end"):
        await client.migrate("s", "Diary", timeout=0.1)
    GATE.set()
    await client.result(run, SOON)

    async def moved() -> bool:
        return await holder(client, "s") == other.id

    await eventually(moved)
    await until(lambda: source.migrations._moves == {})


async def test_the_session_of_a_dead_host(board: Board) -> None:
    """Its destination takes it."""
    client, source, other = await parted(board)
    await board.kill(source)
    await board.emptied_of_host(source)
    assert (await client.migrate("s", "Diary", None, other.id))[0].host == other.id
    assert await client.run("entry", {"text": "x"}, session="s", timeout=30) == ["first", "x"]


def test_the_sync_client(nats_url: str) -> None:
    """It asks in the same way."""
    from callboard import connect_sync

    with connect_sync(nats_url) as client, pytest.raises(UnknownActor):
        client.migrate("s", "Nobody")


# -- draining --------------------------------------------------------------------------------------


async def test_a_drain_hands_a_busy_session_over(board: Board) -> None:
    """Its call ends where it runs, and once; what waits behind it goes to another host."""
    client, source, other = await parted(board)
    first = await client.submit("entry", {"text": "long", "how": "wait"}, session="s")
    await until(lambda: RAN["long"] == 1)
    second = await client.submit("entry", {"text": "behind"}, session="s")
    await until(lambda: len(instance(source, Diary).running) == 2)
    stopping = asyncio.create_task(source.stop(grace=SOON))
    await until(lambda: not other.watch.serves(source.id, "Diary"))
    third = await client.submit("entry", {"text": "late"}, session="s")
    await until(lambda: len(instance(other, Diary).running) == 1)
    assert RAN["late"] == 0
    GATE.set()
    async with asyncio.timeout(30):
        await stopping
    assert await client.result(first, SOON) == ["first", "long"]
    await client.result(second, SOON)
    await client.result(third, SOON)
    lines = (await client.state.show("Diary", "s")).attributes["lines"]
    assert sorted(lines) == ["behind", "first", "late", "long"]
    assert set(RAN.values()) == {1}
    assert await holder(client, "s") == other.id


@agent(max_instances=1)
class Single:
    """Keeps lines, on one host."""

    lines: ManagedList[str]

    @method
    async def wait(self, text: str) -> list[str]:
        """Keep a line when the gate opens."""
        RAN[text] += 1
        self.lines.append(text)
        await GATE.wait()
        return list(self.lines)


@workflow
async def single(text: str) -> list[str]:
    """One line."""
    return await Single.wait(text)


async def test_a_host_that_stands_by_hands_a_busy_session_over(board: Board) -> None:
    """To the one that takes calls in its place, and asks for it; its call runs once."""
    first = await board.host(Single)
    first._limit_instances = lambda member: None  # type: ignore[method-assign]
    await board.host(single)
    client = await board.client()
    one = await client.submit("single", {"text": "one"}, session="s")
    await until(lambda: RAN["one"] == 1)
    second = await board.host(Single)
    second._limit_instances = lambda member: None  # type: ignore[method-assign]
    instance(second, Single).set_standby(standby=False)
    instance(first, Single).set_standby(standby=True)
    await until(lambda: not second.watch.serves(first.id, "Single"))
    two = await client.submit("single", {"text": "two"}, session="s")
    await until(lambda: RAN["two"] == 1 or bool(first.migrations._moves))
    GATE.set()
    assert await client.result(one, SOON) == ["one"]
    assert await client.result(two, SOON) == ["one", "two"]
    assert RAN == {"one": 1, "two": 1}
    assert await holder(client, "s", "Single") == second.id


# -- what stands in the process --------------------------------------------------------------------


@agent(stateful=True)
class Brain:
    """Keeps what it has heard in memory, and can take it along."""

    def __init__(self) -> None:
        self.heard: dict[str, list[str]] = {}

    @method
    async def hear(self, session: str, text: str) -> list[str]:
        """Keep it."""
        RAN[text] += 1
        self.heard.setdefault(session, []).append(text)
        return self.heard[session]

    async def snapshot(self, session: str) -> list[str]:
        """What was heard."""
        return self.heard.get(session, [])

    async def restore(self, session: str, value: list[str] | None) -> None:
        """Go on with it."""
        if value is None:
            self.heard.pop(session, None)
        else:
            self.heard[session] = value


@agent(stateful=True)
class Mirror:
    """Calls itself, and could move."""

    @method
    async def look(self) -> int:
        """Into its own session."""
        return await Mirror.shine()

    @method
    async def shine(self) -> int:
        """Nothing much."""
        return 1

    def snapshot(self, session: str) -> int:
        """Nothing is kept."""
        return 0

    def restore(self, session: str, value: int | None) -> None:
        """Nothing was kept."""


@workflow
async def mirrored() -> int:
    """One call."""
    return await Mirror.look()


@agent(stateful=True)
class Stubborn:
    """Keeps something in memory, and says nothing of moving."""

    async def hear(self, text: str) -> str:
        """Nothing."""
        return text


@workflow
async def tell(session: str, text: str) -> list[str]:
    """One thing."""
    return await Brain.hear(session, text)


async def thinking(board: Board) -> tuple[Client, Host, Host]:
    """A session "s" in which one thing was heard, its holder, and another host."""
    hosts = [await board.host(Brain), await board.host(Brain)]
    await board.host(tell)
    client = await board.client()
    assert await heard(client, "one") == ["one"]
    held = await holder(client, "s", "Brain")
    for host in hosts:
        await until(lambda host=host: len(host.watch.serving("Brain")) == 2)  # type: ignore[misc]
    return client, *sorted(hosts, key=lambda host: host.id != held)  # type: ignore[return-value]


async def heard(client: Client, text: str) -> Any:
    """Tell one thing more."""
    return await client.run("tell", {"session": "s", "text": text}, session="s", timeout=30)


async def test_what_stands_in_the_process_moves(board: Board) -> None:
    """There and back: the other process goes on where the first one was, and what is older is forgotten."""
    client, source, other = await thinking(board)
    await client.migrate("s", "Brain")
    await until(lambda: instance(other, Brain).executor.agent.heard == {"s": ["one"]})
    await until(lambda: instance(source, Brain).executor.agent.heard == {})
    assert await heard(client, "two") == ["one", "two"]
    assert await holder(client, "s", "Brain") == other.id
    await client.migrate("s", "Brain")
    assert await holder(client, "s", "Brain") == source.id
    assert await heard(client, "three") == ["one", "two", "three"]
    assert set(RAN.values()) == {1}


async def test_what_stands_in_the_process_goes_with_a_state_that_is_deleted(board: Board) -> None:
    """Nothing of the session is left, also where it had only one holder."""
    client, source, _ = await thinking(board)
    await client.state.delete("Brain", "s")
    assert await heard(client, "two") == ["two"]
    assert instance(source, Brain).executor.agent.heard.get("s", ["two"]) == ["two"]


async def test_it_goes_also_where_that_is_found_between_two_calls(board: Board) -> None:
    """The holder stores the whole of a state that rests, and finds that it is deleted."""
    client, source, _ = await thinking(board)
    for number in range(8):
        await heard(client, f"word {number}")
    await client.state.delete("Brain", "s")
    await source.states.rested()
    assert await heard(client, "two") == ["two"]
    assert instance(source, Brain).executor.agent.heard.get("s", ["two"]) == ["two"]


async def test_a_move_that_fails_takes_nothing_along(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the process is there as before."""
    client, source, _ = await thinking(board)

    async def lost(session: Session, host: str) -> None:
        raise StoreRefused("no", subject=session.id, err_code=0, description=host)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "take", lost)
        with pytest.raises(StoreRefused):
            await client.migrate("s", "Brain")
    assert await heard(client, "two") == ["one", "two"]
    assert await holder(client, "s", "Brain") == source.id


async def test_a_destination_that_dies_before_a_call(board: Board) -> None:
    """What the session was brought with is still there for the next host; after a call it is not."""
    client, source, other = await thinking(board)
    await client.migrate("s", "Brain")
    await board.kill(other)
    await board.emptied_of_host(other)
    assert await heard(client, "two") == ["one", "two"]
    last = await board.host(Brain)
    await board.kill(source)
    await board.emptied_of_host(source)
    assert await heard(client, "three") == ["three"]
    assert await holder(client, "s", "Brain") == last.id


@agent(stateful=True)
class Pool:
    """Keeps how much it was given, in batches."""

    def __init__(self) -> None:
        self.total = 0

    @batchable(max_batch=4)
    async def give(self, amounts: list[int]) -> list[int]:
        """Add them."""
        self.total += sum(amounts)
        return [self.total] * len(amounts)

    def snapshot(self, session: str) -> int:
        """The total."""
        return self.total

    def restore(self, session: str, value: int | None) -> None:
        """Go on with it."""
        self.total = value or 0


@workflow
async def giving(amount: int) -> int:
    """One gift."""
    return await Pool.give(amount)


async def test_a_batch_voids_what_a_session_was_brought_with(board: Board) -> None:
    """As any call does: what stands in the process is newer."""
    for _ in range(2):
        await board.host(Pool)
    await board.host(giving)
    client = await board.client()
    assert await client.run("giving", {"amount": 3}, session="s", timeout=30) == 3
    await client.migrate("s", "Pool")
    assert (await client.state.show("Pool", "s")).attributes["snapshot"] == 3
    assert await client.run("giving", {"amount": 4}, session="s", timeout=30) == 7
    assert (await client.state.show("Pool", "s")).attributes["snapshot"] is None


async def test_a_drain_takes_along_what_stands_in_the_process(board: Board) -> None:
    """Of idle sessions too."""
    client, source, other = await thinking(board)
    await source.stop()
    assert await holder(client, "s", "Brain") == other.id
    assert await heard(client, "two") == ["one", "two"]


async def test_a_call_into_a_session_that_a_movable_agent_holds(board: Board) -> None:
    """It is refused, since the session might have moved by then."""
    await board.host(Mirror, mirrored)
    client = await board.client()
    with pytest.raises(RunFailed) as failed:
        await client.run("mirrored", {}, session="s", timeout=30)
    assert isinstance(failed.value.__cause__, SessionHeld)


async def test_a_stateful_agent_that_does_not_say_how(board: Board) -> None:
    """The error says what to add."""
    await board.host(Stubborn)
    client = await board.client()
    with pytest.raises(SessionUnmovable, match=r"snapshot\(self, session\)"):
        await client.migrate("s", "Stubborn")


def test_a_snapshot_that_cannot_be_called() -> None:
    """Is refused where it is declared."""
    with pytest.raises(DeclarationInvalid, match=r"restore\(self, session, value\)"):

        @agent(stateful=True)
        class Wrong:
            async def go(self) -> None: ...

            def snapshot(self, session: str) -> int:
                return 1

            def restore(self) -> None: ...


def test_they_are_not_called_as_methods() -> None:
    """Of a movable agent; of any other they are methods like all others."""
    assert set(declaration(Brain).methods) == {"hear"}  # type: ignore[union-attr]
    assert declaration(Brain).directives.max_instances is None  # type: ignore[union-attr]
