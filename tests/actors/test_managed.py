"""Managed state in handlers: kept with the outcome, one holder for each session, nothing twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import pytest
from tests.support.board import Board, call_headers, call_subject, instance, packed
from tests.support.waiting import SOON, until

from callboard import (
    Managed,
    ManagedCounter,
    ManagedDict,
    ManagedList,
    agent,
    method,
    options,
    tool,
    workflow,
)
from callboard.actors import managed, outcomes
from callboard.actors.declared import declaration
from callboard.actors.host import Host
from callboard.infra.errors import (
    DeclarationInvalid,
    ItemInvalid,
    RequestTimeout,
    RunFailed,
    SessionHeld,
    StateDamaged,
    StateTooLarge,
)
from callboard.infra.subjects import NameInvalid
from callboard.state.packing import decode_commit
from callboard.state.session import Session
from callboard.state.shelf import NatsShelf, Place

RAN: Counter[str] = Counter()
GATE = asyncio.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run, the gate is shut."""
    global GATE  # noqa: PLW0603 - an event belongs to the loop of one test
    RAN.clear()
    GATE = asyncio.Event()


class Note(msgspec.Struct):
    """Something noted."""

    text: str
    times: int = 1


@agent(concurrency=8)
class Scribe:
    """Keeps what it is told."""

    lines: ManagedList[str]
    notes: ManagedDict[str, Note]
    last: Managed[Note | None]
    count: ManagedCounter

    @method
    async def tell(self, text: str) -> int:
        """Keep a line."""
        RAN[text] += 1
        self.lines.append(text)
        self.notes[text] = Note(text, self.notes[text].times + 1) if text in self.notes else Note(text)
        self.last = self.notes[text]
        self.count += 1
        return len(self.lines)

    @method
    def tell_in_a_thread(self, text: str) -> int:
        """Keep a line."""
        self.lines.append(text)
        self.count += 1
        return len(self.lines)

    @method
    async def fail(self, text: str) -> None:
        """Keep a line, then fail."""
        self.lines.append(text)
        self.count += 1
        raise ValueError(text)

    @method
    async def wait(self, text: str) -> int:
        """Keep a line when the gate opens."""
        RAN[text] += 1
        self.lines.append(text)
        await GATE.wait()
        self.count += 1
        return len(self.lines)

    @method
    async def again(self, text: str) -> int:
        """Call itself through the stub, in the same session."""
        return await Scribe.tell(text)

    @method
    async def all(self) -> tuple[list[str], dict[str, int], int]:
        """All that is kept."""
        return list(self.lines), {key: note.times for key, note in self.notes.items()}, self.count


@agent
class Lender:
    """Hands its state on as it is."""

    lines: ManagedList[str]
    notes: ManagedDict[str, Note]

    @method
    async def tell(self, text: str) -> tuple[int, Sequence[str], dict[str, list[Note]]]:
        """Keep a line, have it looked at, and give all."""
        self.lines.append(text)
        self.notes[text] = Note(text)
        seen = await length(self.lines, {"notes": self.notes})
        return seen, self.lines, {"notes": [self.notes[text]]}

    @method
    def all(self) -> Mapping[str, Note]:
        """The notes, from a thread."""
        return self.notes


@agent
class Gatherer:
    """Plain code that keeps what its calls give."""

    lines: ManagedList[str]
    notes: ManagedDict[str, Note]
    last: Managed[Note | None]
    count: ManagedCounter

    @method
    def gather(self, text: str) -> list[Any]:
        """Keep it, untouched."""
        self.lines.append(cast("str", said(text)))
        self.lines += cast("list[str]", [said("more"), said("still more")])
        self.notes[cast("str", said(text))] = cast("Note", noted(text))
        self.last = Note(cast("str", said(text)), 2)
        self.count = cast("int", length([text], {"notes": {}}))
        return [self.lines[0].upper(), self.notes[cast("str", said(text))].text]

    @method
    async def too_early(self) -> None:
        """Keep a future."""
        self.lines.append(said("x").arg)

    @method
    async def all(self) -> list[Any]:
        """What is kept."""
        return [self.lines, self.notes, self.last, self.count]


