"""An answer of real vLLM that breaks off: the rest is what it would have been."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from tests.support.board import Board
from tests.vllm.conftest import PATIENCE, STARTS_WITHIN, Serving

from callboard import ChatRequest, Message, Piece, Sampling, model, workflow
from callboard.actors.models.openai_engine import OpenAIEngine
from callboard.actors.models.types import CompletionRequest

pytestmark = pytest.mark.timeout(2 * STARTS_WITHIN)
TOKENS = 200
LONG = 1500


def greedy(tokens: int) -> Sampling:
    """It always says the same, and so many tokens."""
    return Sampling(max_tokens=tokens, temperature=0.0, extra={"ignore_eos": True})


@workflow
async def tell(tokens: int) -> dict[str, object]:
    """One chat."""
    said = await model("tiny").chat("a story", sampling=greedy(tokens))
    return {"text": said.text, "why": said.finish_reason, "tokens": said.usage.completion_tokens}


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "completion"])
async def test_the_rest_is_the_same(serving: Serving, *, chat: bool) -> None:
    """Cut anywhere and asked for the rest, it gives the text of an undisturbed answer."""
    engine = OpenAIEngine("tiny", f"http://127.0.0.1:{serving.port}/v1", continues=True)
    await engine.open()
    heard: list[str] = []

    async def ask(said: str, tokens: int) -> tuple[str, str, int]:
        heard.clear()
        if chat:
            request = ChatRequest(messages=[Message("user", "hi")], said=said, sampling=greedy(tokens))
            one = await engine.chat(request, heard.append)
            return one.text, one.finish_reason, one.usage.completion_tokens
        prompt = CompletionRequest(prompt="once upon", said=said, sampling=greedy(tokens))
        other = await engine.complete(prompt, heard.append)
        return other.text, other.finish_reason, other.usage.completion_tokens

    whole, why, used = await ask("", TOKENS)
    assert (why, used, len(whole)) == ("length", TOKENS, TOKENS)
    for place in (1, 2, 17, 100, TOKENS - 1):
        assert await engine.tokens(whole[:place]) == place
        rest = await ask(whole[:place], TOKENS - place)
        assert rest == (whole, "length", TOKENS - place)
        assert whole[:place] + "".join(heard) == whole
    await engine.close()


async def test_killed_in_the_middle(board: Board, serving: Serving) -> None:
    """The server is; when it is back, who listens hears the rest, and the result is as of an undisturbed call."""
    await board.host(tell)
    client = await board.client()
    while True:
        run = await client.submit("tell", {"tokens": LONG})
        pieces: list[Piece] = []
        async for piece in client.tokens(run):
            pieces.append(piece)
            if len(pieces) == 1:
                os.kill(serving.pid, signal.SIGKILL)
                await asyncio.to_thread(serving.until_ready)
        result = await client.result(run, PATIENCE)
        assert not any(piece.reset or piece.lost for piece in pieces)
        assert "".join(piece.text for piece in pieces) == result["text"]
        assert (result["why"], result["tokens"]) == ("length", LONG)
        if pieces[-1].attempt > 1:  # else the machine stood still, and it was killed after the last piece
            break
    assert result == await board.run(tell, tokens=LONG, timeout=PATIENCE)
