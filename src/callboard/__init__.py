"""Callboard serves LLM agent workflows as actors on NATS.

Declare actors with :func:`agent`, :func:`tool` and :func:`workflow`; call them in a workflow; run the
workflow with ``callboard run``, from :func:`connect`, or in this process without NATS.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from callboard.actors.declare import agent, batchable, method, tool, workflow
from callboard.actors.effects import effect_key
from callboard.actors.future import Future, FutureInfo
from callboard.actors.sandbox import Sandbox
from callboard.actors.scope import checkpoint, now, options, random, uuid
from callboard.actors.waiting import signal, sleep, until
from callboard.infra.errors import CallboardError, NotDone, OutcomeUnknown, Terminal

if TYPE_CHECKING:
    from callboard.actors import human
    from callboard.actors.client import Client, connect
    from callboard.actors.items import each, item
    from callboard.actors.listening import Piece
    from callboard.actors.llm.agent import LlmAgent
    from callboard.actors.llm.loop import Limits
    from callboard.actors.mcp.tools import mcp_tools
    from callboard.actors.models.served import model_at, model_function
    from callboard.actors.models.stream import AnswerStream
    from callboard.actors.models.stub import Model, model
    from callboard.actors.models.types import ChatRequest, ChatResult, Message, Price, Sampling
    from callboard.actors.sync_client import SyncClient, connect_sync
    from callboard.infra.messages.budget import Budget
    from callboard.state.dicts import ManagedDict
    from callboard.state.lists import ManagedList
    from callboard.state.managed import Managed, ManagedCounter

_LAZY = {
    "AnswerStream": "callboard.actors.models.stream",
    "Budget": "callboard.infra.messages.budget",
    "ChatRequest": "callboard.actors.models.types",
    "ChatResult": "callboard.actors.models.types",
    "Client": "callboard.actors.client",
    "Limits": "callboard.actors.llm.loop",
    "LlmAgent": "callboard.actors.llm.agent",
    "Managed": "callboard.state.managed",
    "ManagedCounter": "callboard.state.managed",
    "ManagedDict": "callboard.state.dicts",
    "ManagedList": "callboard.state.lists",
    "Message": "callboard.actors.models.types",
    "Model": "callboard.actors.models.stub",
    "Piece": "callboard.actors.listening",
    "Price": "callboard.actors.models.types",
    "Sampling": "callboard.actors.models.types",
    "SyncClient": "callboard.actors.sync_client",
    "connect": "callboard.actors.client",
    "connect_sync": "callboard.actors.sync_client",
    "each": "callboard.actors.items",
    "item": "callboard.actors.items",
    "model": "callboard.actors.models.stub",
    "model_at": "callboard.actors.models.served",
    "model_function": "callboard.actors.models.served",
    "mcp_tools": "callboard.actors.mcp.tools",
}

__version__ = "0.1.0"

__all__ = [
    "AnswerStream",
    "Budget",
    "CallboardError",
    "ChatRequest",
    "ChatResult",
    "Client",
    "Future",
    "FutureInfo",
    "Limits",
    "LlmAgent",
    "Managed",
    "ManagedCounter",
    "ManagedDict",
    "ManagedList",
    "Message",
    "Model",
    "NotDone",
    "OutcomeUnknown",
    "Piece",
    "Price",
    "Sampling",
    "Sandbox",
    "SyncClient",
    "Terminal",
    "__version__",
    "agent",
    "batchable",
    "checkpoint",
    "connect",
    "connect_sync",
    "each",
    "effect_key",
    "human",
    "item",
    "mcp_tools",
    "method",
    "model",
    "model_at",
    "model_function",
    "now",
    "options",
    "random",
    "signal",
    "sleep",
    "tool",
    "until",
    "uuid",
    "workflow",
]


def __getattr__(name: str) -> Any:
    """Load what needs NATS when it is first used, so that importing Callboard stays quick."""
    if name == "human":
        return importlib.import_module("callboard.actors.human")
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'callboard' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)
