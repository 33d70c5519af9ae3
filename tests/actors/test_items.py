"""Managed state in batches: each item sees its own session, and commits with its own outcome."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.board import Board, call_headers, call_subject, packed

import callboard
from callboard import ManagedCounter, ManagedList, agent, batchable, method, options, tool, workflow
from callboard.infra.errors import BatchMisused, NoSession, SessionHeld, StateTooLarge
from callboard.state.session import Session

BATCHES: list[list[str]] = []
SESSIONS = [f"s{number}" for number in range(6)]


@pytest.fixture(autouse=True)
def fresh() -> None:
    """No batch has come."""
    BATCHES.clear()


class Refused(Exception):
    """A user's error."""


@tool
async def upper(text: str) -> str:
    """Called by a batch, for one of its items."""
    return text.upper()


@agent(concurrency=2, state_max_bytes=5000)
class Chatter:
    """Answers many sessions at once."""

    lines: ManagedList[str]
    count: ManagedCounter

    @batchable(max_batch=8, max_wait=0.05)
    async def say(self, texts: list[str]) -> list[int]:
        """Keep a line; two passes, as with a model in between."""
        BATCHES.append(texts)
        asked = []
        for text in callboard.each(texts):
            self.lines.append(text)
            asked.append(len(self.lines))
        await asyncio.sleep(0)
        results: list[Any] = []
        for text, place in zip(texts, callboard.each(asked), strict=True):
            self.count += 1
            results.append(Refused(text) if text.startswith("no") else place)
        return results

    @batchable(max_batch=8, max_wait=0.05)
    def say_in_a_thread(self, texts: list[str]) -> list[int]:
        """Keep a line."""
        places = []
        for number, text in enumerate(texts):
            with callboard.item(number):
                self.lines.append(text)
                places.append(len(self.lines))
        return places

    @batchable(max_batch=8, max_wait=0.05)
    async def say_at_once(self, texts: list[str]) -> list[str]:
        """Every item in a task of its own, with a call of its own."""

        async def one(place: int) -> str:
            with callboard.item(place):
                self.lines.append(await upper(texts[place]))
                return self.lines[-1]

        return list(await asyncio.gather(*(one(place) for place in range(len(texts)))))

    @batchable(max_batch=8, max_wait=0.05)
    async def all_fail(self, texts: list[str]) -> list[int]:
        """Keep a line, then fail for everybody."""
        for text in callboard.each(texts):
            self.lines.append(text)
        raise Refused("all")

    @batchable(max_batch=8, max_wait=0.05)
    async def inward(self, texts: list[str]) -> list[int]:
        """Call itself through the stub, in the session of each item."""
        found = [Chatter.say(text) for text in callboard.each(texts)]
        return await asyncio.gather(*found, return_exceptions=True)  # type: ignore[return-value]

    @batchable(max_batch=8, max_wait=0.0)
    async def careless(self, texts: list[str]) -> list[str]:
        """Say nowhere whose."""
        return [f"{len(self.lines)} {text}" for text in texts]

    @batchable(max_batch=8, max_wait=0.0)
    async def misuse(self, texts: list[str]) -> list[str]:
        """Every wrong use, told by its error."""
        told = []
        for wrong in (
            lambda: callboard.each([*texts, "more"]),
            lambda: callboard.item(len(texts)).__enter__(),
            lambda: callboard.item(-1).__enter__(),
            lambda: self.lines,
        ):
            try:
                wrong()
            except (BatchMisused, NoSession) as error:
                told.append(type(error).__name__)
        for _ in callboard.each(texts):
            break
        try:
            _ = self.lines
        except NoSession:
            told.append("left")
        return [",".join(told)] * len(texts)

    @method
    async def all(self) -> tuple[list[str], int]:
        """All that is kept."""
        return list(self.lines), self.count


Told = tuple[list[Any], list[tuple[list[str], int]]]


@workflow
async def many(how: str, texts: list[str], sessions: list[str]) -> Told:
    """One call in each session, all at once; what they gave, and what is kept then."""
    calls = []
    for text, session in zip(texts, sessions, strict=True):
        with options(session=session):
            calls.append(getattr(Chatter, how)(text))
    gave = await asyncio.gather(*calls, return_exceptions=True)
    kept = []
    for session in sorted(set(sessions)):
        with options(session=session):
            kept.append(await Chatter.all())
    return [one if not isinstance(one, BaseException) else repr(one) for one in gave], kept


