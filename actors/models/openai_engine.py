"""An engine behind a URL that speaks the OpenAI API: vLLM, SGLang, llama.cpp, or a hosted one."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from callboard.actors.models.engine import Say
from callboard.actors.models.engine_errors import Faults, unusable
from callboard.actors.models.load import EngineLoad, read_load
from callboard.actors.models.types import (
    ChatRequest,
    ChatResult,
    Completion,
    CompletionRequest,
    Embeddings,
    FunctionCall,
    Message,
    Sampling,
    ToolCall,
    Usage,
)
from callboard.infra.errors import EngineDown, EngineRefused, SettingsInvalid

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_CONNECT: Final = 5.0
_SILENCE: Final = 600.0
"""Seconds without a byte after which an engine counts as down; it may queue a request for long."""
_LOOK: Final = 2.0
"""Seconds that it gets to tell its metrics."""


class OpenAIEngine:
    """Asks a server by the ``openai`` client, always streaming: so a cancelled request ends at the engine.

    Args:
        name: for error texts.
        url: up to and with ``/v1``.
        api_key_env: environment variable that holds the key.
        engine_model: the server's name of the model; by default the only one that it lists, or ``name``.
        priorities: it takes the field ``priority`` of vLLM.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        api_key_env: str | None = None,
        engine_model: str | None = None,
        priorities: bool = False,
    ) -> None:
        self.name = name
        self.url = url
        self._api_key_env = api_key_env
        self._model = engine_model
        self._priorities = priorities
        self._client: AsyncOpenAI | None = None

    async def open(self) -> None:
        """Make the client.

        Raises:
            SettingsInvalid: the package ``openai`` is not installed, or the key is not set.
        """
        if self._client is None:
            self._client = await asyncio.to_thread(self._make)

    async def close(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _make(self) -> AsyncOpenAI:
        try:
            import openai
        except ImportError as error:
            raise SettingsInvalid(
                f"model {self.name} needs the package openai: pip install 'callboard[models]'"
            ) from error
        timeout = openai.Timeout(_SILENCE, connect=_CONNECT)
        # A key that nobody named is not sent anywhere, and retries are the calls' own.
        return openai.AsyncOpenAI(base_url=self.url, api_key=self._key(), timeout=timeout, max_retries=0)

    def _key(self) -> str:
        if self._api_key_env is None:
            return "none"
        key = os.environ.get(self._api_key_env)
        if not key:
            raise SettingsInvalid(
                f"model {self.name} takes its key from {self._api_key_env}, which is not set"
            )
        return key

    @contextlib.asynccontextmanager
    async def _speaking(self) -> AsyncIterator[AsyncOpenAI]:
        """The client, or where no host has opened it one for this request; its errors as Callboard's."""
        client = self._client
        own = None if client is not None else await asyncio.to_thread(self._make)
        asked = client or own
        assert asked is not None
        try:
            with Faults(self.name, self.url, asked.api_key):
                yield asked
        finally:
            if own is not None:
                await own.close()

    @contextlib.asynccontextmanager
    async def _asking(self) -> AsyncIterator[AsyncOpenAI]:
        """The same, once the server's name of the model is known."""
        async with self._speaking() as client:
            await self._know_model(client)
            yield client

    async def _know_model(self, client: AsyncOpenAI) -> None:
        if self._model is None:
            listed = [one.id for one in (await client.models.list()).data]
            self._model = listed[0] if len(listed) == 1 else self.name

    async def chat(self, request: ChatRequest, say: Say) -> ChatResult[Any]:
        """See :class:`callboard.actors.models.engine.Engine`."""
        options = self._options(request)
        if request.tools:
            options["tools"] = request.tools
        if request.tool_choice is not None:
            options["tool_choice"] = request.tool_choice
        if request.schema is not None:
            form = {"name": str(request.schema.get("title", "answer")), "schema": request.schema}
            options["response_format"] = {"type": "json_schema", "json_schema": form}
        heard = _Heard(say)
        async with self._asking() as client:
            stream = await client.chat.completions.create(
                model=self._model or self.name,
                messages=msgspec.to_builtins(request.messages),
                stream=True,
                stream_options={"include_usage": True},
                **options,
            )
            async with stream:
                async for chunk in stream:
                    heard.chunk(chunk)
            self._whole(heard.chunks, heard.finish_reason)
        return heard.result()

    async def complete(self, request: CompletionRequest, say: Say) -> Completion:
        """See :class:`callboard.actors.models.engine.Engine`."""
        done = Completion("", finish_reason="")
        pieces: list[str] = []
        chunks = 0
        async with self._asking() as client:
            stream = await client.completions.create(
                model=self._model or self.name,
                prompt=request.prompt,
                stream=True,
                stream_options={"include_usage": True},
                **self._options(request),
            )
            async with stream:
                async for chunk in stream:
                    chunks += 1
                    done.model, done.id = chunk.model or "", chunk.id or ""
                    done.usage = _usage(chunk.usage) or done.usage
                    for choice in chunk.choices or ():
                        pieces.append(choice.text or "")
                        say(choice.text or "")
                        done.finish_reason = choice.finish_reason or done.finish_reason
            self._whole(chunks, done.finish_reason)
        done.text = "".join(pieces)
        return done

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """See :class:`callboard.actors.models.engine.Engine`."""
        async with self._asking() as client:
            answered = await client.embeddings.create(
                model=self._model or self.name, input=list(texts), encoding_format="float"
            )
            data = sorted(answered.data, key=lambda one: one.index)
            if len(data) != len(texts):
                raise unusable(self.name, f"{len(data)} vectors for {len(texts)} texts")
            usage = Usage(answered.usage.prompt_tokens, 0, answered.usage.total_tokens)
            return Embeddings([list(one.embedding) for one in data], usage, answered.model)

    async def load(self) -> EngineLoad | None:
        """How busy it is, by its ``/metrics``; None: it has none that say so.

        Raises:
            CallboardError: it does not answer now.
        """
        address = f"{self.url.rstrip('/').removesuffix('/v1')}/metrics"
        try:
            async with self._speaking() as client:
                return read_load(await client.get(address, cast_to=str, options={"timeout": _LOOK}))
        except EngineRefused:
            return None

    def _options(self, request: ChatRequest | CompletionRequest) -> dict[str, Any]:
        options = _options(request.sampling)
        if self._priorities and request.priority is not None:
            options["extra_body"] = {"priority": request.priority, **request.sampling.extra}
        return options

    def _whole(self, chunks: int, finish_reason: str) -> None:
        if not chunks:
            raise unusable(self.name, "it has streamed nothing")
        if not finish_reason:
            text = f"the engine of model {self.name} broke off in the middle of its answer"
            raise EngineDown(text, engine=self.url, status=0)


def _options(sampling: Sampling) -> dict[str, Any]:
    given = {name: getattr(sampling, name) for name in ("max_tokens", "temperature", "top_p", "stop", "seed")}
    options = {name: value for name, value in given.items() if value is not None}
    if sampling.extra:
        options["extra_body"] = sampling.extra
    return options


def _usage(told: Any) -> Usage | None:
    if told is None:
        return None
    return Usage(told.prompt_tokens or 0, told.completion_tokens or 0, told.total_tokens or 0)


class _Heard:
    """An answer, put together from what was streamed."""

    def __init__(self, say: Say) -> None:
        self.chunks = 0
        self.finish_reason = ""
        self._say = say
        self._pieces: list[str] = []
        self._calls: dict[int, ToolCall] = {}
        self._usage = Usage()
        self._model = self._id = ""

    def chunk(self, chunk: Any) -> None:
        """Take up what one chunk says."""
        self.chunks += 1
        self._model, self._id = chunk.model or self._model, chunk.id or self._id
        self._usage = _usage(chunk.usage) or self._usage
        for choice in chunk.choices or ():
            self.finish_reason = choice.finish_reason or self.finish_reason
            if choice.delta.content:
                self._pieces.append(choice.delta.content)
                self._say(choice.delta.content)
            for part in choice.delta.tool_calls or ():
                self._call(part)

    def _call(self, part: Any) -> None:
        call = self._calls.setdefault(part.index, ToolCall("", FunctionCall("")))
        call.id = part.id or call.id
        if part.function is not None:
            call.function.name += part.function.name or ""
            call.function.arguments += part.function.arguments or ""

    def result(self) -> ChatResult[Any]:
        """The whole of it."""
        calls = [call for _, call in sorted(self._calls.items())]
        text = "".join(self._pieces)
        message = Message("assistant", text if text or not calls else None, tool_calls=calls)
        return ChatResult(message, self.finish_reason, self._usage, self._model, self._id)
