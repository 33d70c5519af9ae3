"""An answer that breaks off goes on there: no character is repeated or missing, and nobody begins anew."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from tests.cli.terminal import Running
from tests.support.board import Board
from tests.support.emulated import Emulated, counted, emulated
from tests.support.gates import anew
from tests.support.standin import Reply, StandIn
from tests.support.waiting import SOON, eventually, until

from callboard import (
    Budget,
    ChatRequest,
    ChatResult,
    Piece,
    Sampling,
    model,
    model_at,
    model_function,
    workflow,
)
from callboard.actors import resuming
from callboard.actors.emulator.words import tokens
from callboard.actors.listening import Listener
from callboard.actors.models.metered import tokens_of
from callboard.actors.models.openai_engine import OpenAIEngine
from callboard.actors.models.types import Completion, CompletionRequest, Message
from callboard.actors.speech import LocalLine, Speech
from callboard.infra.errors import EngineDown
from callboard.infra.messages.tokens import TakeUp, Tokens

heard: list[Piece] = anew([])
requests: list[ChatRequest] = anew([])
LONG = Sampling(max_tokens=20, extra={"ignore_eos": True})


@pytest.fixture
async def emulator() -> AsyncIterator[Emulated]:
    """An emulated engine whose answers have 20 tokens."""
    async with emulated() as one:
        yield one


@workflow
async def tell(sampling: Sampling = Sampling()) -> ChatResult[Any]:  # noqa: B008 - not changed
    """Hears what the engine says, piece by piece."""
    stream = model("writer").stream("hi", sampling=sampling)
    async for piece in stream:
        heard.append(piece)
    return await stream.result()


@workflow
async def chat() -> str:
    """Does not listen itself."""
    return (await model("writer").chat("hi")).text


@workflow
async def complete(prompt: str) -> Completion:
    """A completion; whoever wants to hear it is a client."""
    return await model("writer").complete(prompt, max_tokens=20, sampling=LONG)


def text_of(pieces: list[Piece]) -> str:
    """What a reader has who begins anew where it is told to."""
    said = ""
    for piece in pieces:
        said = piece.text if piece.reset else said + piece.text
    return said


def check_clean(pieces: list[Piece], resets: int = 0) -> None:
    """Every character once."""
    assert text_of(pieces) == counted(20)
    assert [piece.reset for piece in pieces].count(True) == resets
    assert not any(piece.lost for piece in pieces)


async def test_an_engine_that_breaks(board: Board, emulator: Emulated) -> None:
    """Twice: each attempt goes on where the last one broke off, and the result is as of one that did not."""
    emulator.fault(kind="break", after=5)
    emulator.fault(kind="error", after=6)
    await board.host(tell, model_at("writer", url=emulator.url, backoff=0.05, continues=True))
    result = await board.run(tell)
    check_clean(heard)
    assert heard[-1].attempt == 3
    undisturbed = await board.run(tell)
    del result["id"], undisturbed["id"]
    assert result == undisturbed


async def test_no_more_tokens_than_asked_for(board: Board, emulator: Emulated) -> None:
    """What was said before counts for ``max_tokens``, and in the usage."""
    emulator.fault(kind="break", after=7)
    await board.host(tell, model_at("writer", url=emulator.url, backoff=0.05, continues=True))
    result = await board.run(tell, sampling=LONG)
    check_clean(heard)
    assert (result["finish_reason"], result["usage"]["completion_tokens"]) == ("length", 20)
    assert emulator.app.engine.batcher.counts.generated < 2 * 20


async def test_only_the_end_was_missing(board: Board, emulator: Emulated) -> None:
    """All tokens that were allowed had been said: nothing is asked for, and the reason is the same."""
    emulator.fault(kind="break", after=20)
    await board.host(tell, model_at("writer", url=emulator.url, backoff=0.05, continues=True))
    result = await board.run(tell, sampling=LONG)
    check_clean(heard)
    assert (result["finish_reason"], result["message"]["content"]) == ("length", counted(20))
    assert emulator.app.engine.batcher.counts.generated == 20


async def test_an_engine_that_stalls(board: Board, emulator: Emulated) -> None:
    """It is given up, and the next attempt goes on."""
    emulator.fault(kind="stall", after=4)
    served = model_at("writer", url=emulator.url, backoff=0.05, stalled_after=1.0, continues=True)
    await board.host(tell, served)
    await board.run(tell)
    check_clean(heard)


async def test_a_host_killed_in_mid_stream(board: Board, emulator: Emulated) -> None:
    """``kill -9`` of its process; another host with another engine goes on, for the caller and for a client."""
    emulator.fault(kind="stall", after=6)
    options = ["--model", "writer", "--url", emulator.url, "--continues", "--json"]
    with Running("host", *options, url=board.url) as doomed:
        doomed.until("host_ready")
        await board.host(tell)
        client = await board.client()
        run = await client.submit("tell")
        pieces: list[Piece] = []

        async def listen() -> None:
            async for piece in client.tokens(run):
                pieces.append(piece)

        listening = asyncio.ensure_future(listen())
        await until(lambda: "5" in text_of(heard) and "5" in text_of(pieces))
        async with emulated() as other:
            await board.host(model_at("writer", url=other.url, continues=True))
            doomed.send(signal.SIGKILL)
            assert (await board.done(run)).status == "completed"
            async with asyncio.timeout(SOON):
                await listening
            assert other.app.engine.batcher.counts.generated == 14
    check_clean(heard)
    check_clean(pieces)


async def test_driver_and_model_killed_together(
    board: Board, emulator: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client has heard it: the next driver hears all of it, and the client no word twice."""
    monkeypatch.setattr(resuming, "_OTHERS", 2.0)  # seconds that the client gets after the driver
    emulator.fault(kind="stall", after=6)
    first = await board.host(tell, model_at("writer", url=emulator.url, continues=True))
    client = await board.client()
    run = await client.submit("tell")
    pieces: list[Piece] = []
    async for piece in client.tokens(run):
        pieces.append(piece)
        if text_of(pieces) == counted(6):
            await board.kill(first)
            heard.clear()
            async with asyncio.timeout(SOON):
                await board.host(tell, model_at("writer", url=emulator.url, continues=True))
    check_clean(pieces)
    assert text_of(heard) == counted(20)


