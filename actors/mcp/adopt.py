"""An MCP server as an actor: one method for each of its tools."""

from __future__ import annotations

import asyncio
import functools
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from callboard.actors.declared import AgentClass, Method, version_of
from callboard.actors.directives import Directives
from callboard.actors.mcp.link import Link
from callboard.actors.mcp.schemas import SchemaError, SchemaSignature
from callboard.actors.stubs.words import identifier, unique
from callboard.infra import log
from callboard.infra.errors import McpServerUnusable

if TYPE_CHECKING:
    from mcp_types import Tool

_NAMED = re.compile(r"([A-Za-z0-9_-]+)=(.*)", re.DOTALL)
_AGAIN = 3
"""How often a call is repeated of which its server says that this does no harm."""


class McpServer(AgentClass[Any]):
    """The declaration of an adopted server.

    Args:
        name: of the actor; link: to the server, which has told its tools.
        timeout: seconds that a call may take.
    """

    def __init__(self, name: str, link: Link, timeout: float) -> None:
        cls = type(name, (), {"__doc__": f"Tools of the MCP server {_title(link)}."})
        super().__init__(cls, name, Directives(timeout=timeout))
        for tool in link.tools:
            own = unique(identifier(tool.name.lstrip("_")), self.methods)
            try:
                self.methods[own] = McpMethod(self, own, tool, link)
            except SchemaError as error:
                log.get("mcp").warning("mcp_tool_left_out", tool=tool.name, why=error.message)
        if not self.methods:
            raise McpServerUnusable(
                f"no tool of {link.where} has a schema that can be read", server=link.where, reason="schemas"
            )
        told = repr([(one.name, one.input_schema, one.output_schema) for one in link.tools])
        self.version = version_of(told)


class McpMethod(Method):
    """A tool of an adopted server."""

    def __init__(self, owner: McpServer, name: str, tool: Tool, link: Link) -> None:
        where = f"{owner.name}.{name}"

        async def call(_agent: Any, /, **arguments: Any) -> Any:
            return await link.call(tool.name, arguments, where)

        call.__doc__ = tool.description or tool.title or ""
        super().__init__(owner.name, name, call, _directives(owner.directives, tool), owner)
        self.original = "" if tool.name == name else tool.name
        self._signature = SchemaSignature(where, tool.input_schema, tool.output_schema)

    @functools.cached_property
    def signature(self) -> SchemaSignature:
        """Made from the tool's own schemas."""
        return self._signature


def _directives(base: Directives, tool: Tool) -> Directives:
    said = tool.annotations
    if said is None or not (said.read_only_hint or said.idempotent_hint):
        return base
    return Directives(timeout=base.timeout, idempotent=True, retries=_AGAIN)


def _title(link: Link) -> str:
    return link.server.name if link.server is not None else link.where


class Adopted:
    """The MCP servers that a host adopts.

    Args:
        servers: command lines or addresses, each perhaps with ``NAME=`` before it.
        pass_on: names of environment variables that their processes get.
        timeout: seconds that a call may take.
    """

    def __init__(self, servers: Sequence[str], pass_on: Sequence[str] = (), timeout: float = 300.0) -> None:
        given = {name: os.environ[name] for name in pass_on if name in os.environ}
        self._timeout = timeout
        self._links = [(name, Link(where, given)) for name, where in map(_split, servers)]
        self.declarations: list[McpServer] = []

    async def start(self) -> None:
        """Start and connect all of them.

        Raises:
            McpServerUnusable: one cannot be used; none is left running then.
        """
        started = await asyncio.gather(*(link.start() for _, link in self._links), return_exceptions=True)
        try:
            for failed in started:
                if failed is not None:
                    raise failed
            for name, link in self._links:
                own = name or actor_name(_title(link))
                if own in {declared.name for declared in self.declarations}:
                    raise McpServerUnusable(
                        f"two MCP servers are named {own!r}: give one another name, with NAME= before "
                        f"{link.where!r}",
                        server=link.where,
                        reason="name",
                    )
                self.declarations.append(McpServer(own, link, self._timeout))
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    async def stop(self) -> None:
        """End all of them. Idempotent."""
        await asyncio.gather(*(link.stop() for _, link in self._links))


def _split(given: str) -> tuple[str, str]:
    """The name and the place of a server."""
    named = _NAMED.fullmatch(given.strip())
    return (named[1], named[2].strip()) if named else ("", given.strip())


def actor_name(title: str) -> str:
    """The name of a server as that of an actor: ``mcp-time`` is ``time``."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", title).strip("_")
    for part in ("mcp_server_", "mcp_"):
        name = name.removeprefix(part)
    for part in ("_mcp_server", "_server", "_mcp"):
        name = name.removesuffix(part)
    return name or "mcp"
