"""A model as a host runs it: an actor whose handlers ask an engine."""

from __future__ import annotations

import contextlib
import functools
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast, overload

import msgspec

from callboard.actors.budgets import Degraded
from callboard.actors.declared import AgentClass, Method, version_of
from callboard.actors.directives import Directives, directives_from
from callboard.actors.future import Future
from callboard.actors.models.cache import TellsCache
from callboard.actors.models.continuing import ask
from callboard.actors.models.engine import Engine
from callboard.actors.models.function_engine import ChatFunction, EmbedFunction, FunctionEngine
from callboard.actors.models.guard import Guard
from callboard.actors.models.metered import Metered
from callboard.actors.models.schemas import AnswerSignature
from callboard.actors.models.stream import AnswerStream
from callboard.actors.models.structured import answer
from callboard.actors.models.types import (
    ChatRequest,
    ChatResult,
    Completion,
    CompletionRequest,
    Embeddings,
    Message,
    Price,
    Sampling,
)
from callboard.actors.schema import Signature
from callboard.actors.scope import current
from callboard.actors.speech import Speaker, Speech
from callboard.infra.errors import UnknownActor
from callboard.infra.subjects import token

if TYPE_CHECKING:
    from callboard.actors.instance import Instance

METHODS = ("chat", "complete", "embed")


class ModelActor:
    """Goes on with chats, continues prompts, and gives vectors of texts.

    These are the handlers of every model; a class is made for each engine.
    """

    engine: ClassVar[Engine]
    name: ClassVar[str]
    price: ClassVar[Price]
    guards: ClassVar[dict[str, Guard]]
    """By host: of the instances in this process."""

    async def chat(
        self,
        messages: list[Message],
        *,
        tools: list[dict[str, Any]] = [],  # noqa: B006 - it is never changed
        tool_choice: str | dict[str, Any] | None = None,
        schema: dict[str, Any] | None = None,
        repairs: int = 2,
        sampling: Sampling = Sampling(),  # noqa: B008 - as above
    ) -> ChatResult[Any]:
        """Go on with a conversation."""
        request = ChatRequest(
            messages=messages,
            tools=tools,
            tool_choice=tool_choice,
            schema=schema,
            sampling=sampling,
            priority=_priority(),
        )
        try:
            async with self._speaking() as speaker:
                result = await ask(
                    self.engine,
                    request,
                    speaker,
                    lambda asked: answer(self._metered(), asked, repairs, speaker),
                )
            _maker()[0].served(self.name, request)
            return result
        except Degraded as found:
            options = msgspec.structs.asdict(request)
            del options["priority"], options["said"]  # it has its own there
            cheaper: ChatResult[Any] = await _repeated(
                found.model, "chat", ChatResult[Any], repairs=repairs, **options
            )
            return cheaper

    async def complete(self, prompt: str, *, sampling: Sampling = Sampling()) -> Completion:  # noqa: B008
        """Continue a prompt."""
        request = CompletionRequest(prompt=prompt, sampling=sampling, priority=_priority())
        try:
            async with self._speaking() as speaker:
                done = await ask(self.engine, request, speaker, lambda asked: self._complete(asked, speaker))
            _maker()[0].served(self.name, request)
            return done
        except Degraded as found:
            cheaper: Completion = await _repeated(
                found.model, "complete", Completion, prompt=prompt, sampling=sampling
            )
            return cheaper

    async def _complete(self, request: CompletionRequest, speaker: Speaker) -> Completion:
        done = await self._metered().complete(request, speaker.say)
        speaker.tokens += done.usage.completion_tokens
        return done

    async def embed(self, texts: list[str]) -> Embeddings:
        """Vectors of texts, in their order."""
        try:
            async with self._guarded(lambda: False):
                return await self._metered().embed(texts)
        except Degraded as found:
            cheaper: Embeddings = await _elsewhere(found.model, "embed", Embeddings, texts=texts)
            return cheaper

    @contextlib.asynccontextmanager
    async def _speaking(self) -> AsyncIterator[Speaker]:
        """Who tells what is answered to this call, by an engine that is looked after."""
        with _speaker() as speaker:
            async with self._guarded(lambda: speaker.begun):
                yield speaker

    def _guarded(self, begun: Callable[[], bool]) -> AbstractAsyncContextManager[None]:
        scope = current.get()
        guard = self.guards.get(getattr(scope.maker, "host", "")) if scope is not None else None
        return contextlib.nullcontext() if guard is None else guard.around(begun)

    def _metered(self) -> Engine:
        """The engine; where what it takes is charged to budgets, one that does so."""
        scope = current.get()
        purse = getattr(scope.maker, "purse", None) if scope is not None else None
        return self.engine if purse is None else Metered(self.engine, self.name, self.price, purse)