async def test_a_drained_host(board: Board, emulator: Emulated) -> None:
    """What does not end in time goes on elsewhere."""
    emulator.fault(kind="stall", after=6)
    await board.host(tell)
    first = await board.host(model_at("writer", url=emulator.url, continues=True))
    run = await board.submit(tell)
    await until(lambda: text_of(heard) == counted(6))
    await board.host(model_at("writer", url=emulator.url, continues=True))
    await first.stop(0.1)
    assert (await board.done(run)).status == "completed"
    check_clean(heard)


async def test_a_completion(board: Board, emulator: Emulated) -> None:
    """Its prompt goes on with what was said; a client hears it in one go, also one that came late."""
    emulator.fault(kind="stall", after=9)
    served = model_at("writer", url=emulator.url, backoff=0.05, stalled_after=1.0, continues=True)
    host = await board.host(complete, served)
    client = await board.client()
    run = await client.submit("complete", {"prompt": "count:"})
    await until(lambda: any("8" in one.text for one in host.speech.said(run)))
    pieces = [piece async for piece in client.tokens(run)]
    check_clean(pieces)
    result = await client.result(run)
    assert (result["text"], result["finish_reason"]) == (counted(20), "length")
    assert result["usage"]["completion_tokens"] == 20


async def test_charged_for_what_engines_took(board: Board, emulator: Emulated) -> None:
    """The broken attempt its prompt and what was heard; the next one a prompt with that in it, and the rest."""
    await board.host(tell, model_at("writer", url=emulator.url, backoff=0.05, continues=True))
    client = await board.client()
    prompt = (await client.run("tell", timeout=SOON))["usage"]["prompt_tokens"]
    emulator.fault(kind="break", after=7)
    run = await client.submit("tell", budget=Budget(tokens=100_000))
    usage = (await client.result(run))["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, 20)

    async def settled() -> int:
        (account,) = await client.budgets()
        return account.spent.tokens if account.spent.calls == 2 and not account.open else 0

    pieces = await eventually(settled) - tokens_of([Message("user", "hi")]) - (prompt + 7 + 13)
    assert 1 <= pieces <= 7  # an engine may put several tokens into one


async def test_a_function(board: Board) -> None:
    """One that says so is given what was said, and gives the rest."""

    @model_function(name="writer", continues=True, retries=1, backoff=0.05)
    async def words(request: ChatRequest) -> AsyncIterator[str]:
        requests.append(request)
        for word in tokens(counted(20).removeprefix(request.said)):
            yield word
            if len(requests) == 1 and word == " 7":
                raise EngineDown("broken", engine="words", status=0)

    await board.host(tell, words)
    result = await board.run(tell)
    assert [one.said for one in requests] == ["", counted(8)]
    assert result["message"]["content"] == counted(20)
    check_clean(heard)


# -- where it cannot -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]},
        {"sampling": Sampling(extra={"logprobs": True})},
    ],
    ids=["tools", "logprobs"],
)
async def test_what_is_more_than_text_begins_anew(
    board: Board, emulator: Emulated, more: dict[str, Any]
) -> None:
    """Visibly: half of a tool call, or probabilities for half of the tokens, are of no use."""

    @workflow
    async def tell_more() -> str:
        stream = model("writer").stream("hi", **more)
        heard.extend([piece async for piece in stream])
        return (await stream.result()).text

    emulator.fault(kind="break", after=5)
    await board.host(tell_more, model_at("writer", url=emulator.url, backoff=0.05, continues=True))
    assert await board.run(tell_more) == counted(20)
    check_clean(heard, resets=1)


