"""Stubs of an adopted MCP server where no module of stubs was generated."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from callboard.actors.declared import Stub
from callboard.actors.directives import Directives
from callboard.actors.schema import Signature
from callboard.actors.stubs.remote import RemoteMethod


class _ByName(Signature):
    """What is not known here: any arguments, by name. The host holds them against the tool's schema."""

    def __init__(self, where: str) -> None:
        def anything() -> Any: ...

        super().__init__(where, anything, skip_self=False, batched=False)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Take them as they are.

        Raises:
            InvalidArguments: one has no name.
        """
        if args:
            raise self._invalid("its parameters are not known here: give every argument by name")
        return kwargs

    def check(self, body: bytes) -> None:
        """The host does it."""

    def check_some(self, given: dict[str, Any], bound: Collection[str]) -> None:
        """The host does it."""

    def decode_arguments(self, body: bytes) -> dict[str, Any]:
        """As they came."""
        found: dict[str, Any] = msgspec.msgpack.decode(body)
        return found


class _McpTool(RemoteMethod):
    signature_known = False

    def __init__(self, actor: str, name: str) -> None:
        def tool(**arguments: Any) -> Any: ...

        super().__init__(actor, name, tool, Directives(), None)
        self.signature = _ByName(self.where)


class McpTools:
    """The tools of one adopted server, as attributes; see :func:`mcp_tools`."""

    def __init__(self, actor: str) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Stub[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return Stub(_McpTool(self._actor, name))

    def __repr__(self) -> str:
        return f"<tools of {self._actor}>"


def mcp_tools(actor: str) -> McpTools:
    """The tools of an MCP server that some host has adopted, untyped: ``callboard stubs`` writes typed ones.

    Calling one in a workflow makes a call and gives a future. Arguments are given by name; whoever runs the
    tool holds them against its schema.

    Args:
        actor: the name under which the server was adopted.
    """
    return McpTools(actor)