def _elsewhere(model: str, key: str, kind: Any, **arguments: Any) -> Future[Any]:
    """What another model answers, of this kind."""
    scope = current.get()
    assert scope is not None, "a handler has a scope"
    return scope.maker.call(scope.next_id(), method_of_model(model, key, kind), (), arguments)


async def _repeated(model: str, key: str, kind: Any, **arguments: Any) -> Any:
    """The same, said here while it is said there: who made this call listens here."""
    with _speaker() as speaker:
        await speaker.heard()  # what follows comes in the place of whatever that was
        stream = AnswerStream(_elsewhere(model, key, kind, **arguments))
        speaker.repeats = stream.future.id
        async for piece in stream:
            if piece.reset:
                speaker.begin()
            speaker.say(piece.text)
        return await stream.result()


class _Speaks(Protocol):
    @property
    def speech(self) -> Speech: ...
    @property
    def rank(self) -> float: ...
    @property
    def may_have_begun(self) -> bool: ...

    def spent(self, tokens: int) -> None: ...
    def served(self, model: str, request: ChatRequest | CompletionRequest) -> None: ...


def _maker() -> tuple[_Speaks, str]:
    """What knows the call whose handler this is, and where the handler is."""
    scope = current.get()
    assert scope is not None, "a handler has a scope"
    return cast("_Speaks", scope.maker), scope.prefix.removesuffix(".")


@contextlib.contextmanager
def _speaker() -> Iterator[Speaker]:
    """Who tells what is answered to this call, and what it has cost."""
    maker, path = _maker()
    with maker.speech.speaker(path, again=maker.may_have_begun) as speaker:
        try:
            yield speaker
        finally:
            maker.spent(speaker.tokens)


def _priority() -> int:
    """The call's rank in mailboxes, in milliseconds: so an engine has the same order, and ageing, as they."""
    return round(_maker()[0].rank * 1000)


_declared: dict[str, ServedModel] = {}


class ServedModel(AgentClass[ModelActor]):
    """A model that this process can serve; its calls are made with ``callboard.model(name)``.

    Args:
        name: of the actor.
        engine: what answers.
        options: directives, see :class:`Directives`.
        price: what budgets are charged for it; None: nothing.
        made_of: what tells the engine from another one.
    """

    kind = "model"

    def __init__(
        self,
        name: str,
        engine: Engine,
        options: dict[str, Any],
        price: Price | None = None,
        made_of: tuple[Any, ...] = (),
    ) -> None:
        token("the name of model", name)
        directives = directives_from(Directives(), options, name)
        self.engine = engine
        self._guards: dict[str, Guard] = {}
        self.price = price or Price()
        own = {"engine": engine, "name": name, "price": self.price, "guards": self._guards}
        super().__init__(type("Model", (ModelActor,), own), name, directives)
        if isinstance(engine, FunctionEngine):
            self.source = engine.function
        else:
            self.apart = version_of(repr((made_of, options, self.price)))
        for key in METHODS:
            self.methods[key] = Method(name, key, getattr(ModelActor, key), directives, self)
        _declared[name] = self

    async def open(self) -> None:
        """Make the engine ready."""
        await self.engine.open()

    async def close(self) -> None:
        """Let the engine go."""
        await self.engine.close()

    async def attach(self, instance: Instance) -> None:
        """Look after its engine: how much it batches, what is in its cache, whether it is there."""
        if isinstance(self.engine, TellsCache):
            self.engine.follow(functools.partial(instance.host.prefixes.cached, self.name))
        guard = self._guards[instance.host.id] = Guard(instance, self.engine)
        await guard.start()

    def detach(self, instance: Instance) -> None:
        """No more."""
        guard = self._guards.pop(instance.host.id, None)
        if guard is not None:
            guard.stop()

    def __repr__(self) -> str:
        return f"<model {self.name}>"


def here(name: str) -> ModelActor:
    """A model that is declared in this process, for calls without NATS.

    Raises:
        UnknownActor: there is none.
    """
    found = _declared.get(name)
    if found is None:
        raise UnknownActor(
            f"no model {name!r} is declared in this process: declare one with @model_function or model_at, "
            f"or run on a board where 'callboard host --model {name} --url URL' serves it",
            actor=name,
        )
    return found.create()


@functools.lru_cache(maxsize=1024)
def method_of_model(name: str, key: str, result: Any) -> Method:
    """A method of a model, with what it gives; without NATS the model of this process answers."""
    handler = getattr(ModelActor, key)
    hints = typing.get_type_hints(handler)
    signature = inspect.signature(handler)

    async def ask(**arguments: Any) -> Any:
        return await getattr(here(name), key)(**arguments)

    ask.__name__, ask.__doc__ = key, handler.__doc__
    ask.__annotations__ = hints | {"return": result}
    own = list(signature.parameters.values())[1:]
    ask.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    assert key in METHODS
    return _AskMethod(name, key, ask, Directives(), None)


