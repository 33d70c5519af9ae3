"""The tools of an LlmAgent: described to its model, called as it asks, their results told to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from callboard.actors.declared import Method
from callboard.actors.failures import text_of
from callboard.actors.future import Future
from callboard.actors.llm.passing import PASSED_ON
from callboard.actors.models.described import described, method_of, name_of
from callboard.actors.models.types import Message, ToolCall
from callboard.actors.scope import current
from callboard.infra.errors import DeclarationInvalid, InvalidArguments


class Toolbox:
    """What the model of one agent may call.

    Args:
        agent: its name; tools: as given to :class:`LlmAgent`.

    Raises:
        DeclarationInvalid: one cannot be called, or two have the same name.
    """

    def __init__(self, agent: str, tools: Sequence[Any]) -> None:
        self._tools = tools
        self._methods: dict[str, Method] = {}
        self._described: list[dict[str, Any]] | None = None
        for tool in tools:
            method = method_of(tool)
            if method is None:
                raise DeclarationInvalid(
                    f"agent {agent}: {tool!r} is no tool: give @tool functions, methods of agents such as "
                    "Analyst.study, LlmAgents, or generated stubs"
                )
            if self._methods.setdefault(name_of(tool, method), method) is not method:
                raise DeclarationInvalid(f"agent {agent}: two tools are named {name_of(tool, method)!r}")

    @property
    def names(self) -> list[str]:
        """As the model knows them."""
        return list(self._methods)

    def described(self) -> list[dict[str, Any]]:
        """In the OpenAI shape; made when first asked for, since annotations may name what comes later."""
        if self._described is None:
            self._described = [described(tool) for tool in self._tools]
        return self._described

    async def answer(self, calls: Sequence[ToolCall]) -> list[Message]:
        """Make all of these calls at once, and wait for all of their results.

        Raises:
            OutcomeUnknown, DeadlineExceeded, Diverged: a call of them has ended so; no model can mend that.
        """
        begun = [self._begin(call) for call in calls]
        return [
            Message("tool", await _told(one), tool_call_id=call.id)
            for call, one in zip(calls, begun, strict=True)
        ]

    def _begin(self, call: ToolCall) -> Future[Any] | str:
        """Make the call; or what is wrong with it."""
        method = self._methods.get(call.function.name)
        if method is None:
            return f"There is no tool {call.function.name!r}. There are: {', '.join(self._methods)}."
        try:
            scope = current.get()
            assert scope is not None, "an agent's loop runs in a handler"
            return scope.maker.call(scope.next_id(), method, (), _arguments(method, call.function.arguments))
        except InvalidArguments as error:
            return f"The arguments do not fit: {error.message}"


def _arguments(method: Method, text: str) -> dict[str, Any]:
    """What a model has written, as the method's own types.

    Raises:
        InvalidArguments: it is no JSON object, or does not fit.
    """
    return method.signature.decode_arguments(method.signature.from_json((text.strip() or "{}").encode()))


async def _told(call: Future[Any] | str) -> str:
    if isinstance(call, str):
        return call
    try:
        value = await call
    except PASSED_ON:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a tool raises the model is told
        return f"The tool failed: {text_of(error)}"
    if isinstance(value, str):
        return value
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return f"The tool has run; its result has no form in JSON: {error}"
