"""``callboard.model("name")``: a model as workflows and agents call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, overload

import msgspec

from callboard.actors.declared import Stub
from callboard.actors.future import Future, as_future
from callboard.actors.models.described import described
from callboard.actors.models.schemas import json_schema
from callboard.actors.models.served import method_of_model
from callboard.actors.models.stream import AnswerStream
from callboard.actors.models.types import ChatResult, Completion, Embeddings, Message, Sampling
from callboard.infra.subjects import token

T = TypeVar("T")
Messages = str | Sequence[Message | Mapping[str, Any]]
"""A conversation; a text is the user's only message."""


def model(name: str) -> Model:
    """A model that some host serves: calling its methods makes calls, and gives futures.

    Args:
        name: of the actor, as in ``callboard host --model NAME``.

    Raises:
        NameInvalid: it cannot be an actor's name.
    """
    return Model(token("the name of model", name))


class Model:
    """The stub of a model; made by :func:`model`.

    ``tools`` are in the OpenAI shape, or declared tools and methods of agents, which are described by their
    annotations.
    ``schema`` is a msgspec struct, a dataclass or another type (then ``parsed`` of the result is of that
    type), or a JSON schema. ``repairs`` is how often an answer that does not fit is asked for again, with
    what is wrong with it. ``sampling`` beyond ``max_tokens`` and ``temperature``: see :class:`Sampling`.

    The futures raise: ContextOverflow, RateLimited and EngineDown (both after retries), EngineRefused,
    AnswerUnusable, OutputInvalid.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @overload
    def chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[Any] = ...,
        tool_choice: str | dict[str, Any] | None = ...,
        schema: type[T],
        repairs: int = ...,
        max_tokens: int | None = ...,
        temperature: float | None = ...,
        sampling: Sampling | None = ...,
    ) -> Future[ChatResult[T]]: ...
    @overload
    def chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[Any] = ...,
        tool_choice: str | dict[str, Any] | None = ...,
        schema: Mapping[str, Any] | None = ...,
        repairs: int = ...,
        max_tokens: int | None = ...,
        temperature: float | None = ...,
        sampling: Sampling | None = ...,
    ) -> Future[ChatResult[Any]]: ...
    def chat(
        self,
        messages: Messages,
        *,
        tools: Sequence[Any] = (),
        tool_choice: str | dict[str, Any] | None = None,
        schema: Any = None,
        repairs: int = 2,
        max_tokens: int | None = None,
        temperature: float | None = None,
        sampling: Sampling | None = None,
    ) -> Future[ChatResult[Any]]:
        """Go on with a conversation; returns at once.

        Args:
            max_tokens: of the answer at most. The others: see the class.
        """
        kind, held_to = json_schema(schema)
        given: dict[str, Any] = {
            "tools": [described(one) for one in tools],
            "tool_choice": tool_choice,
            "schema": held_to,
            "repairs": repairs,
            "sampling": _sampling(sampling, max_tokens, temperature),
        }
        method = method_of_model(self.name, "chat", ChatResult[kind])  # type: ignore[valid-type]
        return Stub[..., ChatResult[Any]](method)(_conversation(messages), **given)

    @overload
    def stream(
        self, messages: Messages, *, schema: type[T], **options: Any
    ) -> AnswerStream[ChatResult[T]]: ...
    @overload
    def stream(self, messages: Messages, **options: Any) -> AnswerStream[ChatResult[Any]]: ...
    def stream(self, messages: Messages, **options: Any) -> AnswerStream[ChatResult[Any]]:
        """The same as :meth:`chat`, heard while it is said: ``async for piece in model.stream(...)``."""
        return AnswerStream(_future(self.chat(messages, **options)))

    def complete(
        self,
        prompt: str,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        sampling: Sampling | None = None,
    ) -> Future[Completion]:
        """Continue a prompt; returns at once."""
        given = _sampling(sampling, max_tokens, temperature)
        stub = Stub[..., Completion](method_of_model(self.name, "complete", Completion))
        return stub(prompt, sampling=given)

    def stream_completion(self, prompt: str, **options: Any) -> AnswerStream[Completion]:
        """The same as :meth:`complete`, heard while it is said."""
        return AnswerStream(_future(self.complete(prompt, **options)))

    def embed(self, texts: Sequence[str]) -> Future[Embeddings]:
        """Vectors of texts; returns at once."""
        stub = Stub[..., Embeddings](method_of_model(self.name, "embed", Embeddings))
        return stub(texts)

    def __repr__(self) -> str:
        return f"<model {self.name}>"


def _future(value: Any) -> Future[Any]:
    found = as_future(value)
    assert found is not None, "a call gives a future"
    return found


def _conversation(messages: Any) -> Any:
    if isinstance(messages, str):
        return [Message("user", messages)]
    return messages if as_future(messages) is not None else list(messages)


def _sampling(given: Sampling | None, max_tokens: int | None, temperature: float | None) -> Sampling:
    named = {"max_tokens": max_tokens, "temperature": temperature}
    told = {name: value for name, value in named.items() if value is not None}
    return msgspec.structs.replace(given or Sampling(), **told)
