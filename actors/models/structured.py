"""Answers that have to fit a schema: held against it, and asked for again with what is wrong."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from callboard.actors.fits import misfit
from callboard.actors.models.engine import Engine
from callboard.actors.models.types import ChatRequest, ChatResult, Message, Usage
from callboard.actors.speech import Speaker
from callboard.infra.errors import OutputInvalid

_FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?```\s*", re.DOTALL)
_TOLD = 2_000


async def answer(engine: Engine, request: ChatRequest, repairs: int, speaker: Speaker) -> ChatResult[Any]:
    """The engine's answer; where a schema is asked for, one that fits, or a call of tools.

    Args:
        repairs: how often an answer that does not fit is asked for again, with the problem.
        speaker: tells it; an answer asked for again begins anew.

    Raises:
        OutputInvalid: the last one does not fit either, or was cut off.
    """
    usage = Usage()
    tries = 0
    while True:
        tries += 1
        result = await engine.chat(request, speaker.say)
        usage = usage.plus(result.usage)
        speaker.tokens += result.usage.completion_tokens
        result.usage = usage
        if request.schema is None or result.tool_calls:
            return result
        problem = _parse(result, request.schema)
        if not problem:
            return result
        if result.finish_reason == "length":
            raise _invalid("it was cut off at max_tokens: allow more", result, tries)
        if tries > repairs:
            raise _invalid(problem, result, tries)
        request = msgspec.structs.replace(
            request, messages=[*request.messages, result.message, _told(problem)]
        )
        speaker.begin()


def _invalid(problem: str, result: ChatResult[Any], tries: int) -> OutputInvalid:
    return OutputInvalid(
        f"the model's answer does not fit the schema (try {tries}): {problem}",
        problem=problem,
        text=result.text[:_TOLD],
        tries=tries,
    )


def _parse(result: ChatResult[Any], schema: dict[str, Any]) -> str:
    """Read the answer into ``parsed``; why it does not fit, or nothing."""
    try:
        value = msgspec.json.decode(unfenced(result.text))
    except (msgspec.DecodeError, RecursionError) as error:
        return f"it is no JSON: {error}"
    problem = misfit(value, schema)
    if not problem:
        try:
            msgspec.msgpack.encode(value)
        except OverflowError:
            return "it has a number that is too large"
        result.parsed = value
    return problem


def unfenced(text: str) -> str:
    """An answer without the fence that models like to put around JSON."""
    fenced = _FENCED.fullmatch(text)
    return fenced[1] if fenced else text


def _told(problem: str) -> Message:
    text = f"Your answer cannot be used: {problem}. Answer again, with JSON only that fits the schema."
    return Message("user", text)
