"""Going on with an answer that another attempt has begun, where its engine can.

Without that the answer begins anew, and whoever listens is told so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

import msgspec

from callboard.actors.models.engine import Engine
from callboard.actors.models.types import ChatRequest, ChatResult, Completion, CompletionRequest, Usage
from callboard.actors.speech import Speaker
from callboard.infra import log
from callboard.infra.errors import ContextOverflow, EngineRefused

R = TypeVar("R", ChatRequest, CompletionRequest)
A = TypeVar("A", ChatResult[Any], Completion)
_HARMLESS: Final = frozenset(
    {"ignore_eos", "min_p", "priority", "repetition_penalty", "stop_token_ids", "top_k", "user"}
)
"""Fields in ``extra`` that mean the same for the rest of an answer as for the whole."""


@runtime_checkable
class Continues(Protocol):
    """An engine that may go on with ``said`` of a request; not all can, so this is no part of the port.

    It says only what follows, and gives the whole. With ``max_tokens=0`` there is nothing left to say.

    Attributes:
        continues: whether it can.
    """

    continues: bool

    async def tokens(self, text: str) -> int | None:
        """How many of the tokens that ``max_tokens`` counts a text has; None: it does not tell."""
        ...


async def ask(engine: Engine, request: R, speaker: Speaker, asked: Callable[[R], Awaitable[A]]) -> A:
    """Ask an engine for an answer, or for the rest of it.

    Args:
        engine: that is asked; speaker: tells what it says.
        asked: does so, with ``said`` in the request and less room where the answer was begun before.
    """
    heard = await speaker.heard() if _can_go_on(engine, request) else None
    if heard is None:
        return await asked(request)
    assert isinstance(engine, Continues)
    tokens = await engine.tokens(heard.text.rstrip())
    most = request.sampling.max_tokens
    if tokens is None and most is not None:
        return await asked(request)
    rest = None if most is None else max(0, most - (tokens or 0))
    sampling = msgspec.structs.replace(request.sampling, max_tokens=rest)
    speaker.go_on(heard)
    try:
        result = await asked(msgspec.structs.replace(request, said=heard.text, sampling=sampling))
    except (ContextOverflow, EngineRefused) as error:
        log.get("models").warning("answer_begins_anew", future=heard.future, why=error.message)
        speaker.begin()
        return await asked(request)
    result.usage = _of_whole(result.usage, tokens or 0)
    return result


def _can_go_on(engine: Engine, request: ChatRequest | CompletionRequest) -> bool:
    """Only free text: a grammar begins with the answer, and tool calls are no text."""
    if not isinstance(engine, Continues) or not engine.continues:
        return False
    if isinstance(request, ChatRequest) and (request.tools or request.schema is not None):
        return False
    return _HARMLESS.issuperset(request.sampling.extra)


def _of_whole(usage: Usage, before: int) -> Usage:
    """As if the answer had been given in one go: what was said before is in the prompt of the rest."""
    prompt, answer = max(0, usage.prompt_tokens - before), usage.completion_tokens + before
    return Usage(prompt, answer, prompt + answer)
