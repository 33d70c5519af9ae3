"""An engine behind a URL that speaks the OpenAI API: vLLM, SGLang, llama.cpp, or a hosted one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from callboard.actors.models.chunks import CallPart, Chunk, decode, decode_counted, events
from callboard.actors.models.engine import Say
from callboard.actors.models.engine_errors import GONE, EngineFailed, Faults, unusable
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
from callboard.infra.errors import AnswerUnusable, CallboardError, EngineDown, EngineRefused, SettingsInvalid
from callboard.infra.urls import shown

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_CONNECT: Final = 5.0
_NO_LIST: Final = frozenset({404, 405, 501})
"""What servers say that do not list their models."""
SILENT_AFTER: Final = 600.0
"""Seconds without a first word after which an engine counts as down; it may queue a request for long."""
STALLED_AFTER: Final = 60.0
"""Seconds without a further word after which it does."""

_REST: Final = 1.0
"""Seconds for a response to end after its last event."""
_LOOK: Final = 2.0
"""Seconds that it gets to tell its metrics."""
_RENAMED: Final = re.compile(r"max_tokens\W+is not supported.*max_completion_tokens", re.DOTALL)
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")
_NAME_LIMIT: Final = 64


class OpenAIEngine:
    """Asks a server by the ``openai`` client, always streaming: so a cancelled request ends at the engine.

    Args:
        name: for error texts.
        url: up to and with ``/v1``.
        api_key_env: environment variable that holds the key.
        engine_model: the server's name of the model; by default the only one that it lists, or ``name``.
        silent_after: seconds without a first word after which it counts as down.
        stalled_after: seconds without a further word after which it does.
        priorities: it takes the field ``priority`` of vLLM.
        continues: it takes vLLM's ``continue_final_message``.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        api_key_env: str | None = None,
        engine_model: str | None = None,
        silent_after: float = SILENT_AFTER,
        stalled_after: float = STALLED_AFTER,
        priorities: bool = False,
        continues: bool = False,
    ) -> None:
        self.name = name
        self.url = shown(url)
        self._address = url
        self.continues = continues
        self._api_key_env = api_key_env
        self._model = engine_model
        self._silent_after = silent_after
        self._stalled_after = stalled_after
        self._priorities = priorities
        self._renamed = False
        self._lists = False
        """Whether it has listed its models."""
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
        timeout = openai.Timeout(self._silent_after, connect=_CONNECT)
        # A key that nobody named is not sent anywhere, and retries are the calls' own.
        return openai.AsyncOpenAI(
            base_url=self._address,
            api_key=self._key(),
            timeout=timeout,
            max_retries=0,
        )

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
            from openai import APIStatusError

            try:
                listed = [one.id for one in (await client.models.list()).data]
            except APIStatusError as error:
                if error.status_code not in _NO_LIST:
                    raise
                self._model = self.name
                return
            self._model = listed[0] if len(listed) == 1 else self.name
            self._lists = True

    async def chat(self, request: ChatRequest, say: Say) -> ChatResult[Any]:
        """See :class:`callboard.actors.models.engine.Engine`."""
        body: dict[str, Any] = {"messages": [_sent(message) for message in request.messages]}
        if request.tools:
            body["tools"] = request.tools
        if request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
        if request.schema is not None:
            form = {"name": _name(request.schema), "schema": request.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        heard = _Heard(say, request.said)
        if heard.prefix:  # see docs/decisions/0036-answers-go-on.md
            body["messages"].append({"role": "assistant", "content": heard.prefix})
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        await self._stream(heard, body | self._options(request))
        return heard.result()

    async def complete(self, request: CompletionRequest, say: Say) -> Completion:
        """See :class:`callboard.actors.models.engine.Engine`."""
        heard = _Heard(say, request.said)
        await self._stream(heard, {"prompt": request.prompt + heard.prefix} | self._options(request))
        return heard.completion()

    async def _stream(self, heard: _Heard, body: dict[str, Any]) -> None:
        """Ask, and hear the answer to its end; where the API has a newer name for ``max_tokens``, by that."""
        if body.get("max_tokens") == 0 and heard.before:
            heard.finish_reason = "length"
            return
        body["stream_options"] = {"include_usage": True}
        sent = self._named(body)
        try:
            await self._hear(heard, sent)
        except EngineRefused as error:
            if "max_tokens" not in sent or not _RENAMED.search(error.message):
                raise
            self._renamed = True
            await self._hear(heard, self._named(body))

    def _named(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self._renamed or "messages" not in body:
            return body
        return {"max_completion_tokens" if name == "max_tokens" else name: of for name, of in body.items()}

    async def _hear(self, heard: _Heard, body: dict[str, Any]) -> None:
        """The same in one request.

        The client's own models of requests and chunks are passed by: it goes through each message of a
        conversation to see what to rename, which is nothing, and checks no types of what comes.
        """
        loop = asyncio.get_running_loop()
        try:
            async with (
                asyncio.timeout(self._silent_after) as patience,
                self._asking() as client,
                self._request(client, body) as response,
            ):
                reading = response.iter_bytes()
                async for event in events(reading):
                    heard.chunk(self._read(event))
                    if heard.begun:
                        patience.reschedule(loop.time() + self._stalled_after)
                await _exhaust(reading)
        except TimeoutError as error:
            silence = self._stalled_after if heard.begun else self._silent_after
            text = f"the engine of model {self.name} at {self.url} has said nothing for {silence:g} s"
            raise EngineDown(text, engine=self.url, status=0) from error
        self._whole(heard)

    def _request(self, client: AsyncOpenAI, body: dict[str, Any]) -> Any:
        """A context manager of the response. What ``extra_body`` has replaces the other arguments.

        Only connecting has a time-out: whoever reads has others, before the first word and after it.
        """
        import openai

        given: dict[str, Any] = {
            "model": self._model or self.name,
            "stream": True,
            "extra_body": body,
            "timeout": openai.Timeout(None, connect=_CONNECT),
        }
        if "messages" in body:
            return client.chat.completions.with_streaming_response.create(messages=[], **given)
        return client.completions.with_streaming_response.create(prompt="", **given)

    def _read(self, event: bytes) -> Chunk:
        chunk = decode(event)
        if chunk.error is not None:
            raise EngineFailed(chunk.error)
        return chunk

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """See :class:`callboard.actors.models.engine.Engine`."""
        async with self._asking() as client:
            answered = await client.embeddings.create(
                model=self._model or self.name, input=list(texts), encoding_format="float"
            )
            data = sorted(answered.data, key=lambda one: one.index)
            if len(data) != len(texts):
                raise unusable(self.name, f"{len(data)} vectors for {len(texts)} texts")
            used: Any = answered.usage  # which some servers leave out, whatever the client's types say
            usage = Usage() if used is None else Usage(used.prompt_tokens, 0, used.total_tokens)
            return Embeddings([list(one.embedding) for one in data], usage, answered.model)

    async def load(self) -> EngineLoad | None:
        """How busy it is, by its ``/metrics``; None: it has none that say so.

        Raises:
            CallboardError: it does not answer now.
        """
        try:
            async with self._speaking() as client:
                address = self._beside("metrics")
                return read_load(await client.get(address, cast_to=str, options={"timeout": _LOOK}))
        except EngineRefused:
            return None
        except EngineDown as error:
            if error.fields["status"] != HTTPStatus.NOT_IMPLEMENTED:  # as llama.cpp has it without --metrics
                raise
            return None

    async def answers(self) -> bool:
        """See :class:`callboard.actors.models.breaker.Answers`: it lists its models, or refuses to.

        A gateway may have no list, and say so with a status that means that nobody is there: then that one
        means nothing.
        """
        try:
            async with self._speaking() as client:
                await client.get("/models", cast_to=str, options={"timeout": _CONNECT})
        except EngineDown as error:
            status = error.fields["status"]
            return bool(status) and not (self._lists and status in GONE)
        except CallboardError:  # a key that it does not take, a limit, rubbish: somebody is there
            return True
        self._lists = True
        return True

    async def tokens(self, text: str) -> int | None:
        """How many tokens a text has, by vLLM's ``/tokenize``; None: it does not tell.

        Raises:
            CallboardError: it does not answer now.
        """
        if not text:
            return 0
        try:
            async with self._asking() as client:
                asked = {"model": self._model, "prompt": text, "add_special_tokens": False}
                told = await client.post(
                    self._beside("tokenize"),
                    cast_to=str,
                    body=asked,
                    options={"timeout": self._stalled_after},
                )
                return decode_counted(told).count
        except (AnswerUnusable, EngineRefused):
            return None

    def _beside(self, name: str) -> str:
        """The address of something that is not of the OpenAI API."""
        return f"{self._address.rstrip('/').removesuffix('/v1')}/{name}"

    def _options(self, request: ChatRequest | CompletionRequest) -> dict[str, Any]:
        options = _options(request.sampling)
        if self._priorities and request.priority is not None:
            return {"priority": request.priority} | options
        return options

    def _whole(self, heard: _Heard) -> None:
        if not heard.chunks:
            raise unusable(self.name, "it has streamed nothing")
        if not heard.finish_reason:
            text = f"the engine of model {self.name} broke off in the middle of its answer"
            raise EngineDown(text, engine=self.url, status=0)


async def _exhaust(reading: AsyncIterator[bytes]) -> None:
    """Read the few bytes after the last event: a connection can be used again when its response has ended.

    What goes wrong with them is nothing to an answer that is whole; the connection is closed then. At the end
    the client closes connections that nobody needs. It shields that from the time-outs of anyio, but not from
    those of asyncio, which would leave some of them open for good.
    """
    import anyio
    import httpx2

    with contextlib.suppress(httpx2.RequestError), anyio.move_on_after(_REST):
        async for _ in reading:
            pass


def _sent(message: Message) -> Any:
    """A message as engines take it: they read the arguments of earlier calls, and refuse what is no JSON."""
    sent = msgspec.to_builtins(message)
    for call in sent.get("tool_calls", ()):
        try:
            given = msgspec.json.decode(call["function"]["arguments"])
        except (msgspec.DecodeError, RecursionError):
            given = None
        if not isinstance(given, dict):
            call["function"]["arguments"] = "{}"
    return sent


def _name(schema: dict[str, Any]) -> str:
    """Of a schema, as the API allows names; titles may be anything."""
    return _NO_NAME.sub("_", str(schema.get("title", ""))).strip("_")[:_NAME_LIMIT] or "answer"


def _options(sampling: Sampling) -> dict[str, Any]:
    """Of a request's body."""
    given = {name: getattr(sampling, name) for name in ("max_tokens", "temperature", "top_p", "stop", "seed")}
    return {name: value for name, value in given.items() if value is not None} | sampling.extra


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    differing = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


class _Heard:
    """An answer, put together from what was streamed.

    Attributes:
        before: what was said of it before.
        prefix: that without white space at its end. Templates of chats cut it off, and few tokens end with
            it: the engine says it again, and it is left out then.
    """

    def __init__(self, say: Say, before: str = "") -> None:
        self.before = before
        self.prefix = before.rstrip()
        self._again = before[len(self.prefix) :]
        self.chunks = 0
        self.finish_reason = ""
        self._say = say
        self._pieces: list[str] = []
        self._calls: list[tuple[int, ToolCall]] = []
        self._open: dict[int, ToolCall] = {}
        self._thinks = False
        self._usage = Usage()
        self._model = self._id = ""

    @property
    def begun(self) -> bool:
        """Whether it has said or thought anything; some engines send empty chunks while they queue."""
        return bool(self._pieces or self._calls or self._thinks)

    def chunk(self, chunk: Chunk) -> None:
        """Take up what one chunk says."""
        self.chunks += 1
        self._model, self._id = chunk.model or self._model, chunk.id or self._id
        if chunk.usage is not None:
            self._usage = chunk.usage.usage()
        for choice in chunk.choices or ():
            self.finish_reason = choice.finish_reason or self.finish_reason
            delta = choice.delta
            text = choice.text if delta is None else delta.content
            if text:
                self._hear(text)
            if delta is not None:
                self._thinks = self._thinks or bool(delta.reasoning_content or delta.reasoning)
                for part in delta.tool_calls or ():
                    self._call(part)

    def _hear(self, text: str) -> None:
        if self._again:
            same = _common(self._again, text)
            self._again = self._again[same:] if same == len(text) else ""
            text = text[same:]
        self._pieces.append(text)
        self._say(text)

    def _call(self, part: CallPart) -> None:
        call = self._open.get(part.index)
        if call is None or (part.id and call.id not in {"", part.id}):  # some engines leave the index out
            call = self._open[part.index] = ToolCall("", FunctionCall(""))
            self._calls.append((part.index, call))
        call.id = part.id or call.id
        if part.function is not None:
            call.function.name += part.function.name or ""
            call.function.arguments += part.function.arguments or ""

    def result(self) -> ChatResult[Any]:
        """The whole of a chat's answer."""
        calls = [call for _, call in sorted(self._calls, key=lambda one: one[0])]
        text = self.before + "".join(self._pieces)
        message = Message("assistant", text if text or not calls else None, tool_calls=calls)
        return ChatResult(message, self.finish_reason, self._usage, self._model, self._id)

    def completion(self) -> Completion:
        """The whole of a completion."""
        return Completion(
            self.before + "".join(self._pieces), self.finish_reason, self._usage, self._model, self._id
        )