@tool
async def said(text: str) -> str:
    """Say it again."""
    return text


@tool
async def noted(text: str) -> Note:
    """Note it."""
    return Note(text)


@workflow
async def gathering() -> list[Any]:
    """What was gathered, and that it was kept."""
    with pytest.raises(ItemInvalid, match="cannot be stored"):
        await Gatherer.too_early()
    return [await Gatherer.gather("a"), await Gatherer.all()]


GATHERED = [["A", "a"], [["a", "more", "still more"], {"a": Note("a")}, Note("a", 2), 1]]


@tool
async def length(lines: Sequence[str], more: Mapping[str, Mapping[str, Note]]) -> int:
    """How many there are."""
    return len(lines) + len(more["notes"])


@workflow
async def lend() -> tuple[tuple[int, Sequence[str], dict[str, list[Note]]], Mapping[str, Note]]:
    """What was handed on."""
    await Lender.tell("a")
    return await Lender.tell("b"), await Lender.all()


LENT = ((4, ["a", "b"], {"notes": [Note("b")]}), {"a": Note("a"), "b": Note("b")})


@agent(state_max_bytes=2000)
class Limited:
    """Keeps little."""

    lines: ManagedList[str]

    @method
    async def tell(self, text: str) -> int:
        """Keep a line."""
        self.lines.append(text)
        return len(self.lines)


@agent(concurrency=2, retries=2, backoff=0.01)
class Retrying:
    """Whose state is long."""

    lines: ManagedList[str]

    @method
    async def fill(self) -> None:
        """Keep more than what is read with the state."""
        self.lines.extend(["x" * 1000] * 300)

    @method
    async def lent(self) -> list[str]:
        """As it is."""
        return cast("list[str]", self.lines)

    @method
    async def all_lines(self) -> list[str]:
        """A copy."""
        return list(self.lines)


@workflow
async def fill() -> None:
    """A long state."""
    await Retrying.fill()


@workflow
async def read_lines(how: str) -> int:
    """How many there are."""
    return len(await getattr(Retrying, how)())


@workflow
async def dictate(texts: list[str]) -> tuple[list[str], dict[str, int], int]:
    """Tell them one after the other."""
    for text in texts:
        await Scribe.tell(text)
    return await Scribe.all()


@workflow
async def dictate_at_once(texts: list[str]) -> tuple[list[int], list[str]]:
    """Tell them all at once."""
    places = await asyncio.gather(*(Scribe.tell(text) for text in texts))
    return places, (await Scribe.all())[0]


@workflow
async def mixed() -> tuple[list[str], dict[str, int], int]:
    """Async and blocking handlers, and one that fails."""
    await Scribe.tell("one")
    await Scribe.tell_in_a_thread("two")
    try:
        await Scribe.fail("three")
    except ValueError:
        await Scribe.tell("one")
    return await Scribe.all()


@workflow
async def inward() -> int:
    """A call that enters its own session."""
    return await Scribe.again("x")


@workflow
async def waiting(text: str) -> int:
    """One long call."""
    return await Scribe.wait(text)


@workflow
async def elsewhere() -> tuple[list[str], list[str]]:
    """A line in another session, a line in one's own."""
    with options(session="else@where.org"):
        await Scribe.tell("there")
        there = (await Scribe.all())[0]
    await Scribe.tell("here")
    return there, (await Scribe.all())[0]


@workflow
async def too_much() -> list[int]:
    """More than the agent may keep."""
    return [await Limited.tell("x" * 900) for _ in range(4)]


async def test_what_handlers_change_is_there_for_the_next_call(board: Board) -> None:
    """In the session, in runs to come, and not in another session."""
    await board.host(Scribe)
    await board.host(dictate)
    client = await board.client()
    first = await client.run(dictate.name, {"texts": ["a", "b", "a"]}, session="s1", timeout=30)
    assert first == [["a", "b", "a"], {"a": 2, "b": 1}, 3]
    other = await client.run(dictate.name, {"texts": ["z"]}, session="s2", timeout=30)
    assert other == [["z"], {"z": 1}, 1]
    again = await client.run(dictate.name, {"texts": ["c"]}, session="s1", timeout=30)
    assert again == [["a", "b", "a", "c"], {"a": 2, "b": 1, "c": 1}, 4]


