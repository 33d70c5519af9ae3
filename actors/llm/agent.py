"""Declaring an agent that is a model with tools."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from callboard.actors.declared import AgentClass, Method, Stub
from callboard.actors.directives import Directives, directives_from
from callboard.actors.llm.answers import Answers
from callboard.actors.llm.history import Forgetful, Remembering
from callboard.actors.llm.loop import Limits, Loop
from callboard.actors.llm.tools import Toolbox
from callboard.actors.models.types import Sampling
from callboard.infra.errors import DeclarationInvalid
from callboard.infra.subjects import NameInvalid, token

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.actors.models.served import ServedModel
    from callboard.actors.models.stub import Model

T = TypeVar("T")


class LlmAgent(AgentClass[Any], Generic[T]):
    """A model that answers with the help of tools: an agent like any other, hosted and called by its name.

    ``analyst = LlmAgent("analyst", model="writer", tools=[prices], output=Verdict)`` at the top of a module
    declares it; ``await analyst.run("Is it cheap?")`` in a workflow, or in another agent, calls it.

    Args:
        name: of the actor.
        model: name of a model that some host serves, or a declared one.
        instructions: the system message; empty: none.
        tools: declared tools, methods of agents (``Analyst.study``), other LlmAgents, and generated stubs.
        output: type of the answer: a msgspec struct, a dataclass or another type that has a JSON schema.
        limits: steps, tokens and seconds of one call.
        history: how many messages of the session it is given again; 0: none, and its calls in a session
            run side by side.
        sampling: how the model is to answer.
        description: what it is for, for models that may call it; by default the instructions.
        directives: see :class:`Directives`.

    Raises:
        DeclarationInvalid: a tool is none or has another's name, or the output has no JSON schema.

    Its calls raise AgentStepsExceeded, AgentTokensExceeded, AgentTimeExceeded, and what its model's calls
    raise. What a tool raises is told to the model, except OutcomeUnknown, DeadlineExceeded and Diverged.
    """

    as_tool = "run"

    @overload
    def __init__(
        self: LlmAgent[T],
        name: str,
        *,
        model: str | Model | ServedModel,
        instructions: str = ...,
        tools: Sequence[Any] = ...,
        output: type[T],
        limits: Limits = ...,
        history: int = ...,
        sampling: Sampling | None = ...,
        description: str = ...,
        **directives: Any,
    ) -> None: ...
    @overload
    def __init__(
        self: LlmAgent[str],
        name: str,
        *,
        model: str | Model | ServedModel,
        instructions: str = ...,
        tools: Sequence[Any] = ...,
        limits: Limits = ...,
        history: int = ...,
        sampling: Sampling | None = ...,
        description: str = ...,
        **directives: Any,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        model: str | Model | ServedModel,
        instructions: str = "",
        tools: Sequence[Any] = (),
        output: Any = str,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
        history: int = 40,
        sampling: Sampling | None = None,
        description: str = "",
        **directives: Any,
    ) -> None:
        base = directives_from(Directives(), directives, _named(name))
        if base.stateful or base.batchable or base.cpu:
            raise DeclarationInvalid(f"agent {name}: it cannot be stateful, batchable, cpu or sandboxed")
        if history < 0:
            raise DeclarationInvalid(f"agent {name}: history must be 0 or more, not {history}")
        self.loop = Loop(
            name,
            model=model if isinstance(model, str) else model.name,
            instructions=instructions,
            tools=Toolbox(name, tools),
            answers=Answers(name, output),
            limits=limits,
            sampling=sampling,
        )
        self.description = description or instructions
        parts = (instructions, self.loop.model, sorted(self.loop.tools.names), str(output), limits, history)
        self.version = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
        kind = Remembering if history else Forgetful
        own = {"most": history, "__doc__": self.description}
        super().__init__(type("Conversation", (kind,), own), name, base)
        self.methods["run"] = Method(name, "run", self._handler(output), base, self)

    def _handler(self, output: Any) -> Any:
        loop = self.loop

        async def run(conversation: Remembering | Forgetful, prompt: Any) -> Any:
            before = await conversation.recall()
            answer, said = await loop.run(prompt, before)
            conversation.keep(said)
            return answer

        run.__doc__ = self.description
        run.__annotations__ = {"prompt": Any, "return": output}
        return run

    def run(self, prompt: Any) -> Future[T]:
        """Ask it; returns at once.

        Args:
            prompt: a text; any other value, or what a future will give, is put to the model as JSON.
        """
        return cast("Future[T]", Stub[..., Any](self.methods["run"])(prompt))

    def __repr__(self) -> str:
        return f"<agent {self.name}>"


def _named(name: str) -> str:
    try:
        return token("the name of agent", name)
    except NameInvalid as error:
        raise DeclarationInvalid(error.message) from error
