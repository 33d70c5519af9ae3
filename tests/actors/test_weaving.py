"""Long arguments as references: what was stored once is not stored again, and comes back byte by byte."""

from __future__ import annotations

import hashlib
import random
import string
from typing import Any

import msgspec
import pytest
from tests.support.board import Board, call_headers, call_subject, packed
from tests.support.waiting import SOON

from callboard import ManagedList, agent, method, tool, workflow
from callboard.actors.node import Node
from callboard.infra.errors import InvalidArguments, RequestTimeout, ValueMissing
from callboard.infra.messages.run import Result
from callboard.infra.settings import Settings
from callboard.state.known import KnownJournal

SENT: list[str] = []
STREAMS = ("RUNS", "OBJ_cb_blobs", "KV_cb_state", "KV_cb_runs", "KV_cb_inbox", "DEAD")


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has come."""
    SENT.clear()


class Message(msgspec.Struct):
    """Who said what."""

    role: str
    content: str


def text(seed: int, size: int) -> str:
    """Always the same, and nothing repeats in it."""
    return "".join(random.Random(seed).choices(string.ascii_letters, k=size))


def answer(turn: int) -> str:
    """1 to 3 KB."""
    return text(2 * turn + 1, random.Random(turn).randint(1000, 3000))


def question(turn: int) -> str:
    """200 bytes."""
    return text(2 * turn, 200)


def mark(messages: list[Message]) -> str:
    """Of a whole history."""
    return hashlib.sha256(packed(messages)).hexdigest()


@tool
async def model(messages: list[Message]) -> str:
    """Answer the last message."""
    SENT.append(mark(messages))
    return answer(len(messages) // 2)


@workflow
async def chat(turns: int) -> list[str]:
    """A chat in a plain list; what each call should have been given."""
    messages: list[Message] = []
    marks = []
    for turn in range(turns):
        messages.append(Message("user", question(turn)))
        marks.append(mark(messages))
        messages.append(Message("assistant", await model(messages)))
    return marks


async def stored(board: Board) -> int:
    """Bytes in all streams that keep what is in them, but that of telemetry, which grows with time alone."""
    node = await board.node()
    return sum([(await node.topology.api(f"STREAM.INFO.{name}"))["state"]["bytes"] for name in STREAMS])


async def test_a_chat_stores_each_message_once(board: Board) -> None:
    """Of 150 turns no more than 1.2 times the messages is stored, and the model sees all of them."""
    turns = 150
    await board.host(model)
    await board.host(chat)
    before = await stored(board)
    marks = await board.run(chat, turns=turns, timeout=60)
    assert marks == SENT
    said = sum(len(question(turn)) + len(answer(turn)) for turn in range(turns))
    assert said < await stored(board) - before < 1.2 * said


async def test_another_host_goes_on_with_the_chat(board: Board) -> None:
    """One that has seen nothing of it reads what the others have stored."""
    first = await board.host(model)
    await board.host(chat)
    run = await board.submit(chat, turns=90)
    await board.entries(run, "result", 50, timeout=60)
    await board.kill(first)
    await board.host(model)
    assert (await board.done(run, 60)).status == "completed"
    node = await board.node()
    done = await node.journal.done(run)
    assert done is not None
    marks = msgspec.msgpack.decode(done.value, type=list[str])
    assert sorted(set(SENT)) == sorted(marks)


async def test_another_driver_goes_on_with_the_chat(board: Board) -> None:
    """Its calls refer to what the first one's have given."""
    await board.host(model)
    first = await board.host(chat)
    run = await board.submit(chat, turns=90)
    await board.entries(run, "result", 50, timeout=60)
    await board.kill(first)
    await board.host(chat)
    assert (await board.done(run, 60)).status == "completed"
    assert len(set(SENT)) == 90


# -- the form --------------------------------------------------------------------------------------


