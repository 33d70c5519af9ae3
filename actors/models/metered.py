"""An engine whose requests are charged to budgets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol, TypeVar

import msgspec

from callboard.actors.models.engine import Engine, Say
from callboard.actors.models.types import (
    ChatRequest,
    ChatResult,
    Completion,
    CompletionRequest,
    Embeddings,
    Price,
    Sampling,
    Usage,
)
from callboard.infra.errors import ContextOverflow
from callboard.infra.messages.budget import Amounts

T = TypeVar("T")
ANSWER: Final = 4096
"""Tokens that an answer takes at most where tokens are limited and its call does not say."""
SECONDS: Final = 10.0
"""What is reserved for a request."""
_BYTES: Final = 2
"""Bytes of a prompt that are reckoned as a token; of English four are."""
_TOKEN, _LETTERS = 16, 4
"""Letters that a piece of an answer has at most to be one token; and letters of a token where it has more."""


class Reserved(Protocol):
    """See :class:`callboard.actors.budgets.Reserved`."""

    bounded: bool
    used: Amounts


class Charging(Protocol):
    """See :class:`callboard.actors.budgets.Purse`."""

    def charged(self, model: str, estimate: Amounts) -> AbstractAsyncContextManager[Reserved]:
        """Reserve, and settle at the end."""
        ...


class Metered:
    """Asks an engine, and charges what that takes.

    Args:
        engine: that is asked; name: of the model; price: of it; purse: what is charged.
    """

    def __init__(self, engine: Engine, name: str, price: Price, purse: Charging) -> None:
        self._engine = engine
        self._name = name
        self._price = price
        self._purse = purse

    async def open(self) -> None:
        """It is open."""

    async def close(self) -> None:
        """Its host closes it."""

    async def chat(self, request: ChatRequest, say: Say) -> ChatResult[Any]:
        """See :class:`callboard.actors.models.engine.Engine`; also BudgetSpent."""
        prompt = tokens_of(request.messages, request.tools, request.schema, request.said)
        async with self._charged(prompt, request.sampling, say) as (heard, sampling, use):

            def ask(sampling: Sampling) -> Awaitable[ChatResult[Any]]:
                return self._engine.chat(msgspec.structs.replace(request, sampling=sampling), heard)

            result = await _fitting(ask, request.sampling, sampling, prompt)
            use(result.usage, tokens_of(result.message))
            return result

    async def complete(self, request: CompletionRequest, say: Say) -> Completion:
        """See :class:`callboard.actors.models.engine.Engine`; also BudgetSpent."""
        prompt = tokens_of(request.prompt, request.said)
        async with self._charged(prompt, request.sampling, say) as (heard, sampling, use):

            def ask(sampling: Sampling) -> Awaitable[Completion]:
                return self._engine.complete(msgspec.structs.replace(request, sampling=sampling), heard)

            done = await _fitting(ask, request.sampling, sampling, prompt)
            use(done.usage, tokens_of(done.text))
            return done

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """See :class:`callboard.actors.models.engine.Engine`; also BudgetSpent."""
        async with self._charged(tokens_of(texts), Sampling(max_tokens=0)) as (_, _, use):
            found = await self._engine.embed(texts)
            use(found.usage, 0)
            return found

    @asynccontextmanager
    async def _charged(
        self, prompt: int, sampling: Sampling, say: Say = lambda _: None
    ) -> AsyncIterator[tuple[Say, Sampling, Callable[[Usage, int], None]]]:
        """Reserve; what was said before a failure is charged as far as it was heard."""
        said = length_of(sampling)
        answer = ANSWER if said is None else said
        estimate = self._amounts(Usage(prompt, answer, prompt + answer))
        estimate.calls, estimate.seconds = 1, SECONDS
        async with self._purse.charged(self._name, estimate) as reserved:
            if reserved.bounded and said is None:
                sampling = msgspec.structs.replace(sampling, max_tokens=answer)
            spent = 0

            def heard(piece: str) -> None:
                nonlocal spent
                spent += 1 if len(piece) <= _TOKEN else len(piece) // _LETTERS
                reserved.used = self._amounts(Usage(prompt, spent, prompt + spent))
                say(piece)

            def use(usage: Usage, answered: int) -> None:
                if not usage.total_tokens:  # the engine does not tell
                    answered = max(answered, spent)
                    usage = Usage(prompt, answered, prompt + answered)
                reserved.used = self._amounts(usage)

            yield heard, sampling, use

    def _amounts(self, usage: Usage) -> Amounts:
        usd = (usage.prompt_tokens * self._price.input + usage.completion_tokens * self._price.output) / 1e6
        return Amounts(tokens=usage.total_tokens, usd=usd)


async def _fitting(
    ask: Callable[[Sampling], Awaitable[T]], given: Sampling, bounded: Sampling, prompt: int
) -> T:
    """Ask; if the bound that was added does not fit the context, ask for what room there is."""
    try:
        return await ask(bounded)
    except ContextOverflow as error:
        if length_of(given) is not None or bounded.max_tokens is None:
            raise
        limit, asked = error.fields["limit"], error.fields["asked"] or prompt
        room = limit - (asked if asked <= limit else asked - bounded.max_tokens)  # some count the answer, too
        if not 0 < room < bounded.max_tokens:
            raise
        return await ask(msgspec.structs.replace(bounded, max_tokens=room))


def length_of(sampling: Sampling) -> int | None:
    """Tokens that an answer takes at most, as its call says; fields in ``extra`` go before."""
    for name in ("max_completion_tokens", "max_tokens"):
        said = sampling.extra.get(name)
        if type(said) is int and said >= 0:
            return said
    return sampling.max_tokens


def tokens_of(*parts: Any) -> int:
    """About how many tokens a prompt has, rather too many."""
    return sum(len(msgspec.json.encode(part)) for part in parts if part) // _BYTES