async def test_a_handler_that_fails_leaves_the_state_as_it_was(board: Board) -> None:
    """Async and blocking handlers alike."""
    await board.host(Scribe, mixed)
    assert await board.run(mixed) == [["one", "two", "one"], {"one": 2}, 3]


async def test_the_calls_of_a_session_run_one_at_a_time(board: Board) -> None:
    """However many are made at once, on several hosts: none is lost, and each sees those before it."""
    for _ in range(3):
        await board.host(Scribe)
    await board.host(dictate_at_once)
    texts = [str(number) for number in range(60)]
    places, lines = await board.run(dictate_at_once, texts=texts, timeout=30)
    assert sorted(places) == list(range(1, 61))
    assert sorted(lines) == sorted(texts)
    assert [lines[place - 1] for place in places] == texts
    assert set(RAN.values()) == {1}


async def test_a_session_survives_its_host(board: Board) -> None:
    """Another one takes it over, and finds what was committed."""
    first = await board.host(Scribe)
    await board.host(dictate)
    client = await board.client()
    await client.run(dictate.name, {"texts": ["a", "b"]}, session="s", timeout=30)
    await board.kill(first)
    await board.host(Scribe)
    assert await client.run(dictate.name, {"texts": ["c"]}, session="s", timeout=30) == [
        ["a", "b", "c"],
        {"a": 1, "b": 1, "c": 1},
        3,
    ]


async def test_a_host_folds_sessions_that_rest(board: Board) -> None:
    """The last commit holds all then, and the session goes on as before, here and elsewhere."""
    first = await board.host(Scribe)
    await board.host(dictate)
    client = await board.client()
    texts = [f"line {number}" for number in range(10)]
    await client.run(dictate.name, {"texts": texts}, session="s", timeout=30)
    await first.states.rested()
    last = await first.node.shelf.last(Place("Scribe", "s"))
    assert last is not None
    commit = decode_commit(last.body)
    assert commit.head is not None
    assert commit.call == ""
    assert (await client.run(dictate.name, {"texts": ["b"]}, session="s", timeout=30))[0] == [*texts, "b"]
    await board.kill(first)
    await board.host(Scribe)
    assert (await client.run(dictate.name, {"texts": ["c"]}, session="s", timeout=30))[0] == [
        *texts,
        "b",
        "c",
    ]
    assert dict.fromkeys([*texts, "b", "c"], 1) == RAN


async def test_an_applied_call_that_is_delivered_again_does_not_run(board: Board) -> None:
    """Its outcome is found with the state, also where it never came into the journal."""
    await board.host(Scribe)
    node = await board.node()
    for number in (1, 2):  # two messages of one call, which the server does not know for one
        head = call_headers("01RUN:1", "tell", Cb_Session="s", Nats_Msg_Id=f"copy {number}", Cb_Again="1")
        await node.store.stored(call_subject(Scribe), packed({"text": "once"}), head)
        await board.emptied("CALLS")
        # As if the host had died after its commit: what was stored of the outcome is gone.
        await node.topology.api("STREAM.PURGE.RUNS")
        for host in board._hosts:
            host.recent.clear()
    (host,) = board._hosts
    session = await host.states.open("Scribe", "s", instance(host, Scribe).rules)  # type: ignore[arg-type]
    assert session.kept["lines"].count == 1
    assert RAN["once"] == 1


async def test_an_applied_call_whose_commit_has_gone_is_looked_for_in_the_journal(board: Board) -> None:
    """A head for every few calls counts as a message that is kept, too."""
    host = await board.host(Scribe, dictate)
    client = await board.client()
    run = await client.submit(dictate.name, {"texts": [str(n) for n in range(63)]}, session="s")
    await client.result(run, timeout=60)
    session = await host.states.open("Scribe", "s", instance(host, Scribe).rules)  # type: ignore[arg-type]
    for _ in range(4):
        await session.fold()
    call = next(one.future for one in await board.results(run) if one.call == "Scribe.tell")
    assert session.has_applied(call)
    with pytest.raises(StateDamaged, match="not kept"):
        await session.applied(call)
    host.recent.clear()
    node = await board.node()
    head = call_headers(call, "tell", Cb_Session="s", Nats_Msg_Id="a copy")
    await node.store.stored(call_subject(Scribe), packed({"text": "0"}), head)
    await board.emptied("CALLS")
    assert RAN["0"] == 1
    told = [one.error for one in await board.results(run) if one.future == call]
    assert set(told) == {None}


