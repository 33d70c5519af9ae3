"""The port to an engine: whatever answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from callboard.actors.models.types import (
    ChatRequest,
    ChatResult,
    Completion,
    CompletionRequest,
    Embeddings,
)

Say = Callable[[str], None]
"""Takes each piece of an answer as soon as it is there."""


class Engine(Protocol):
    """Answers requests, many at once. Cancelling a request has to reach whatever generates.

    All requests raise: ContextOverflow, RateLimited, EngineDown, EngineRefused, AnswerUnusable.
    """

    async def open(self) -> None:
        """Make ready on the event loop of a host; returns when it can answer. Idempotent."""
        ...

    async def close(self) -> None:
        """Give everything back. Idempotent."""
        ...

    async def chat(self, request: ChatRequest, say: Say) -> ChatResult[Any]:
        """Go on with a conversation; ``parsed`` is left empty."""
        ...

    async def complete(self, request: CompletionRequest, say: Say) -> Completion:
        """Continue a prompt."""
        ...

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """Vectors of texts."""
        ...
