"""An engine that is a function of this process: for tests, and for models that are code."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec

from callboard.actors.models.engine import Say
from callboard.actors.models.types import (
    ChatRequest,
    ChatResult,
    Completion,
    CompletionRequest,
    Embeddings,
    Message,
)
from callboard.infra.errors import EngineRefused

Answer = str | Message | ChatResult[Any]
ChatFunction = Callable[[ChatRequest], AsyncIterator[str] | Awaitable[Answer] | Answer]
EmbedFunction = Callable[[Sequence[str]], list[list[float]]]


class FunctionEngine:
    """Asks a function.

    Args:
        name: of the model.
        function: takes the request; gives the answer, or a coroutine of it, or yields it piece by piece.
        embed: gives a vector for each text; None: it has none.
        continues: the function gives only what follows ``said`` of the request.
    """

    def __init__(
        self,
        name: str,
        function: ChatFunction,
        embed: EmbedFunction | None = None,
        *,
        continues: bool = False,
    ) -> None:
        self.continues = continues
        self._name = name
        self.function = function
        self._embed = embed

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def chat(self, request: ChatRequest, say: Say) -> ChatResult[Any]:
        """See :class:`callboard.actors.models.engine.Engine`; what the function raises is raised."""
        given = self.function(request)
        if isinstance(given, AsyncIterator):
            pieces: list[str] = []
            async for piece in given:
                pieces.append(piece)
                say(piece)
            return self._result(request.said + "".join(pieces))
        answer = await given if inspect.isawaitable(given) else given
        result = self._result(answer)
        say(result.text)
        if request.said:
            whole = msgspec.structs.replace(result.message, content=request.said + result.text)
            result = msgspec.structs.replace(result, message=whole)
        return result

    async def tokens(self, text: str) -> int:
        """See :class:`callboard.actors.models.continuing.Continues`: a function has none that are counted."""
        return 0

    def _result(self, answer: Answer) -> ChatResult[Any]:
        if isinstance(answer, ChatResult):
            return answer
        message = answer if isinstance(answer, Message) else Message("assistant", answer)
        reason = "tool_calls" if message.tool_calls else "stop"
        return ChatResult(message, reason, model=self._name)

    async def complete(self, request: CompletionRequest, say: Say) -> Completion:
        """The prompt as the only message of a chat."""
        asked = ChatRequest(
            messages=[Message("user", request.prompt)], sampling=request.sampling, said=request.said
        )
        result = await self.chat(asked, say)
        return Completion(result.text, result.finish_reason, result.usage, result.model)

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """The vectors that the function for them gives."""
        if self._embed is None:
            raise EngineRefused(
                f"model {self._name} has no embeddings: give its @model_function an embed= function",
                engine=self._name,
                status=0,
            )
        return Embeddings(self._embed(texts), model=self._name)
