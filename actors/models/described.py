"""Tools as models are told of them: in the OpenAI shape, from names, docstrings and annotations."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from callboard.actors.declared import AgentClass, Method, Stub, Tool
from callboard.actors.models.schemas import opened
from callboard.infra.errors import InvalidArguments

_PROMPT = {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]}


def method_of(tool: Any) -> Method | None:
    """What is called when a model asks for this tool; None if it is none, or its parameters are not known."""
    if isinstance(tool, AgentClass):
        return tool.methods[tool.as_tool] if tool.as_tool else None
    return tool.method if isinstance(tool, Stub) and tool.method.signature_known else None


def name_of(tool: Any, method: Method) -> str:
    """How models name it: a tool or an LlmAgent by its own name, a method with its agent's before it."""
    return method.actor if isinstance(tool, Tool | AgentClass) else f"{method.actor}__{method.name}"


def described(tool: Any) -> dict[str, Any]:
    """A tool in the OpenAI shape.

    Raises:
        InvalidArguments: it is neither such a description nor something that can be called.
    """
    if isinstance(tool, Mapping):
        return dict(tool)
    method = method_of(tool)
    if method is None:
        raise InvalidArguments(f"tools: {tool!r} is no @tool, and no description in the OpenAI shape")
    parameters = _PROMPT if isinstance(tool, AgentClass) else opened(method.signature.schemas()[0])
    about = {
        "name": name_of(tool, method),
        "description": inspect.getdoc(method.function) or "",
        "parameters": parameters,
    }
    return {"type": "function", "function": about}
