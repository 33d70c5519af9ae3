"""Hearing an answer while it is said: one clean text, whatever is lost, repeated, slow or late."""

from __future__ import annotations

import asyncio
import gc

import msgspec
import pytest
from tests.support.board import Board
from tests.support.emulated import counted, emulated
from tests.support.gates import Gate
from tests.support.standin import Reply, StandIn
from tests.support.waiting import SOON, eventually, until

from callboard import Budget, ChatRequest, Message, Piece, Sampling, model, model_at, model_function, workflow
from callboard.actors import listening, speech
from callboard.actors.listening import Listener
from callboard.actors.models.openai_engine import OpenAIEngine
from callboard.actors.speech import LocalLine, Speech
from callboard.infra import subjects
from callboard.infra.messages.tokens import TakeUp, Tokens

heard: list[Piece] = []


@pytest.fixture(autouse=True)
def _nothing_heard() -> None:
    heard.clear()


@workflow
async def tell(text: str) -> str:
    """Hears what the engine says, piece by piece."""
    stream = model("remote").stream(text)
    async for piece in stream:
        heard.append(piece)
    return (await stream.result()).text


@workflow
def tell_plainly(text: str) -> str:
    """In a thread."""
    heard.extend(model("remote").stream(text))
    return model("remote").chat("more").value().text


@workflow
async def tell_some(text: str) -> str:
    """Hears the beginning only; the answer itself is whole."""
    stream = model("remote").stream(text)
    async for piece in stream:
        heard.append(piece)
        break
    return (await stream.result()).text


@workflow
async def chat(text: str) -> str:
    """Does not listen itself."""
    return (await model("remote").chat(text)).text


@workflow
async def go_on(prompt: str) -> str:
    """Hears a prompt being continued."""
    stream = model("remote").stream_completion(prompt, max_tokens=8)
    async for piece in stream:
        heard.append(piece)
    done = await stream.result()
    return f"{done.text}{done.usage.completion_tokens}"


def text_of(pieces: list[Piece]) -> str:
    """What a reader has who begins anew where it is told to."""
    said = ""
    for piece in pieces:
        said = piece.text if piece.reset else said + piece.text
    return said


# -- in the caller ---------------------------------------------------------------------------------


async def test_heard_while_it_is_said(board: Board, engine: StandIn) -> None:
    """The first words are there while the engine still speaks; together the pieces are the result."""
    reply = Reply(["once ", "upon ", "a time"], hold_after=2)
    engine.replies.append(reply)
    await board.host(tell, model_at("remote", url=engine.url))
    run = await board.submit(tell, text="hi")
    await until(lambda: text_of(heard) == "once upon ")
    reply.go.set()
    assert (await board.done(run)).status == "completed"
    assert text_of(heard) == "once upon a time"
    assert [piece.done for piece in heard] == [False] * (len(heard) - 1) + [True]
    assert not any(piece.reset or piece.lost for piece in heard)


async def test_a_completion_is_heard(board: Board) -> None:
    """The same of a prompt that is continued."""
    async with emulated(step_ms=20.0) as engine:
        await board.host(go_on, model_at("remote", url=engine.url))
        assert await board.run(go_on, prompt="Once upon a time") == f"{text_of(heard)}8"
    assert [piece.done for piece in heard] == [False] * (len(heard) - 1) + [True]
    assert len(heard) > 1


async def test_a_cheaper_model_is_heard(board: Board, engine: StandIn) -> None:
    """It answers in the other one's place; who hears all of the run hears it once."""
    reply = Reply(["once ", "upon ", "a time"], hold_after=2)
    engine.replies.append(reply)
    await board.host(tell, *(model_at(name, url=engine.url) for name in ("remote", "cheap")))
    client = await board.client()
    budget = Budget(calls=0, when_spent="degrade", degrade_to="cheap")
    run = await client.submit("tell", {"text": "hi"}, budget=budget)
    pieces: list[Piece] = []

    async def listen() -> None:
        async for piece in client.tokens(run):
            pieces.append(piece)

    listening = asyncio.create_task(listen())
    await until(lambda: text_of(heard) == text_of(pieces) == "once upon ")
    reply.go.set()
    assert await client.result(run, SOON) == "once upon a time"
    await listening
    assert text_of(heard) == text_of(pieces) == "once upon a time"
    assert {piece.future for piece in heard} == {f"{run}:1"}
    assert {piece.future for piece in pieces} == {f"{run}:1.1"}
    assert not any(piece.reset or piece.lost for piece in heard + pieces)