@pytest.fixture(params=["board", "local"])
async def say(request: pytest.FixtureRequest, board: Board) -> AsyncIterator[Any]:
    """Runs ``many`` on a board, and without NATS."""
    if request.param == "local":
        yield many
        return
    await board.host(Chatter, upper)
    await board.host(many)

    async def on_the_board(how: str, texts: list[str], sessions: list[str]) -> Any:
        gave, kept = await board.run(many, how=how, texts=texts, sessions=sessions)
        return gave, [tuple(one) for one in kept]

    yield on_the_board


def named(prefix: str) -> list[str]:
    """Sessions of one test: in local mode they outlive it."""
    return [f"{prefix}{name}" for name in SESSIONS]


async def test_each_item_sees_its_own_session(say: Any) -> None:
    """In passes over the items, in threads, and in tasks with calls of their own."""
    mine = named("own")
    assert await say("say", list("abcdef"), mine) == ([1] * 6, [([one], 1) for one in "abcdef"])
    gave, kept = await say("say_in_a_thread", list("ghijkl"), mine)
    assert gave == [2] * 6
    assert kept == [([one, two], 1) for one, two in zip("abcdef", "ghijkl", strict=True)]
    gave, kept = await say("say_at_once", list("mnopqr"), mine)
    assert gave == list("MNOPQR")
    assert [lines[-1] for lines, _ in kept] == list("MNOPQR")


async def test_one_item_that_fails_leaves_the_others(say: Any) -> None:
    """What it has changed vanishes, what they have changed stays."""
    gave, kept = await say("say", ["a", "no b", "c"], named("fail")[:3])
    assert gave == [1, "Refused('no b')", 1]
    assert kept == [(["a"], 1), ([], 0), (["c"], 1)]


async def test_a_handler_that_fails_leaves_all_as_they_were(say: Any) -> None:
    """Its error is everybody's."""
    gave, kept = await say("all_fail", ["a", "b"], named("all")[:2])
    assert gave == ["Refused('all')"] * 2
    assert kept == [([], 0)] * 2


async def test_without_saying_whose_there_is_no_state(say: Any) -> None:
    """A typed error tells what to write, in local mode too."""
    gave, _ = await say("careless", ["a"], named("none")[:1])
    assert "callboard.each(items)" in gave[0]
    assert gave[0].startswith("NoSession")


async def test_wrong_uses_are_typed_errors(say: Any) -> None:
    """Too many values, no such item; and what was bound is unbound when a loop is left."""
    gave, _ = await say("misuse", ["a"], named("wrong")[:1])
    assert gave == ["BatchMisused,BatchMisused,BatchMisused,NoSession,left"]


def test_outside_of_a_batch_there_are_no_items() -> None:
    """A typed error."""
    with pytest.raises(BatchMisused, match="this is none"):
        callboard.each([1])
    with pytest.raises(BatchMisused, match="this is none"), callboard.item(0):
        pass


async def test_a_call_into_a_session_of_the_batch_is_refused(say: Any) -> None:
    """Whichever item it is for: it would wait for itself."""
    gave, kept = await say("inward", ["a", "b", "c"], named("in")[:3])
    assert [one.partition("(")[0] for one in gave] == [SessionHeld.__name__] * 3
    assert kept == [([], 0)] * 3


