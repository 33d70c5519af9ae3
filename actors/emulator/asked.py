"""What is asked of an emulated engine, in the shapes of the OpenAI API, and what it is going to answer."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from callboard.actors.emulator import words

ANSWER_TOKENS: Final = 128


class Ask(msgspec.Struct, kw_only=True):
    """The body of a request for a chat or a completion; what is not here is accepted and changes nothing."""

    messages: list[dict[str, Any]] | None = None
    prompt: str | list[int | str] | None = None
    model: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    priority: int = 0
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class AskTokens(msgspec.Struct):
    """The body of a request to ``/tokenize``."""

    prompt: str


class AskVectors(msgspec.Struct):
    """The body of a request for embeddings: a text, or several; each may be token ids."""

    input: str | list[str | int | list[int]]

    def texts(self) -> list[str]:
        """The texts."""
        if isinstance(self.input, str):
            return [self.input]
        if all(isinstance(one, int) for one in self.input):
            return [_spelt(self.input)]
        return [one if isinstance(one, str) else _spelt(one) for one in self.input]


def _spelt(ids: Any) -> str:
    return " ".join(map(str, ids)) if isinstance(ids, list) else str(ids)


class Refused(Exception):
    """A request that cannot be answered; its text says why."""


class Plan(msgspec.Struct):
    """An answer that will be given.

    Attributes:
        prompt, answer: their tokens.
        finish: the reason that is told at the end.
        call: name of the function that the answer calls; its text is the arguments then.
    """

    prompt: list[Any]
    answer: list[str]
    finish: str
    call: str = ""


def plan(ask: Ask, limit: int, usual: int) -> Plan:
    """What to answer.

    Args:
        limit: tokens of prompt and answer at most; usual: tokens of an answer that nobody limits.

    Raises:
        Refused: it is too long, or nothing is asked, or of two kinds at once.
    """
    prompt = _prompt(ask)
    before = words.counted(prompt) if ask.continue_final_message or ask.messages is None else 0
    most = ask.max_completion_tokens if ask.max_completion_tokens is not None else ask.max_tokens
    _check(len(prompt), most, limit)
    room = min(limit - len(prompt), most or limit)
    function = _called(ask)
    made = _made(ask, function)
    if made is not None:
        whole, reason = words.tokens(made), "tool_calls" if function else "stop"
    else:
        exact = most is not None and (ask.ignore_eos or ask.min_tokens >= most)
        whole, reason = words.counting(before + room if exact else max(usual, ask.min_tokens)), "stop"
        whole = whole[before:] or [""]  # of an answer that was said to its end only the end is left
        if exact:
            reason = "length"
    if len(whole) > room:
        whole, reason = whole[:room], "length"
    return Plan(prompt, whole, reason, function)


def embedded(text: str, limit: int) -> list[str]:
    """The tokens of a text of which a vector is wanted.

    Raises:
        Refused: it is too long.
    """
    found = words.tokens(text) or [""]
    _check(len(found), None, limit)
    return found


def _prompt(ask: Ask) -> list[Any]:
    if ask.continue_final_message and ask.add_generation_prompt:
        raise Refused("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
    if ask.messages is not None:
        found: list[Any] = words.conversation(ask.messages, goes_on=ask.continue_final_message)
    elif isinstance(ask.prompt, str):
        found = list(words.tokens(ask.prompt))
    else:
        found = list(ask.prompt or ())
    if not found:
        raise Refused("messages or prompt: there is nothing to answer")
    return found


def _check(prompt: int, most: int | None, limit: int) -> None:
    """In vLLM's words; an answer that has less room than it may take is cut off there, as by vLLM.

    Raises:
        Refused: the prompt is too long, or the answer may never be that long.
    """
    if most is not None and most < 1:
        raise Refused(f"max_tokens must be at least 1, got {most}.")
    if most is not None and most > limit:
        raise Refused(
            f"max_tokens={most} cannot be greater than max_model_len={limit}. Please request fewer output "
            "tokens."
        )
    if prompt >= limit:
        raise Refused(
            f"This model's maximum context length is {limit} tokens. However, your prompt contains {prompt} "
            "input tokens, which exceeds this limit even without any output tokens. Please reduce the length "
            "of the input prompt."
        )


def _called(ask: Ask) -> str:
    """The function that the answer has to call; empty: none has to be."""
    choice = ask.tool_choice
    if isinstance(choice, dict):
        return str((choice.get("function") or {}).get("name", ""))
    if choice != "required" or not ask.tools:
        return ""
    return str((ask.tools[0].get("function") or {}).get("name", ""))


def _made(ask: Ask, function: str) -> str | None:
    """The JSON of an answer that has a schema, or of the arguments of a function."""
    if function:
        for tool in ask.tools or ():
            about = tool.get("function") or {}
            if about.get("name") == function:
                return json.dumps(words.fitting(about.get("parameters") or {"type": "object"}))
        raise Refused(f"tool_choice: there is no tool {function!r}")
    form = ask.response_format or {}
    if form.get("type") == "json_schema":
        return json.dumps(words.fitting((form.get("json_schema") or {}).get("schema") or {}))
    return "{}" if form.get("type") == "json_object" else None