async def test_a_cheaper_model_takes_nobodys_place(board: Board, engine: StandIn) -> None:
    """While it answers, the other one answers those that are not degraded."""
    engine.replies.append(reply := Reply(["once ", "upon"], hold_after=1))
    await board.host(
        chat, model_at("remote", url=engine.url, concurrency=1), model_at("cheap", url=engine.url)
    )
    client = await board.client()
    budget = Budget(calls=0, when_spent="degrade", degrade_to="cheap")
    run = await client.submit("chat", {"text": "hi"}, budget=budget)
    await until(lambda: len(engine.chats) == 1)
    assert await client.run("chat", {"text": "paid"}, timeout=SOON) == "paid "
    reply.go.set()
    assert await client.result(run, SOON) == "once upon"


async def test_a_repeated_answer_is_none_to_go_on_with() -> None:
    """Another model said it; and who hears all of a run forgets what was said before in its place."""
    line = LocalLine()
    one, every = Listener(line, "r1", "1", lambda: None), Listener(line, "r1", "*", lambda: None)
    asked: list[Tokens] = []
    line.subscribe("me", lambda _, __, data, ___: asked.append(msgspec.msgpack.decode(data, type=Tokens)))
    for listener in (one, every):
        listener.hear(Tokens("r1:1", begun=5, text="own"))
        assert listener.take() == Piece(text="own", future="r1:1")
        listener.hear(Tokens("r1:1", attempt=2, begun=6, text="other", repeats="r1:1.1"))
        listener.tell(TakeUp("r1:1", 3, 7), "me")
    assert one.take() == Piece(text="other", future="r1:1", attempt=2, reset=True)
    assert every.take() == Piece(future="r1:1", attempt=2, reset=True)
    assert every.take() is None
    assert [told.text for told in asked] == ["", ""]


async def test_a_cheaper_model_continues_a_prompt(board: Board) -> None:
    """The same."""
    async with emulated(step_ms=20.0) as engine:
        await board.host(go_on, *(model_at(name, url=engine.url) for name in ("remote", "cheap")))
        client = await board.client()
        budget = Budget(calls=0, when_spent="degrade", degrade_to="cheap")
        done = await client.run("go_on", {"prompt": "Once upon a time"}, budget=budget, timeout=SOON)
    assert done == f"{text_of(heard)}8"
    assert len(heard) > 1


async def test_who_stops_reading_listens_no_more(board: Board, engine: StandIn) -> None:
    """When the answer is complete, nothing is subscribed for it any more."""
    reply = Reply(["once ", "upon ", "a time"], hold_after=1)
    engine.replies.append(reply)
    host = await board.host(tell_some, model_at("remote", url=engine.url))
    run = await board.submit(tell_some, text="hi")
    await until(lambda: text_of(heard) == "once ")
    subscriptions = host.node.connection.client._subs
    prefix = subjects.tokens(run, "1")
    assert [one for one in subscriptions.values() if one._subject == prefix]
    reply.go.set()
    assert (await board.done(run)).status == "completed"
    await until(lambda: not [one for one in subscriptions.values() if one._subject == prefix])


async def test_in_a_thread(board: Board, engine: StandIn) -> None:
    """A plain function iterates with ``for``; it is no branch of the run, so replay finds the same ids."""
    await board.host(tell_plainly, model_at("remote", url=engine.url))
    run = await board.submit(tell_plainly, text="all at once")
    assert (await board.done(run)).status == "completed"
    assert text_of(heard) == "all at once "
    assert [result.future for result in await board.results(run)] == [f"{run}:1", f"{run}:2"]


async def test_without_a_board(engine: StandIn) -> None:
    """The same within one process."""
    model_at("remote", url=engine.url)
    assert await tell("here and now") == "here and now "
    assert text_of(heard) == "here and now "