class _AskMethod(Method):
    @functools.cached_property
    def signature(self) -> Signature:
        """As of any method; an answer that has a type is read as JSON has it."""
        kinds = typing.get_args(self.function.__annotations__["return"])
        if not kinds or kinds[0] is Any:
            return super().signature
        return AnswerSignature(self.where, self.function, kinds[0])


@overload
def model_function(function: ChatFunction, /) -> ServedModel: ...
@overload
def model_function(
    *,
    name: str | None = ...,
    embed: EmbedFunction | None = ...,
    continues: bool = ...,
    price: Price | None = ...,
    **directives: Any,
) -> Callable[[ChatFunction], ServedModel]: ...
def model_function(
    function: ChatFunction | None = None,
    /,
    *,
    name: str | None = None,
    embed: EmbedFunction | None = None,
    continues: bool = False,
    price: Price | None = None,
    **directives: Any,
) -> ServedModel | Callable[[ChatFunction], ServedModel]:
    """Declare a function as a model: for tests, or where code answers.

    It takes a :class:`ChatRequest`, and gives a text, a :class:`Message` or a :class:`ChatResult`; or it is
    ``async`` and yields the text piece by piece.

    Args:
        name: of the model; the function's by default.
        embed: takes texts and gives a vector for each.
        continues: it heeds ``said`` of the request, and gives only what follows: so an answer that breaks off
            goes on there when it is tried again.
        price: what budgets are charged for it.
        directives: see :class:`Directives`.

    Raises:
        NameInvalid: the name cannot be a subject token.
    """

    def declare(function: ChatFunction) -> ServedModel:
        own = name or function.__name__
        engine = FunctionEngine(own, function, embed, continues=continues)
        return ServedModel(own, engine, directives, price)

    return declare if function is None else declare(function)


def model_at(
    name: str,
    *,
    url: str,
    api_key_env: str | None = None,
    engine_model: str | None = None,
    silent_after: float = 600.0,
    stalled_after: float = 60.0,
    priorities: bool = False,
    continues: bool = False,
    price: Price | None = None,
    **directives: Any,
) -> ServedModel:
    """Declare a model that a server with the OpenAI API has.

    Args:
        name: of the actor.
        url: up to and with ``/v1``.
        api_key_env: environment variable that holds the key; it is read when the host starts.
        engine_model: the server's name of the model; by default the only one that it lists, or ``name``.
        silent_after: seconds without a first word after which it counts as down.
        stalled_after: seconds without a further word after which it does.
        priorities: it takes vLLM's field ``priority``: requests go first there as calls do in mailboxes. That
            is so for vLLM with ``--scheduling-policy priority``; other servers may refuse the field.
        continues: it goes on with an answer that was begun, by vLLM's field ``continue_final_message``: so
            one that breaks off goes on there when it is tried again. Other servers may ignore the field.
        price: what budgets are charged for it.
        directives: see :class:`Directives`; four retries by default.

    Raises:
        NameInvalid: the name cannot be a subject token.
    """
    from callboard.actors.models.openai_engine import OpenAIEngine

    engine = OpenAIEngine(
        name,
        url,
        api_key_env=api_key_env,
        engine_model=engine_model,
        silent_after=silent_after,
        stalled_after=stalled_after,
        priorities=priorities,
        continues=continues,
    )
    retries: dict[str, Any] = {"retries": 4, "backoff": 0.5, "backoff_max": 20.0}
    told = (url, api_key_env, engine_model, silent_after, stalled_after, priorities, continues)
    return ServedModel(name, engine, {**retries, **directives}, price, told)


def model_on_vllm(
    name: str,
    *,
    model: str,
    arguments: Sequence[str] = (),
    kv_events: bool = False,
    price: Price | None = None,
    **directives: Any,
) -> ServedModel:
    """Declare a model that a vLLM server has, which each host of it runs as a child.

    Args:
        name: of the actor.
        model: as vLLM takes it: a name or a path.
        arguments: further ones of the server, such as ``["--max-model-len", "4096"]``.
        kv_events: it tells of its prefix cache, so that calls are not sent after what it has dropped.
        price: what budgets are charged for it.
        directives: see :class:`Directives`; by default retries that outlast a restart of the server.

    Raises:
        NameInvalid: the name cannot be a subject token.
        SettingsInvalid: vLLM is not installed.
    """
    from callboard.actors.models.vllm import VllmEngine, serve_command

    engine = VllmEngine(name, serve_command(model, arguments), kv_events=kv_events)
    retries: dict[str, Any] = {"retries": 20, "backoff": 1.0, "backoff_max": 20.0}
    told = (model, list(arguments), kv_events)
    return ServedModel(name, engine, {**retries, **directives}, price, told)
