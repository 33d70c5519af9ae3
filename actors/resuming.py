"""What was heard of an answer that broke off: asked of whoever listens to it, so that it can go on there.

The listeners have exactly the text that must neither be repeated nor be missing, whichever host has died.
See ``docs/decisions/0036-answers-go-on.md``.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from callboard.infra import subjects
from callboard.infra.messages.tokens import TakeUp, Tokens

if TYPE_CHECKING:
    from callboard.infra.connection import Connection

_FIRST: Final = 3.0
"""Seconds that the first listener gets to answer; where nobody listens the server says so at once."""
_OTHERS: Final = 0.2
"""Seconds that the others get after it: nobody knows how many listen, and some have heard nothing."""
_NOBODY: Final = b"NATS/1.0 503"
"""How the headers begin of what the server answers if nobody listens."""

_decode = msgspec.msgpack.Decoder(Tokens).decode


async def heard_of(board: Connection, asked: TakeUp) -> Tokens | None:
    """What was heard of an answer, of the listener that has heard most; None if nobody tells."""
    answers: list[Tokens] = []
    news = asyncio.Event()

    def on_answer(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        if head is None or not head.startswith(_NOBODY):
            try:
                answers.append(_decode(data))
            except (msgspec.DecodeError, RecursionError):
                return  # anybody can answer
        news.set()

    inbox = board.inbox()
    sid = board.subscribe(inbox, on_answer)
    try:
        run, _, path = asked.future.partition(":")
        board.publish(subjects.tokens(run, path), msgspec.msgpack.encode(asked), reply=inbox)
        async with asyncio.timeout(_FIRST):
            await news.wait()
        if answers:
            await asyncio.sleep(_OTHERS)
    except TimeoutError:
        return None
    finally:
        board.unsubscribe(sid)
    return max(answers, key=lambda one: (one.attempt, one.begun, len(one.text)), default=None)