async def test_an_answer_of_a_type_begins_anew(board: Board, emulator: Emulated) -> None:
    """A grammar begins with the answer."""

    @workflow
    async def typed() -> list[Any]:
        stream = model("writer").stream("hi", schema={"type": "string", "minLength": 60})
        heard.extend([piece async for piece in stream])
        return [(await stream.result()).parsed]

    emulator.fault(kind="break", after=3)
    await board.host(typed, model_at("writer", url=emulator.url, backoff=0.05, continues=True))
    assert await board.run(typed) == ["emulated".ljust(60, ".")]
    assert [piece.reset for piece in heard].count(True) == 1


async def test_an_engine_that_refuses_to_go_on(board: Board, engine: StandIn) -> None:
    """It was wrong to say that it can: the answer begins anew, in the same attempt."""
    refused = Reply(status=400, body=b'{"error": {"message": "cannot continue"}}')
    engine.replies.extend([Reply(["once ", "upon"], finish=""), refused, Reply(["a ", "new one"])])
    engine.paths["/tokenize"] = b'{"count": 2}'
    await board.host(tell, model_at("writer", url=engine.url, backoff=0.05, continues=True))
    result = await board.run(tell)
    assert text_of(heard) == result["message"]["content"] == "a new one"
    assert [piece.reset for piece in heard].count(True) == 1
    assert heard[-1].attempt == 2


