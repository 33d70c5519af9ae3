"""A model as a host runs it: an actor whose handlers ask an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, cast, overload

from callboard.actors.declare import AgentClass, Method
from callboard.actors.directives import Directives, directives_from
from callboard.actors.models.engine import Engine
from callboard.actors.models.function_engine import ChatFunction, EmbedFunction, FunctionEngine
from callboard.actors.models.structured import answer
from callboard.actors.models.types import (
    ChatRequest,
    ChatResult,
    Completion,
    CompletionRequest,
    Embeddings,
    Message,
    Sampling,
)
from callboard.actors.scope import current
from callboard.actors.speech import Speaker, Speech
from callboard.infra.errors import UnknownActor
from callboard.infra.subjects import token

METHODS = ("chat", "complete", "embed")


class ModelActor:
    """Goes on with chats, continues prompts, and gives vectors of texts.

    These are the handlers of every model; a class is made for each engine.
    """

    engine: ClassVar[Engine]

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
            messages=messages, tools=tools, tool_choice=tool_choice, schema=schema, sampling=sampling
        )
        with _speaker() as speaker:
            return await answer(self.engine, request, repairs, speaker)

    async def complete(self, prompt: str, *, sampling: Sampling = Sampling()) -> Completion:  # noqa: B008
        """Continue a prompt."""
        with _speaker() as speaker:
            return await self.engine.complete(
                CompletionRequest(prompt=prompt, sampling=sampling), speaker.say
            )

    async def embed(self, texts: list[str]) -> Embeddings:
        """Vectors of texts, in their order."""
        return await self.engine.embed(texts)


class _Speaks(Protocol):
    @property
    def speech(self) -> Speech: ...


def _speaker() -> Speaker:
    """Who tells what is answered to the call whose handler this is."""
    scope = current.get()
    assert scope is not None, "a handler has a scope"
    return cast("_Speaks", scope.maker).speech.speaker(scope.prefix.removesuffix("."))


_declared: dict[str, ServedModel] = {}


class ServedModel(AgentClass[ModelActor]):
    """A model that this process can serve; its calls are made with ``callboard.model(name)``.

    Args:
        name: of the actor.
        engine: what answers.
        options: directives, see :class:`Directives`.
    """

    kind = "model"

    def __init__(self, name: str, engine: Engine, options: dict[str, Any]) -> None:
        token("the name of model", name)
        directives = directives_from(Directives(), options, name)
        super().__init__(type("Model", (ModelActor,), {"engine": engine}), name, directives)
        self.engine = engine
        for key in METHODS:
            self.methods[key] = Method(name, key, getattr(ModelActor, key), directives, self)
        _declared[name] = self

    async def open(self) -> None:
        """Make the engine ready."""
        await self.engine.open()

    async def close(self) -> None:
        """Let the engine go."""
        await self.engine.close()

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


@overload
def model_function(function: ChatFunction, /) -> ServedModel: ...
@overload
def model_function(
    *, name: str | None = ..., embed: EmbedFunction | None = ..., **directives: Any
) -> Callable[[ChatFunction], ServedModel]: ...
def model_function(
    function: ChatFunction | None = None,
    /,
    *,
    name: str | None = None,
    embed: EmbedFunction | None = None,
    **directives: Any,
) -> ServedModel | Callable[[ChatFunction], ServedModel]:
    """Declare a function as a model: for tests, or where code answers.

    It takes a :class:`ChatRequest`, and gives a text, a :class:`Message` or a :class:`ChatResult`; or it is
    ``async`` and yields the text piece by piece.

    Args:
        name: of the model; the function's by default.
        embed: takes texts and gives a vector for each.
        directives: see :class:`Directives`.

    Raises:
        NameInvalid: the name cannot be a subject token.
    """

    def declare(function: ChatFunction) -> ServedModel:
        own = name or function.__name__
        return ServedModel(own, FunctionEngine(own, function, embed), directives)

    return declare if function is None else declare(function)


def model_at(
    name: str,
    *,
    url: str,
    api_key_env: str | None = None,
    engine_model: str | None = None,
    silent_after: float = 600.0,
    stalled_after: float = 60.0,
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
    )
    return ServedModel(name, engine, {"retries": 4, "backoff": 0.5, "backoff_max": 20.0, **directives})


def model_on_vllm(name: str, *, model: str, arguments: Sequence[str] = (), **directives: Any) -> ServedModel:
    """Declare a model that a vLLM server has, which each host of it runs as a child.

    Args:
        name: of the actor.
        model: as vLLM takes it: a name or a path.
        arguments: further ones of the server, such as ``["--max-model-len", "4096"]``.
        directives: see :class:`Directives`; by default retries that outlast a restart of the server.

    Raises:
        NameInvalid: the name cannot be a subject token.
        SettingsInvalid: vLLM is not installed.
    """
    from callboard.actors.models.vllm import VllmEngine, serve_command

    engine = VllmEngine(name, serve_command(model, arguments))
    return ServedModel(name, engine, {"retries": 20, "backoff": 1.0, "backoff_max": 20.0, **directives})