async def test_two_calls_of_a_session_are_never_in_one_batch(board: Board) -> None:
    """Of many calls in few sessions every one sees those before it in its session."""
    await board.host(Chatter)
    await board.host(many)
    sessions = [f"s{number % 3}" for number in range(30)]
    texts = [f"{session} {number}" for number, session in enumerate(sessions)]
    gave, kept = await board.run(many, how="say", texts=texts, sessions=sessions)
    assert gave == [1 + number // 3 for number in range(30)]
    assert [lines for lines, _ in kept] == [[t for t in texts if t.startswith(f"s{n} ")] for n in range(3)]
    assert max(map(len, BATCHES)) > 1
    for batch in BATCHES:
        assert len({text.split()[0] for text in batch}) == len(batch)


async def test_one_item_that_cannot_be_stored_fails_alone(board: Board) -> None:
    """Its state would be too large."""
    await board.host(Chatter, many)
    gave, kept = await board.run(many, how="say", texts=["a", "x" * 6000, "c"], sessions=["s1", "s2", "s3"])
    assert gave[0] == gave[2] == 1
    assert gave[1].startswith(StateTooLarge.__name__)
    assert [count for _, count in kept] == [1, 0, 1]


async def test_one_that_does_not_decode_fails_alone(board: Board) -> None:
    """The others keep their places."""
    await board.host(Chatter, many)
    node = await board.node()
    bodies = [{"texts": "a"}, {"texts": 7}, {"texts": "c"}]
    for number, body in enumerate(bodies):
        head = call_headers(f"r{number}:1", "say", Cb_Session=f"s{number}")
        node.store.put(call_subject(Chatter), packed(body), head)
    for number in range(3):
        await board.entries(f"r{number}", "result")
    errors = [(await board.results(f"r{number}"))[0].error for number in range(3)]
    assert [error.code if error else "" for error in errors] == ["", "invalid_arguments", ""]
    gave, kept = await board.run(many, how="say", texts=["d", "e", "f"], sessions=["s0", "s1", "s2"])
    assert gave == [2, 1, 2]
    assert [lines for lines, _ in kept] == [["a", "d"], ["e"], ["c", "f"]]


@pytest.mark.parametrize("commits", [1, 3])
async def test_a_host_that_dies_between_the_commits(
    board: Board, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """Of each item the change is there once: of those committed before by their outcome, of the others anew."""
    await board.host(many)
    dying = await board.host(Chatter)
    made: Counter[str] = Counter()
    dead = asyncio.Event()
    real = Session.commit

    async def commit(self: Session, *args: Any) -> int:
        if made.total() >= commits and not dead.is_set():
            dead.set()
            await asyncio.Event().wait()  # its end comes first
        made[self.id] += 1
        return await real(self, *args)

    monkeypatch.setattr(Session, "commit", commit)
    texts = [f"{name} text" for name in SESSIONS]
    run = await board.submit(many, how="say", texts=texts, sessions=SESSIONS)
    await dead.wait()
    await board.kill(dying)
    await board.host(Chatter)
    done = await board.done(run)
    assert done.status == "completed"
    gave, kept = await board.run(many, how="say", texts=texts, sessions=SESSIONS)
    assert gave == [2] * len(SESSIONS)
    assert kept == [[[text, text], 2] for text in texts]


async def test_items_go_where_their_sessions_are(board: Board) -> None:
    """A host that is given a batch passes on the items whose sessions another host holds, and runs the rest."""
    await board.host(Chatter)
    await board.host(Chatter)
    for number in range(5):
        driver = await board.host(many)  # one that does not know who holds what
        texts = [f"{session} {number}" for session in SESSIONS]
        gave, kept = await board.run(many, how="say", texts=texts, sessions=SESSIONS)
        assert gave == [number + 1] * len(SESSIONS)
        assert [lines[-1] for lines, _ in kept] == texts
        await board.kill(driver)


@agent(concurrency=2, name="Keeper")
class OldKeeper:
    """Before a change of the code."""

    lines: ManagedList[str]

    @method
    async def put(self, text: str) -> int:
        """Keep a line."""
        self.lines.append(text)
        return len(self.lines)


@agent(concurrency=4, name="Keeper")
class Keeper:
    """After that: what is kept in one session does not fit any more."""

    lines: ManagedList[int]

    @batchable(max_batch=30, max_wait=0.3)
    async def put(self, numbers: list[int]) -> list[list[int]]:
        """Keep a number, and hand on all; they are read when they are encoded."""
        BATCHES.append([str(number) for number in numbers])
        given: list[Any] = []
        for number in callboard.each(numbers):
            self.lines.append(number)
            given.append(self.lines)
        return given

    @method
    async def twice(self, number: int) -> list[int]:
        """Keep a number twice."""
        self.lines.append(number)
        await asyncio.sleep(0.05)
        self.lines.append(number)
        return list(self.lines)


@workflow
async def put_text() -> int:
    """Into the session that will not fit."""
    with options(session="bad"):
        return await OldKeeper.put("a")


@workflow
async def put_numbers(count: int) -> list[Any]:
    """One in each session, and two more in each but the one that does not fit."""
    puts, more = [], []
    for number in range(count):
        with options(session=f"good{number}" if number else "bad"):
            puts.append(Keeper.put(number))
            if number:
                more.append(Keeper.twice(number))
    told = await asyncio.gather(*puts, *more, return_exceptions=True)
    return [one if isinstance(one, list) else type(one).__name__ for one in told]


@pytest.mark.parametrize("count", [2, 25])
async def test_an_item_whose_result_cannot_be_read_fails_alone(
    board: Board, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The others are committed and told; the next call of their sessions begins only then."""
    before = await board.host(OldKeeper, put_text)
    await board.run(put_text)
    await before.stop()
    real, hold = Session.commit, asyncio.Event()

    async def late(self: Session, *args: Any, **options: Any) -> int:
        if self.id != "bad" and not hold.is_set():
            asyncio.get_running_loop().call_later(0.3, hold.set)
            await hold.wait()
        return await real(self, *args, **options)

    monkeypatch.setattr(Session, "commit", late)
    await board.host(Keeper, put_numbers)
    told = await board.run(put_numbers, count=count)
    good = range(1, count)
    assert told == ["StateIncompatible", *([n] for n in good), *([n, n, n] for n in good)]
    assert len(BATCHES) == 1