async def test_without_a_count_the_limit_goes_first(board: Board, engine: StandIn) -> None:
    """An engine that cannot say how many tokens were said begins anew where their number is limited."""
    engine.replies.extend([Reply(["once ", "upon"], finish=""), Reply(["anew"])] * 2)
    engine.paths["/tokenize"] = b'{"tokens": []}'
    await board.host(tell, model_at("writer", url=engine.url, backoff=0.05, continues=True))
    assert (await board.run(tell, sampling=Sampling(max_tokens=5)))["message"]["content"] == "anew"
    assert (await board.run(tell))["message"]["content"] == "once uponanew"
    assert [chat.body.get("continue_final_message") for chat in engine.chats] == [None, None, None, True]


# -- what the engine is asked ----------------------------------------------------------------------


async def test_white_space_at_the_end(engine: StandIn) -> None:
    """Templates cut it off, so the engine says it again: it is left out then, in whichever pieces it comes."""
    asking = OpenAIEngine("writer", engine.url, continues=True)
    for said, pieces, whole in (
        ("Hello", [", you"], "Hello, you"),
        ("Hello \n", [" ", "\nyou"], "Hello \nyou"),
        ("Hello  ", [" you"], "Hello  you"),
        ("Hello ", ["you"], "Hello you"),
        ("\n", ["\n", "you"], "\nyou"),
    ):
        engine.replies.append(Reply(pieces))
        told: list[str] = []
        request = ChatRequest(messages=[Message("user", "hi")], said=said)
        assert (await asking.chat(request, told.append)).text == whole
        assert said + "".join(told) == whole
    bodies = [chat.body for chat in engine.chats]
    assert [body["messages"][-1]["content"] for body in bodies] == ["Hello"] * 4 + ["hi"]
    assert [body.get("add_generation_prompt") for body in bodies] == [False] * 4 + [None]


async def test_at_every_place(emulator: Emulated) -> None:
    """Wherever an answer of the emulator is cut, the rest is what follows."""
    asking = OpenAIEngine("writer", emulator.url, continues=True)
    await asking.open()
    whole = counted(20)
    told: list[str] = []
    for count in (1, 2, 11, 19, 20):
        said = counted(count)
        left = 20 - count
        sampling = Sampling(max_tokens=left, extra={"ignore_eos": True})
        chat = ChatRequest(messages=[Message("user", "hi")], said=said, sampling=sampling)
        completion = CompletionRequest(prompt="count: ", said=said, sampling=sampling)
        assert await asking.tokens(said) == count
        for result in (await asking.chat(chat, told.append), await asking.complete(completion, told.append)):
            assert (result.text, result.finish_reason) == (whole, "length")
            assert result.usage.completion_tokens == left
    ended = await asking.chat(ChatRequest(messages=[Message("user", "hi")], said=whole), told.append)
    assert (ended.text, ended.finish_reason) == (whole, "stop")
    await asking.close()


# -- what listeners tell ---------------------------------------------------------------------------