async def test_a_retry_begins_anew(board: Board, engine: StandIn) -> None:
    """What a broken attempt has said is void, and the reader is told so."""
    engine.replies.extend([Reply(["wrong ", "words"], finish=""), Reply(["right ", "ones"])])
    await board.host(tell, model_at("remote", url=engine.url, backoff=0.1))
    assert await board.run(tell, text="hi") == "right ones"
    assert text_of(heard) == "right ones"
    assert [piece.reset for piece in heard].count(True) == 1
    assert heard[-1].attempt == 2


async def test_a_call_that_fails(board: Board, engine: StandIn) -> None:
    """What was said is heard, then the error."""
    engine.replies.append(Reply(["half"], finish=""))
    await board.host(tell, model_at("remote", url=engine.url, retries=0))
    done = await board.done(await board.submit(tell, text="hi"))
    assert done.error is not None
    assert done.error.code == "engine_down"


async def test_after_a_takeover(board: Board, engine: StandIn) -> None:
    """Who drives the run anew hears the rest of an answer that is still given, and what was said before."""
    reply = Reply(["before ", "and after"], hold_after=1)
    engine.replies.append(reply)
    first = await board.host(tell)
    await board.host(model_at("remote", url=engine.url))
    run = await board.submit(tell, text="hi")
    await until(lambda: text_of(heard) == "before ")
    await board.kill(first)
    heard.clear()
    await board.host(tell)
    await board.entries(run, "owner", 1)
    node = await board.node()

    async def taken_over() -> bool:
        owner = await node.journal.owner(run)
        return owner is not None and owner[0].epoch == 2

    await eventually(taken_over)
    reply.go.set()
    assert (await board.done(run)).status == "completed"
    assert text_of(heard) == "before and after"


# -- cancelling ------------------------------------------------------------------------------------


async def test_cancelling_a_run_reaches_the_engine(board: Board, engine: StandIn) -> None:
    """The request is closed, though the engine would go on for ever."""
    engine.replies.append(Reply(["endless "], hold_after=1))
    await board.host(chat, model_at("remote", url=engine.url))
    client = await board.client()
    run = await client.submit("chat", {"text": "hi"})
    await until(lambda: engine.chats)
    async with asyncio.timeout(SOON):
        await client.cancel(run)
        await engine.chats[0].left.wait()
    assert (await board.done(run)).status == "cancelled"


async def test_cancelling_a_stream(board: Board, engine: StandIn) -> None:
    """Who has heard enough stops the engine."""

    @workflow
    async def enough() -> str:
        stream = model("remote").stream("hi")
        async for piece in stream:
            stream.cancel()
            return piece.text
        return ""

    engine.replies.append(Reply(["first ", "second"], hold_after=1))
    await board.host(enough, model_at("remote", url=engine.url))
    assert await board.run(enough) == "first "
    async with asyncio.timeout(SOON):
        await engine.chats[0].left.wait()


async def test_a_deadline_reaches_the_engine(board: Board, engine: StandIn) -> None:
    """When the run's time is over, so is the request; before the first word, too."""
    engine.replies.append(Reply([], hold_after=0))
    await board.host(chat, model_at("remote", url=engine.url))
    client = await board.client()
    run = await client.submit("chat", {"text": "hi"}, deadline=3.0)
    await until(lambda: engine.chats)
    done = await board.done(run)
    assert done.error is not None
    assert done.error.code == "deadline_exceeded"
    async with asyncio.timeout(SOON):
        await engine.chats[0].left.wait()


# -- clients ---------------------------------------------------------------------------------------


async def test_a_client_that_comes_late(board: Board, engine: StandIn) -> None:
    """It hears what was said so far, then the rest; it ends with the run."""
    reply = Reply(["early ", "late"], hold_after=1)
    engine.replies.append(reply)
    host = await board.host(chat, model_at("remote", url=engine.url))
    client = await board.client()
    run = await client.submit("chat", {"text": "hi"})
    await until(lambda: any(one.text == "early " for one in host.speech.said(run)))
    pieces: list[Piece] = []
    async for piece in client.tokens(run):
        pieces.append(piece)
        reply.go.set()
    assert pieces[0].text == "early "
    assert text_of(pieces) == "early late"
    assert (pieces[-1].future, pieces[-1].done) == (f"{run}:1", True)
    assert host.speech.said(run) == []