async def test_a_holder_that_was_taken_for_dead_commits_nothing(board: Board) -> None:
    """Another host has the session by then: what the slow one did vanishes, and the call runs once more."""
    slow = await board.host(Scribe)
    await board.host(waiting)
    client = await board.client()
    run = await client.submit(waiting.name, {"text": "x"}, session="s")
    await until(lambda: RAN["x"] == 1)
    node = await board.node()
    other = await board.host(Scribe)
    session = await other.states.open("Scribe", "s", instance(other, Scribe).rules)  # type: ignore[arg-type]
    await session.take(other.id)
    await node.connection.flush()
    GATE.set()
    assert await client.result(run, SOON) == 1
    assert RAN["x"] == 2
    await until(lambda: instance(slow, Scribe).running == {})


async def test_a_call_into_a_session_that_its_maker_holds(board: Board) -> None:
    """It would wait for ever: a typed error says what to do."""
    await board.host(Scribe, inward)
    with pytest.raises(RunFailed) as failed:
        await board.run(inward)
    assert isinstance(failed.value.__cause__, SessionHeld)


async def test_more_state_than_there_may_be(board: Board) -> None:
    """A typed error, and what was there stays."""
    await board.host(Limited, too_much)
    with pytest.raises(RunFailed) as failed:
        await board.run(too_much)
    assert isinstance(failed.value.__cause__, StateTooLarge)


async def test_the_next_call_goes_to_the_holder(board: Board) -> None:
    """Its maker has heard from the outcome who that is; nobody has to pass it on."""
    for _ in range(2):
        await board.host(Scribe)
    await board.host(dictate)
    node = await board.node()
    sent: list[str] = []
    node.connection.subscribe("cb.call.Scribe.>", lambda subject, *_: sent.append(subject.decode()))
    await node.connection.flush()
    await board.run(dictate, texts=["a", "b", "c"])
    await until(lambda: len(sent) >= 4)
    lanes = [subject.split(".")[3] for subject in sent]
    assert lanes[0] == "any"
    assert len(set(lanes[1:])) == 1
    assert lanes[1] != "any"
    assert len(lanes) == 4