class Asking:
    """Somebody who takes up an answer that a listener hears."""

    def __init__(self) -> None:
        self.line = LocalLine()
        self.listener = Listener(self.line, "r1", "1", lambda: None)

    def takes_up(self, attempt: int, begun: int) -> Tokens:
        """What the listener answers."""
        told: list[Tokens] = []

        def on_answer(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
            told.append(msgspec.msgpack.decode(data, type=Tokens))

        sid = self.line.subscribe("answer", on_answer)
        self.listener.tell(TakeUp("r1:1", attempt, begun), "answer")
        self.line.unsubscribe(sid)
        return told[0]

    def hears(self, **said: Any) -> Piece | None:
        """What a piece adds."""
        self.listener.hear(Tokens("r1:1", **said))
        return self.listener.take()


def test_who_was_taken_for_dead_is_not_heard() -> None:
    """From the moment that a listener was asked; else its words would stand where another's belong."""
    one = Asking()
    one.hears(begun=5, text="abc")
    assert one.takes_up(1, 9) == Tokens("r1:1", begun=5, text="abc")
    assert one.hears(begun=5, at=3, text="XYZ") is None
    assert one.hears(begun=9, at=3, after=5, kept=3, text="def") == Piece("def", "r1:1")
    assert one.takes_up(2, 12).text == "abcdef"


def test_who_has_heard_more_begins_anew() -> None:
    """Another listener, who has heard less, has told: what this one knows more is not in the answer."""
    one = Asking()
    one.hears(begun=5, text="abcde")
    assert one.hears(begun=9, at=3, after=5, kept=3, text="xyz") == Piece("", "r1:1", reset=True)
    assert one.hears(begun=9, at=0, after=5, kept=3, text="abcxyz") == Piece("abcxyz", "r1:1")


def test_who_has_heard_less_is_told_the_rest() -> None:
    """Without a reset: by what the speaker tells to all who miss a piece."""
    one = Asking()
    one.hears(begun=5, text="ab")
    assert one.hears(begun=9, at=3, after=5, kept=3, text="def") is None
    assert one.hears(begun=9, at=0, after=5, kept=3, text="abcdef") == Piece("cdef", "r1:1")


def test_who_has_heard_another_beginning() -> None:
    """That is not the one that is gone on with, however short it was."""
    one = Asking()
    one.hears(begun=5, text="X")
    assert one.hears(attempt=3, begun=20, at=0, after=9, kept=3, text="abc") == Piece(
        "abc", "r1:1", attempt=3, reset=True
    )


def test_what_is_complete_is_kept_for_a_while() -> None:
    """Its host may die before the outcome is stored; what is too long to tell is not kept at all."""
    one = Asking()
    one.hears(begun=5, text="abc", last=True)
    assert one.takes_up(1, 9).text == "abc"
    for number in range(2, 40):
        one.listener.hear(Tokens(f"r1:{number}", begun=5, text="x", last=True))
    assert one.takes_up(1, 12).text == ""
    assert one.hears(begun=15, at=3, after=5, kept=3, text="def") is not None
    assert one.takes_up(1, 20).text == ""
    long = Asking()
    long.hears(begun=5, text="x" * 100_000)
    long.hears(begun=5, at=100_000, text="x" * 100_000)
    assert long.takes_up(1, 9).text == ""


async def test_who_is_silent_is_waited_for_no_longer(
    board: Board, emulator: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that does not know the question, such as a client in another language, sees a reset."""
    monkeypatch.setattr(resuming, "_FIRST", 0.1)
    others: list[Tokens] = []

    def on_tokens(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        if not reply:
            others.append(msgspec.msgpack.decode(data, type=Tokens))

    emulator.fault(kind="break", after=5)
    await board.host(chat, model_at("writer", url=emulator.url, backoff=0.05, continues=True))
    node = await board.node()
    node.connection.subscribe("cb.token.*.*", on_tokens)
    await node.connection.flush()
    assert await board.run(chat) == counted(20)
    await until(lambda: others[-1].last)
    last = [one for one in others if one.begun == others[-1].begun]
    assert "".join(one.text for one in last) == counted(20)
    assert {one.attempt for one in others} == {1, 2}


async def test_what_is_not_decided_is_not_told() -> None:
    """A host that asks what was heard has nothing to say to those who ask it, which would be a reset."""
    speech = Speech(lambda _, body: None)
    with speech.speaker("r1:1~2") as speaker:
        assert speech.said("r1") == []
        speaker.go_on(Tokens("r1:1", begun=5, text="abc"))
        (told,) = speech.said("r1")
        assert (told.text, told.after, told.kept) == ("abc", 5, 3)


async def test_nobody_is_not_waited_for(
    board: Board, emulator: Emulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody listens the server says so at once, and the answer begins anew: nobody has heard it."""
    monkeypatch.setattr(resuming, "_FIRST", 3600.0)
    emulator.fault(kind="break", after=5)
    await board.host(chat, model_at("writer", url=emulator.url, backoff=0.05, continues=True))
    assert await board.run(chat) == counted(20)
    assert emulator.app.engine.batcher.counts.generated >= 20