async def test_many_with_one_slow_reader(board: Board) -> None:
    """A client that does not read holds up nobody and keeps no more than the limit; it is told what it lost."""
    listening_now = asyncio.Event()

    @model_function(name="remote")
    async def flood(request: ChatRequest):  # type: ignore[no-untyped-def]  # noqa: ANN202 - as users may
        for number in range(30):
            yield "x" * 100_000
            if number == 0:
                await listening_now.wait()

    @workflow
    async def floods() -> int:
        return sum(
            len(one.text) for one in [await model("remote").chat("hi"), await model("remote").chat("hi")]
        )

    await board.host(floods, flood)
    client = await board.client()
    run = await client.submit("floods")
    tokens = client.tokens(run)
    first = await anext(tokens)
    listening_now.set()
    assert (await board.done(run)).status == "completed"  # nobody has read meanwhile
    rest = [piece async for piece in tokens]
    assert sum(len(piece.text) for piece in [first, *rest]) <= 2 * listening.LIMIT
    ends = [piece for piece in rest if piece.done]
    assert len(ends) == 2
    assert any(piece.lost for piece in ends)
    assert await client.result(run) == 6_000_000


# -- the pieces themselves -------------------------------------------------------------------------


async def test_coalesced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first word leaves at once; what is said soon after it leaves together, in the right places."""
    monkeypatch.setattr(speech, "EVERY", 0.5)  # seconds in which these lines surely run
    sent: list[Tokens] = []
    said = Speech(lambda _, body: sent.append(msgspec.msgpack.decode(body, type=Tokens)))
    with said.speaker("r1:3/2~2") as speaker:
        for word in ("a", "bc", "d"):
            speaker.say(word)
        assert [one.text for one in sent] == ["a"]
        await until(lambda: len(sent) == 2)
    assert [(one.text, one.at, one.index, one.last) for one in sent] == [
        ("a", 0, 0, False),
        ("bcd", 1, 1, False),
        ("", 4, 2, True),
    ]
    assert {(one.future, one.attempt) for one in sent} == {("r1:3/2", 2)}


async def test_a_large_piece() -> None:
    """It travels in several messages; somebody who comes late is told what a message has room for."""
    sent: list[Tokens] = []
    said = Speech(lambda _, body: sent.append(msgspec.msgpack.decode(body, type=Tokens)))
    with said.speaker("r1:1") as small, said.speaker("r1:2") as large:
        small.say("hello")
        large.say("\N{SNOWMAN}" * 250_000)
        assert [one.future for one in said.said("r1")] == ["r1:1"]
    assert said.said("r1") == []
    assert [len(one.text) for one in sent[1:4]] == [100_000, 100_000, 50_000]


def listener() -> Listener:
    """One that hears what a test gives it."""
    return Listener(LocalLine(), "r1", "1", lambda: None)


def test_overlapping_and_repeated() -> None:
    """A piece that is known in part adds the rest; one that is known adds nothing."""
    one = listener()
    for at, text in ((0, "abc"), (1, "bcd"), (0, "ab"), (4, "e")):
        one.hear(Tokens("r1:1", begun=5, at=at, text=text))
    assert one.take() == Piece("abcde", "r1:1")
    assert one.take() is None


def test_fenced() -> None:
    """Whoever began earlier is not heard any more, of whichever attempt; a later beginning is a reset."""
    one = listener()
    one.hear(Tokens("r1:1", attempt=2, begun=5, text="new"))
    one.hear(Tokens("r1:1", attempt=2, begun=4, at=3, text="old"))
    one.hear(Tokens("r1:1", attempt=1, begun=9, text="older"))
    assert one.take() == Piece("new", "r1:1", attempt=2)
    one.hear(Tokens("r1:1", attempt=2, begun=6, text="newest"))
    assert one.take() == Piece("newest", "r1:1", attempt=2, reset=True)


def test_a_gap() -> None:
    """What follows a lost piece is not heard before that; an answer that ends with a gap says so."""
    one = listener()
    one.hear(Tokens("r1:1", begun=5, text="a"))
    one.hear(Tokens("r1:1", begun=5, at=2, text="c"))
    assert one.take() == Piece("a", "r1:1")
    one.hear(Tokens("r1:1", begun=5, at=0, text="abc"))
    assert one.take() == Piece("bc", "r1:1")
    one.hear(Tokens("r1:1", begun=5, at=9, text="z", last=True))
    assert one.take() == Piece("", "r1:1", done=True, lost=True)


async def test_rubbish_on_the_subject(board: Board, engine: StandIn) -> None:
    """Anybody can publish there: it is passed over."""
    reply = Reply(["clean"], hold_after=0)
    engine.replies.append(reply)
    await board.host(tell, model_at("remote", url=engine.url))
    node = await board.node()
    run = await board.submit(tell, text="hi")
    await until(lambda: engine.chats)
    for body in (b"", b"\xc1", b"{}", msgspec.msgpack.encode({"future": 7})):
        node.connection.publish(subjects.tokens(run, "1"), body)
    await node.connection.flush()
    reply.go.set()
    assert (await board.done(run)).status == "completed"
    assert text_of(heard) == "clean"


# -- many at once ----------------------------------------------------------------------------------


@workflow
async def crowd(count: int, tokens: int) -> int:
    """So many streams side by side, each heard to its end; gives how many were whole."""

    async def one() -> bool:
        stream = model("many").stream("hi", sampling=Sampling(max_tokens=tokens, extra={"ignore_eos": True}))
        return text_of([piece async for piece in stream]) == counted(tokens)

    return sum(await asyncio.gather(*(one() for _ in range(count))))


@workflow
async def drag(tokens: int) -> str:
    """Reads one piece, and the next ones only when all others are done."""
    stream = model("many").stream("hi", sampling=Sampling(max_tokens=tokens, extra={"ignore_eos": True}))
    said = [await anext(stream)]
    reading.set()
    await others_done.wait()
    assert stream._listener is not None
    assert 0 < stream._listener._waiting <= listening.LIMIT
    said += [piece async for piece in stream]
    return text_of(said)


reading = Gate()
others_done = Gate()


@pytest.mark.slow
async def test_a_thousand_streams_and_one_slow_reader(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text is whole; who does not read keeps no more than the limit, and has all of it at the end."""
    monkeypatch.setattr(listening, "LIMIT", 100)
    async with emulated(step_ms=20.0) as engine:
        served = model_at("many", url=engine.url, concurrency=1001)
        host = await board.host(crowd, drag, served)
        slow = await board.submit(drag, tokens=60)
        async with asyncio.timeout(30):
            await reading.wait()
        assert await board.run(crowd, count=1000, tokens=10, timeout=90) == 1000
        await until(lambda: engine.running == 0)
        others_done.set()
        assert (await (await board.client()).result(slow, timeout=30)) == counted(60)
        assert engine.app.engine.batcher.counts.generated == 1000 * 10 + 60
        await host.stop()
        gc.collect()  # connections that nobody has closed would be told of now


async def test_a_reader_that_does_not_read_holds_nothing_up() -> None:
    """Of the engine itself: a client that leaves its answer in the socket costs others nothing, and no memory."""
    async with emulated(step_ms=1.0) as engine:
        address = engine.url.removeprefix("http://").removesuffix("/v1").split(":")
        body = b'{"prompt": "hi", "max_tokens": 4000, "ignore_eos": true, "stream": true}'
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        reader, writer = await asyncio.open_connection(address[0], int(address[1]), limit=1024)
        writer.write(head + body)
        await until(lambda: engine.running == 1)
        quick = await asyncio.gather(*(_asked(engine.url) for _ in range(20)))
        assert quick == [counted(20)] * 20
        writer.close()
        await until(lambda: engine.running == 0)
        del reader


async def _asked(url: str) -> str:
    request = ChatRequest(messages=[Message("user", "hi")])
    return (await OpenAIEngine("many", url).chat(request, lambda _: None)).text
