"""The loop of the `pydantic-ai` library inside an actor; its model and its tools are actors.

callboard run ask_pydantic --question "AAPL or MSFT?" --local examples/own_loop/pydantic_ai_app.py
"""

import json
from collections.abc import Iterator

from pydantic_ai import Agent
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import RequestUsage
from scripted import price, writer

import callboard
from callboard import Message, agent, method, workflow
from callboard.actors.models.types import FunctionCall, ToolCall

__all__ = ["Advisor", "ask_pydantic", "price", "writer"]


def callboard_model(name: str) -> FunctionModel:
    """The library's model interface over a model actor."""

    async def ask(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        said = [one for message in messages for one in _messages(message)]
        if info.instructions:
            said.insert(0, Message("system", info.instructions))
        tools = [_described(tool) for tool in (*info.function_tools, *info.output_tools)]
        answer = await callboard.model(name).chat(said, tools=tools)
        text = [TextPart(answer.text)] if answer.text else []
        calls = [
            ToolCallPart(call.function.name, call.function.arguments, tool_call_id=call.id)
            for call in answer.tool_calls
        ]
        usage = RequestUsage(
            input_tokens=answer.usage.prompt_tokens, output_tokens=answer.usage.completion_tokens
        )
        return ModelResponse([*text, *calls], usage=usage)

    return FunctionModel(ask, model_name=name)


def _described(tool: ToolDefinition) -> dict[str, object]:
    about = {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": tool.parameters_json_schema,
    }
    return {"type": "function", "function": about}


def _messages(message: ModelMessage) -> Iterator[Message]:
    """One of the library's messages, as those of the chat API. Parts of other kinds are not used here."""
    if isinstance(message, ModelRequest):
        for part in message.parts:
            match part:
                case SystemPromptPart():
                    yield Message("system", part.content)
                case UserPromptPart():
                    content = part.content
                    yield Message("user", content if isinstance(content, str) else json.dumps(content))
                case ToolReturnPart():
                    yield Message("tool", part.model_response_str(), tool_call_id=part.tool_call_id)
        return
    calls = [
        ToolCall(part.tool_call_id, FunctionCall(part.tool_name, part.args_as_json_str()))
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    text = "".join(part.content for part in message.parts if isinstance(part, TextPart))
    yield Message("assistant", text or None, tool_calls=calls)


loop = Agent(callboard_model("writer"), instructions="Look prices up first.")


@loop.tool_plain
async def look_up(ticker: str) -> float:
    """The last close of a stock, in dollars."""
    return await price(ticker)


@agent
class Advisor:
    """Runs the library's loop. Its calls are in the journal, so a host that dies costs none of them."""

    @method
    async def answer(self, question: str) -> str:
        """A question about prices."""
        return (await loop.run(question)).output


@workflow
async def ask_pydantic(question: str) -> str:
    """By the library's agent."""
    return await Advisor.answer(question)