@pytest.mark.parametrize("where", [(Session, "commit"), (managed, "begin"), (outcomes, "result_of")])
async def test_a_defect_fails_the_call_and_ends_nothing_else(
    board: Board, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    """Whoever waits is told, and the session goes on."""
    await board.host(Scribe, dictate)
    client = await board.client()
    await client.run(dictate.name, {"texts": ["a"]}, session="s", timeout=30)
    failures = failing_once(monkeypatch, *where)
    with pytest.raises(RunFailed) as failed:
        await client.run(dictate.name, {"texts": ["b"]}, session="s", timeout=30)
    assert (type(failed.value.__cause__), failures) == (TypeError, [])
    assert (await client.run(dictate.name, {"texts": ["c"]}, session="s", timeout=30))[0] == ["a", "c"]


@pytest.mark.parametrize("how", ["with the commit", "after it"])
async def test_a_defect_after_the_commit_changes_no_outcome(
    board: Board, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What was committed and told stays so, and the session goes on."""
    host = await board.host(Scribe, dictate)
    if how == "after it":
        monkeypatch.setattr(host.commit_acks, "hold", lambda *_: None)
    client = await board.client()
    await client.run(dictate.name, {"texts": ["a"]}, session="s", timeout=30)
    failures = failing_once(monkeypatch, Host, "finished")
    for text, heard in (("b", ["a", "b"]), ("c", ["a", "b", "c"])):
        assert (await client.run(dictate.name, {"texts": [text]}, session="s", timeout=30))[0] == heard
    assert not failures


@pytest.mark.parametrize("how", ["lent", "all_lines"])
async def test_a_result_that_cannot_be_read_is_tried_again(
    board: Board, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Whether the handler reads what it returns, or what it returns is read when it is encoded."""
    before = await board.host(Retrying, fill)
    client = await board.client()
    await client.run(fill.name, {}, session="s", timeout=30)
    await before.stop()
    await board.host(Retrying, read_lines)
    tried = []

    def unread(*_: Any) -> dict[str, bytes]:
        tried.append(how)
        raise RequestTimeout("no answer", subject="", timeout=1.0)

    monkeypatch.setattr(NatsShelf, "load_now", unread)
    with pytest.raises(RunFailed) as failed:
        await client.run(read_lines.name, {"how": how}, session="s", timeout=30)
    assert (type(failed.value.__cause__), len(tried) >= 3) == (RequestTimeout, True)


def failing_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Exception]:
    """Have a function fail at its next call, with an error that nobody foresees."""
    real, failures = getattr(owner, name), [TypeError("a defect")]

    def once(*args: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return real(*args, **options)

    monkeypatch.setattr(owner, name, once)
    return cast("list[Exception]", failures)


async def test_a_call_in_another_session(board: Board) -> None:
    """Made so by ``options``; the run's own session does not see it."""
    await board.host(Scribe, elsewhere)
    client = await board.client()
    assert await client.run(elsewhere.name, {}, session="own", timeout=30) == [["there"], ["here"]]
    with pytest.raises(NameInvalid), options(session=""):
        pass


def test_a_default_is_refused() -> None:
    """It would be no session's: the declaration says so, when its agent is first needed."""

    @agent
    class Defaulted:
        count: ManagedCounter = 7  # type: ignore[assignment]

        async def go(self) -> int:
            return self.count

    declared = declaration(Defaulted)
    with pytest.raises(DeclarationInvalid, match="has a default"):
        _ = declared.rules  # type: ignore[union-attr]


# -- without NATS ----------------------------------------------------------------------------------


async def test_collections_travel_as_plain_ones(board: Board) -> None:
    """A handler may return its state and pass it on, as it would a list or a dict."""
    await board.host(Lender, length, lend)
    found = await board.run(lend)
    assert msgspec.convert(found, lend.method.signature.result_type) == LENT


async def test_plain_code_keeps_what_its_calls_give(board: Board) -> None:
    """A lazy value is stored as the value; a future that nobody has awaited is refused."""
    await board.host(Gatherer, said, noted, length, gathering)
    assert await board.run(gathering) == msgspec.to_builtins(GATHERED)


async def test_the_same_without_nats() -> None:
    """The same results, and state that outlives the run where the session has a name."""
    assert await dictate(["a", "b", "a"]) == (["a", "b", "a"], {"a": 2, "b": 1}, 3)
    assert await dictate(["z"]) == (["z"], {"z": 1}, 1)
    assert await mixed() == (["one", "two", "one"], {"one": 2}, 3)
    places, lines = await dictate_at_once([str(number) for number in range(20)])
    assert places == list(range(1, 21))
    assert lines == [str(number) for number in range(20)]
    with options(session="named"):
        await dictate(["a"])
        assert (await dictate(["b"]))[0] == ["a", "b"]
    assert await elsewhere() == (["there"], ["here"])
    assert await lend() == LENT
    assert await gathering() == msgspec.to_builtins(GATHERED)


async def test_errors_without_nats() -> None:
    """Typed as they are over NATS."""
    with pytest.raises(SessionHeld):
        await inward()
    with pytest.raises(StateTooLarge):
        await too_much()


async def test_two_local_runs_in_one_session() -> None:
    """Neither loses what the other one writes."""
    with options(session="shared"):
        await asyncio.gather(*(dictate([f"{run}.{n}" for n in range(5)]) for run in range(4)))
        lines, _, count = await dictate([])
    assert sorted(lines) == sorted(f"{run}.{n}" for run in range(4) for n in range(5))
    assert count == 20
