"""One clean stream for each call, whatever its engine does; and errors that say what it was."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.board import Board
from tests.support.emulated import Emulated, counted, emulated
from tests.support.waiting import SOON, until

from callboard import Piece, model, model_at, workflow
from callboard.actors.models.openai_engine import OpenAIEngine
from callboard.actors.models.types import ChatRequest, Message, Sampling
from callboard.infra.errors import AnswerUnusable, CallFailed, ContextOverflow, EngineDown, RateLimited

HI = ChatRequest(messages=[Message("user", "hi")])
heard: list[Piece] = []


@pytest.fixture(autouse=True)
def _nothing_heard() -> None:
    heard.clear()


@pytest.fixture
async def engine() -> AsyncIterator[Emulated]:
    """An emulated engine whose answers have 20 tokens."""
    async with emulated() as one:
        yield one


@workflow
async def tell(text: str) -> str:
    """Hears what the engine says, piece by piece."""
    stream = model("writer").stream(text)
    async for piece in stream:
        heard.append(piece)
    return (await stream.result()).text


def text_of(pieces: list[Piece]) -> str:
    """What a reader has who begins anew where it is told to."""
    said = ""
    for piece in pieces:
        said = piece.text if piece.reset else said + piece.text
    return said


def check_clean(answer: str, resets: int) -> None:
    """The text is the answer, and each reset was told."""
    assert answer == text_of(heard) == counted(20)
    assert [piece.reset for piece in heard].count(True) == resets
    assert not any(piece.lost for piece in heard)
    assert [piece.done for piece in heard] == [False] * (len(heard) - 1) + [True]


# -- faults, and what is heard ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["break", "rubbish", "error"])
async def test_broken_in_the_middle(board: Board, engine: Emulated, kind: str) -> None:
    """Twice, each time later; the third attempt is heard as a whole, and each beginning is told."""
    engine.fault(kind=kind, after=5)
    engine.fault(kind=kind, after=11)
    await board.host(tell, model_at("writer", url=engine.url, backoff=0.05))
    check_clean(await board.run(tell, text="hi"), resets=2)
    assert heard[-1].attempt == 3


async def test_refused_for_a_while(board: Board, engine: Emulated) -> None:
    """Nobody hears of an attempt that said nothing; the retry comes no sooner than the engine wants it."""
    engine.fault(kind="refuse", status=429, retry_after=1, times=1)
    await board.host(tell, model_at("writer", url=engine.url, backoff=0.01))
    begun = asyncio.get_running_loop().time()
    check_clean(await board.run(tell, text="hi"), resets=0)
    assert asyncio.get_running_loop().time() - begun >= 1.0


async def test_stalled(board: Board, engine: Emulated) -> None:
    """An engine that says nothing more is given up; the request at it is closed."""
    engine.fault(kind="stall", after=4)
    served = model_at("writer", url=engine.url, backoff=0.05, stalled_after=2.0)
    await board.host(tell, served)
    check_clean(await board.run(tell, text="hi"), resets=1)
    await until(lambda: engine.running == 0)


async def test_killed(board: Board) -> None:
    """The process is killed in the middle of an answer, and another one comes up at its port."""
    first = await started(0, speed=0.5)
    await asyncio.to_thread(first.fault, kind="stall", after=6)  # else it might be done before it is killed
    await board.host(tell, model_at("writer", url=first.url, backoff=0.05, backoff_max=0.5, retries=1000))
    run = await board.submit(tell, text="hi")
    await until(lambda: "5" in text_of(heard))
    first.process.send_signal(signal.SIGKILL)
    await first.process.wait()
    second = await started(first.port, speed=0.5)
    try:
        assert (await board.done(run, 60)).status == "completed"
    finally:
        second.process.kill()
        await second.process.wait()
    check_clean(text_of(heard), resets=1)


async def test_moved_to_another_engine(board: Board, engine: Emulated) -> None:
    """Its host dies: another one, with an engine of its own, says it from the beginning, once."""
    engine.fault(kind="stall", after=6)
    await board.host(tell)
    first = await board.host(model_at("writer", url=engine.url))
    run = await board.submit(tell, text="hi")
    await until(lambda: "5" in text_of(heard))
    async with emulated() as other:
        await board.host(model_at("writer", url=other.url))
        await board.kill(first)
        assert (await board.done(run)).status == "completed"
    check_clean(text_of(heard), resets=1)


async def test_a_late_client(board: Board, engine: Emulated) -> None:
    """What was said so far, once; then what a second attempt says, from its beginning."""
    engine.fault(kind="stall", after=8)
    await board.host(tell, model_at("writer", url=engine.url, backoff=0.05, stalled_after=4.0))
    run = await board.submit(tell, text="hi")
    await until(lambda: "7" in text_of(heard))
    client = await board.client()
    late = [piece async for piece in client.tokens(run)]
    assert late[0].text.startswith("emulated 1 2")
    assert text_of(late) == counted(20)
    assert [piece.reset for piece in late].count(True) == 1


async def test_a_cancelled_run_leaves_the_engine(board: Board) -> None:
    """Within half a second its generation ends, and its room is free."""
    async with emulated(answer_tokens=2000, step_ms=5.0) as engine:
        await board.host(tell, model_at("writer", url=engine.url))
        client = await board.client()
        took: list[float] = []
        while not took or min(took) > 0.5:  # unless the machine stood still meanwhile
            assert len(took) < 5, took
            heard.clear()
            generated = engine.app.engine.batcher.counts.generated
            run = await client.submit("tell", {"text": "hi"})
            await until(lambda: len(text_of(heard)) > 10)
            assert engine.running == 1
            begun = time.monotonic()
            await client.cancel(run)
            await until(lambda: engine.running == 0)
            took.append(time.monotonic() - begun)
            assert engine.app.engine.batcher.blocks.usage == 0.0
            assert engine.app.engine.batcher.counts.generated - generated < 2000


# -- what it is called -----------------------------------------------------------------------------


async def fails(engine: Emulated, request: ChatRequest = HI, **options: Any) -> CallFailed:
    """The error that a chat ends with."""
    asking = OpenAIEngine("writer", engine.url, **options)
    await asking.open()
    try:
        with pytest.raises(CallFailed) as raised:
            await asking.chat(request, lambda _: None)
    finally:
        await asking.close()
    return raised.value


@pytest.mark.parametrize(
    "text",
    [
        '{"id": "emul',
        "[]",
        "7",
        '"what"',
        "null",
        '{"choices": 7}',
        '{"choices": [7]}',
        '{"choices": [{"delta": 7}]}',
        '{"choices": [{"delta": {"content": 7}}]}',
        '{"choices": [{"delta": {"content": {"a": 1}}}]}',
        '{"choices": [{"delta": {"tool_calls": 7}}]}',
        '{"choices": [{"delta": {"tool_calls": [{"index": "x", "function": {"arguments": 7}}]}}]}',
        '{"choices": [], "usage": {"prompt_tokens": "many"}}',
        '{"choices": [], "usage": 7}',
        '{"choices": [{"delta": {}, "finish_reason": 7}]}',
        "\x00\x01",
    ],
)
async def test_rubbish(engine: Emulated, text: str) -> None:
    """Whatever it is: the answer is unusable, which a retry may help."""
    engine.fault(kind="rubbish", text=text)
    error = await fails(engine)
    assert isinstance(error, AnswerUnusable), repr(error)
    assert error.retryable


async def test_stalled_before_the_first_word(engine: Emulated) -> None:
    """An engine may queue for long; it is down after the longer time only."""
    engine.fault(kind="stall", after=0)
    error = await fails(engine, silent_after=0.3, stalled_after=0.01)
    assert isinstance(error, EngineDown)
    assert "0.3 s" in error.message


async def test_slow_is_not_stalled() -> None:
    """Each word begins the time anew."""
    async with emulated(answer_tokens=8, step_ms=300.0) as slow:
        asking = OpenAIEngine("writer", slow.url, stalled_after=2.0)
        assert (await asking.chat(HI, lambda _: None)).text == counted(8)


@pytest.mark.parametrize(
    ("request_", "asked"),
    [
        (ChatRequest(messages=[Message("user", "word " * 5000)]), 5003),
        (ChatRequest(messages=[Message("user", "hi")], sampling=Sampling(max_tokens=5000)), 5000),
    ],
)
async def test_too_long(engine: Emulated, request_: ChatRequest, asked: int) -> None:
    """The error names the limit, and what was asked for."""
    error = await fails(engine, request_)
    assert isinstance(error, ContextOverflow)
    assert (error.fields["limit"], error.retryable) == (4096, False)
    assert error.fields["asked"] == pytest.approx(asked, abs=5)
    assert "4,096" in error.message


async def test_rate_limited(engine: Emulated) -> None:
    """With the seconds that the engine wants."""
    engine.fault(kind="refuse", status=429, retry_after=7)
    error = await fails(engine)
    assert isinstance(error, RateLimited)
    assert error.fields["retry_after"] == 7.0


# -- an emulator of its own ------------------------------------------------------------------------


class Started:
    """An emulator in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url
        self.port = int(url.split(":")[2].split("/", maxsplit=1)[0])

    def fault(self, **fault: Any) -> None:
        """What the next request runs into, see :class:`callboard.actors.emulator.faults.Fault`."""
        where = self.url.removesuffix("/v1") + "/emulator/faults"
        asked = urllib.request.Request(where, json.dumps(fault).encode())  # noqa: S310 - a loopback address
        urllib.request.urlopen(asked, timeout=SOON).close()  # noqa: S310 - as above


async def started(port: int, speed: float) -> Started:
    """Start one whose answers have 20 tokens, and at a speed of 0.5 take half a second."""
    options = [
        "--port",
        str(port),
        "--profile",
        "a100-llama-3.1-8b",
        "--speed",
        str(speed),
        "--answer-tokens",
        "20",
    ]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "callboard", "emulate-engine", *options, "--json"],
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    told = json.loads(await process.stdout.readline())
    return Started(process, told["url"])
