"""The loop: ask the model, make the calls that it asks for, tell it their results, until it answers.

Each step is a call like any other, made by the handler of the agent. So it stands in the journal, and a host
that goes on with the loop after another one has died is given the results on record, in their order, without
asking or calling again. Nothing in here may depend on anything else than these results.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from callboard.actors.llm.answers import Answers
from callboard.actors.llm.tools import Toolbox
from callboard.actors.models.stub import Model
from callboard.actors.models.types import ChatResult, Message, Sampling
from callboard.actors.scope import now
from callboard.infra.errors import AgentStepsExceeded, AgentTimeExceeded, AgentTokensExceeded

_AGAIN: Final = "That cannot be used ({problem}). "


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one call of an LlmAgent may take.

    Attributes:
        steps: how often its model is asked.
        tokens: that its model takes, prompts included, as its engine counts them; None: no limit. It is
            looked at before each step, so the last one may go beyond it.
        seconds: from its beginning, on whichever hosts; None: no limit.
    """

    steps: int = 20
    tokens: int | None = None
    seconds: float | None = None


class Loop:
    """The loop of one agent.

    Args:
        name: of the agent; model: the name of its model. The others: see :class:`LlmAgent`.
    """

    def __init__(
        self,
        name: str,
        *,
        model: str,
        instructions: str,
        tools: Toolbox,
        answers: Answers,
        limits: Limits,
        sampling: Sampling | None,
    ) -> None:
        self.name = name
        self.model = model
        self.tools = tools
        self._stub = Model(model)
        self._answers = answers
        self._limits = limits
        self._sampling = sampling
        # Beside tools no schema goes to the engine: one that holds a model to it would let it call none.
        asked = answers.please if tools.names else ""
        system = "\n\n".join(part for part in (instructions, asked and f"At the end: {asked}") if part)
        self._system = [Message("system", system)] if system else []

    async def run(self, prompt: Any, before: Sequence[Message]) -> tuple[Any, list[Message]]:
        """Come to an answer.

        Args:
            prompt: a text, or a value; before: what was said in the session.

        Returns:
            The answer, and what was said: the prompt, the model's messages, results of tools.

        Raises:
            AgentStepsExceeded, AgentTokensExceeded, AgentTimeExceeded: it took too much.
        """
        text = prompt if isinstance(prompt, str) else msgspec.json.encode(prompt).decode()
        said = [Message("user", text)]
        if self._limits.seconds is None:
            answer = await self._steps(before, said)
            return answer, said
        passed = datetime.now(UTC) - now()  # since the loop has begun, on another host perhaps
        left = self._limits.seconds - passed.total_seconds()
        running = asyncio.timeout(max(0.0, left))
        try:
            async with running:
                answer = await self._steps(before, said)
                return answer, said
        except TimeoutError as error:
            if not running.expired():
                raise
            raise AgentTimeExceeded(
                f"agent {self.name} took longer than {self._limits.seconds:g} s: allow more "
                "(limits=Limits(seconds=...)), or give it less to do",
                agent=self.name,
                allowed=self._limits.seconds,
            ) from error

    async def _steps(self, before: Sequence[Message], said: list[Message]) -> Any:
        used = 0
        insist = not self.tools.names
        for _ in range(self._limits.steps):
            self._check(used)
            answered = await self._ask([*self._system, *before, *said], insist=insist)
            used += answered.usage.total_tokens
            said.append(answered.message)
            if answered.tool_calls:
                said += await self.tools.answer(answered.tool_calls)
                continue
            try:
                return self._answers.read(answered.text)
            except ValueError as problem:
                insist = True
                said.append(Message("user", _AGAIN.format(problem=problem) + self._answers.please))
        raise AgentStepsExceeded(
            f"the model of agent {self.name} was asked {self._limits.steps} times and has not come to an "
            "answer: allow more (limits=Limits(steps=...)), or say in the instructions when to end",
            agent=self.name,
            allowed=self._limits.steps,
            used=self._limits.steps,
        )

    async def _ask(self, messages: Sequence[Message], *, insist: bool) -> ChatResult[Any]:
        """One step; where the model must answer it calls no tools, and is held to the schema."""
        tools = self.tools.described()
        if not insist:
            return await self._stub.chat(messages, tools=tools, sampling=self._sampling)
        return await self._stub.chat(
            messages,
            tools=tools,
            tool_choice="none" if tools else None,
            schema=self._answers.schema,
            sampling=self._sampling,
        )

    def _check(self, used: int) -> None:
        allowed = self._limits.tokens
        if allowed is not None and used >= allowed:
            raise AgentTokensExceeded(
                f"the model of agent {self.name} took {used:,} tokens, and {allowed:,} are allowed: allow "
                "more (limits=Limits(tokens=...)), or let its tools return less",
                agent=self.name,
                allowed=allowed,
                used=used,
            )