async def outcome(node: Node, run: str, number: int, value: Any) -> None:
    """Put an outcome into a journal."""
    result = Result(f"{run}:{number}", "model.call", msgspec.Raw(packed(value)))
    await node.store.stored(f"cb.run.{run}.result", packed(result))


def small(board: Board) -> Settings:
    """Settings with which little is long."""
    return board.settings(inline_limit=16 * 1024)


@pytest.mark.parametrize("seed", range(8))
async def test_what_is_woven_comes_back(board: Board, seed: int) -> None:
    """Whatever is drawn: lists that grow, change and shrink, of texts that are known and such as are not."""
    chance = random.Random(seed)
    writer = await Node(small(board), "writer").open()
    reader = await Node(small(board), "reader").open()
    try:
        await _grown(chance, writer, reader)
    finally:
        await writer.close()
        await reader.close()


async def _grown(chance: random.Random, writer: Node, reader: Node) -> None:
    values: list[Any] = []
    woven = shorter = 0
    for step in range(60):
        value: Any = text(step, chance.choice((10, 200, 1000, 5000)))
        if chance.random() < 0.7:
            await outcome(writer, "r1", step, [value, "x"])
        values.insert(chance.randint(0, len(values)) if chance.random() < 0.2 else len(values), value)
        if chance.random() < 0.1:
            del values[chance.randrange(len(values))]
        body = packed({"messages": [{"n": n, "text": one} for n, one in enumerate(values)], "seed": step})
        form = await writer.weaver.woven("r1", body)
        if form is not None:
            woven += 1
            shorter += len(form) < len(body) / 2
            assert await reader.weaver.whole("r1", form) == body
    assert woven > 40
    assert shorter > 30


async def test_nothing_is_woven_where_nothing_is_known(board: Board) -> None:
    """A value that is met for the first time travels as a whole, as before."""
    node = await Node(small(board), "test").open()
    try:
        assert await node.weaver.woven("r1", packed([text(n, 300) for n in range(100)])) is None
        assert await node.weaver.woven("r1", packed(list(range(10_000)))) is None
    finally:
        await node.close()


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (b"\xc1", InvalidArguments.code),
        (packed("x"), InvalidArguments.code),
        (packed([7]), InvalidArguments.code),
        (packed([[1, -1, 2]]), InvalidArguments.code),
        (packed([[b"x", b"y"]]), InvalidArguments.code),
        (packed([[b"x"]]), ValueMissing.code),
        (packed([[bytes(32)]]), ValueMissing.code),
        (packed([[1, 0, 10**6]]), ValueMissing.code),
        (packed([[10**9, 0, 1]]), ValueMissing.code),
        (packed([["lpart", 0, 1]]), ValueMissing.code),
        (packed([{"state": ["Talker", "s"]}, ["lpart", 0, 1]]), ValueMissing.code),
        (packed([{"state": ["Talker", "s"]}, ["@7", 0, 1]]), ValueMissing.code),
        (packed([{"state": ["Talker", "s"]}, [">", 0, 1]]), InvalidArguments.code),
        (packed([{"state": ["Talker"]}]), InvalidArguments.code),
        (packed([{"else": 7}]), InvalidArguments.code),
    ],
)
async def test_a_form_that_is_none_is_a_typed_error(board: Board, form: bytes, code: str) -> None:
    """Published by hand: the caller is told, and the host goes on."""
    await board.host(model)
    node = await board.node()
    await outcome(node, "r1", 1, "x")
    node.store.put(call_subject(model), form, call_headers("r1:2", Cb_Woven="1"))
    await board.entries("r1", "result", 2)
    error = (await board.results("r1"))[1].error
    assert error is not None
    assert error.code == code


