"""The loop of the `openai-agents` library inside an actor; its model and its tools are actors.

callboard run ask_openai --question "AAPL or MSFT?" --local examples/own_loop/openai_agents_app.py
"""

from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from agents.models.chatcmpl_converter import Converter
from openai.types.chat import ChatCompletionMessage
from scripted import price, writer

import callboard
from callboard import agent, method, workflow

__all__ = ["Assistant", "ask_openai", "price", "writer"]


class CallboardModel(Model):
    """The library's model interface over a model actor."""

    def __init__(self, name: str) -> None:
        self._model = callboard.model(name)

    async def get_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002 - the library's name
        model_settings: Any,
        tools: Any,
        output_schema: Any,
        handoffs: Any,
        tracing: Any,
        **_: Any,
    ) -> ModelResponse:
        """One call of the model actor, in the shapes of the chat API."""
        messages: list[Any] = list(Converter.items_to_messages(input))
        if system_instructions:
            messages.insert(0, {"role": "system", "content": system_instructions})
        described: list[Any] = [
            *(Converter.tool_to_openai(tool) for tool in tools),
            *(Converter.convert_handoff_tool(handoff) for handoff in handoffs),
        ]
        plain = output_schema is None or output_schema.is_plain_text()
        answer = await self._model.chat(
            messages,
            tools=described,
            schema=None if plain else output_schema.json_schema(),
            temperature=model_settings.temperature,
            max_tokens=model_settings.max_tokens,
        )
        said = ChatCompletionMessage(
            role="assistant",
            content=answer.text or None,
            tool_calls=[
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
                for call in answer.tool_calls
            ]
            or None,
        )
        usage = Usage(
            requests=1,
            input_tokens=answer.usage.prompt_tokens,
            output_tokens=answer.usage.completion_tokens,
            total_tokens=answer.usage.total_tokens,
        )
        return ModelResponse(Converter.message_to_output_items(said), usage, answer.id or None)

    def stream_response(self, *_: Any, **__: Any) -> Any:
        """Not here: what the model says is told on the board anyway."""
        raise NotImplementedError("use Runner.run; callboard run --watch shows what the model says")


@function_tool
async def look_up(ticker: str) -> float:
    """The last close of a stock, in dollars."""
    return await price(ticker)


@agent
class Assistant:
    """Runs the library's loop. Its calls are in the journal, so a host that dies costs none of them."""

    @method
    async def answer(self, question: str) -> str:
        """A question about prices."""
        loop = Agent("analyst", "Look prices up first.", tools=[look_up], model=CallboardModel("writer"))
        # The library would send traces to a hosted service.
        result = await Runner.run(loop, question, run_config=RunConfig(tracing_disabled=True))
        return str(result.final_output)


@workflow
async def ask_openai(question: str) -> str:
    """By the library's agent."""
    return await Assistant.answer(question)