async def test_a_journal_that_cannot_be_read_holds_nobody_up(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the arguments are stored as a whole."""

    async def silent(_: KnownJournal) -> None:
        raise RequestTimeout("no answer")

    monkeypatch.setattr(KnownJournal, "read_on", silent)
    await board.host(model, chat)
    assert await board.run(chat, turns=40) == SENT
    assert (await board.stream("OBJ_cb_blobs"))["bytes"] > 100_000


async def test_no_other_runs_journal_is_read(board: Board) -> None:
    """A form names places in the journal of its own run only."""
    node = await board.node()
    await outcome(node, "r1", 1, "secret" * 100)
    found = await node.journal.read("r1")
    with pytest.raises(ValueMissing):
        await node.weaver.whole("r2", packed([[found[0].sequence, 0, 10]]))
    assert await node.weaver.whole("r1", packed([[found[0].sequence, 0, 1]])) == found[0].body[:1]


@workflow
async def reading(pages: int) -> list[str]:
    """A long document that is new, then short questions on it."""
    messages: list[Message] = []
    marks = []
    for turn in range(pages):
        messages.append(Message("user", text(turn, 100_000 if turn % 5 == 2 else 50)))
        marks.append(mark(messages))
        messages.append(Message("assistant", await model(messages)))
    return marks


async def test_long_texts_that_are_new_are_stored_once(board: Board) -> None:
    """With what they come with for the first time, and then in a piece of their own."""
    await board.host(model, reading)
    before = await stored(board)
    assert await board.run(reading, pages=20, timeout=60) == SENT
    assert await stored(board) - before < 1_000_000 + 20 * 4000


# -- outcomes --------------------------------------------------------------------------------------


@agent
class Talker:
    """Keeps what is said."""

    history: ManagedList[Message]

    @method
    async def say(self, said: str) -> str:
        """Hand on what the model has said."""
        await self.history.load()
        self.history.append(Message("user", said))
        found = await model(list(self.history))
        self.history.append(Message("assistant", found))
        return found

    @method
    async def rewrite(self, place: int) -> bool:
        """Change one message in the middle, forget some; whether the model has seen what is there then."""
        await self.history.load()
        self.history[10 + place].content = text(place, 1500)
        del self.history[2:6]
        self.history.append(Message("user", "?"))
        await model(list(self.history))
        del self.history[-1]
        return SENT.pop() == mark([*self.history, Message("user", "?")])

    @method
    async def say_more(self, said: str) -> dict[str, Any]:
        """Hand it on with something about it; twice what is said, and what is not the model's."""
        found = await model([Message("user", said)])
        return {"said": found, "again": [found, 7], "own": text(9, 2000), "upper": found.upper()}


@workflow
async def talk(turns: int) -> bool:
    """A chat with the agent; whether it has answered as the model has."""
    return [await Talker.say(question(turn)) for turn in range(turns)] == [answer(n) for n in range(turns)]


@workflow
async def talk_once(turn: int) -> str:
    """One turn of a chat that goes on in the next run of the session."""
    return await Talker.say(question(turn))


@workflow
async def talk_more() -> dict[str, Any]:
    """Pass on what refers to something else, and hand it to another call."""
    said = Talker.say_more("x")
    first = await said
    return {"first": first, "passed": await length(said.arg)}


@tool
async def length(value: dict[str, Any]) -> int:
    """Bytes of a value."""
    return len(packed(value))


async def test_an_outcome_that_is_handed_on_is_stored_once(board: Board) -> None:
    """The agent's refers to the model's, the driver has the value."""
    turns = 60
    await board.host(Talker, model)
    await board.host(talk)
    run = await board.submit(talk, turns=turns)
    done = await board.done(run, 60)
    assert msgspec.msgpack.decode(done.value) is True
    said = sum(len(question(turn)) + len(answer(turn)) for turn in range(turns))
    assert (await board.stream("RUNS"))["bytes"] < 1.3 * said


async def test_what_refers_to_another_outcome_is_whole_for_everybody(board: Board) -> None:
    """For the workflow, for a call that takes it as an argument, and for the run's result."""
    await board.host(Talker, model, length)
    await board.host(talk_more)
    result = await board.run(talk_more)
    found = answer(0)
    expected = {"said": found, "again": [found, 7], "own": text(9, 2000), "upper": found.upper()}
    assert result == {"first": expected, "passed": len(packed(expected))}


async def test_another_driver_finds_outcomes_that_refer_to_others(board: Board) -> None:
    """In the replay of a run that has made many such calls."""
    await board.host(Talker, model)
    first = await board.host(talk)
    run = await board.submit(talk, turns=40)
    await board.entries(run, "result", 25, timeout=60)
    await board.kill(first)
    await board.host(talk)
    assert msgspec.msgpack.decode((await board.done(run, 60)).value) is True


@tool
async def step(messages: list[Message]) -> list[Message]:
    """Take the whole chat, give it back with an answer."""
    return [*messages, Message("assistant", answer(len(messages) // 2))]


@workflow
async def stepwise(turns: int) -> str:
    """Hand the whole chat on and back."""
    messages: list[Message] = []
    for turn in range(turns):
        messages = await step([*messages, Message("user", question(turn))])
    return mark(messages)


async def test_a_history_that_is_handed_on_and_back_stays_linear(board: Board) -> None:
    """Its outcomes refer to those before them, also for a driver that takes over."""
    turns = 120
    await board.host(step)
    first = await board.host(stepwise)
    before = await stored(board)
    run = await board.submit(stepwise, turns=turns)
    await board.entries(run, "result", 80, timeout=60)
    await board.kill(first)
    await board.host(stepwise)
    done = await board.done(run, 60)
    said = [(("user", question(n)), ("assistant", answer(n))) for n in range(turns)]
    history = [Message(*one) for pair in said for one in pair]
    assert msgspec.msgpack.decode(done.value) == mark(history)
    size = sum(len(one.content) for one in history)
    assert await stored(board) - before < 2.5 * size


async def test_a_chat_of_many_runs_refers_to_the_state(board: Board) -> None:
    """Each turn is a run of its own: the history is in the session's state, and travels from there."""
    turns = 100
    await board.host(Talker)
    await board.host(model)
    await board.host(talk_once)
    client = await board.client()
    for turn in range(turns):
        said = await client.run(talk_once.name, {"turn": turn}, session="s1", timeout=SOON)
        assert said == answer(turn)
    history = [
        Message(*one)
        for turn in range(turns)
        for one in (("user", question(turn)), ("assistant", answer(turn)))
    ]
    assert [mark(history[: 2 * turn + 1]) for turn in range(turns)] == SENT
    assert (await board.stream("OBJ_cb_blobs"))["bytes"] < 20_000


async def test_a_session_that_moves_refers_to_the_state(board: Board) -> None:
    """Its new holder refers to what the old one has stored, changes in the middle and at the end included."""
    client = await board.client()
    await board.host(model)
    await board.host(talk_once, rewrite)
    for number in range(3):
        host = await board.host(Talker)
        for turn in range(45 * number, 45 * (number + 1)):
            await client.run(talk_once.name, {"turn": turn}, session="s1", timeout=SOON)
        assert await client.run(rewrite.name, {"turn": number}, session="s1", timeout=SOON) is True
        await board.kill(host)


@workflow
async def rewrite(turn: int) -> bool:
    """Have the agent change its history."""
    return await Talker.rewrite(turn)


@pytest.mark.parametrize(("turns", "size"), [(6, 40_000), (70, 3000)])
async def test_a_session_that_was_deleted_is_not_referred_to(board: Board, turns: int, size: int) -> None:
    """Its new state has the same texts, and the old one is gone; one with heads, and one without."""
    await board.host(Talker)
    await board.host(talk_long)
    client = await board.client()
    for _ in range(2):
        asked = await board.host(model)
        for turn in range(turns):
            given = {"turn": turn, "size": size}
            said = await client.run(talk_long.name, given, session="s1", timeout=SOON)
            assert len(said) >= 1000
        await client.state.delete("Talker", "s1")
        await board.kill(asked)  # with what it has read


@workflow
async def talk_long(turn: int, size: int) -> str:
    """One turn in which the user says much."""
    return await Talker.say(text(turn, size))
