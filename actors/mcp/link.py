"""One MCP server: its process or its address, the session with it, and a new one when that is lost."""

from __future__ import annotations

import asyncio
import logging
import re
import shlex
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as types
from mcp.client.streamable_http import streamable_http_client
from pydantic import ValidationError

from callboard.infra import log
from callboard.infra.errors import (
    InvalidArguments,
    InvalidResult,
    McpServerLost,
    McpServerUnusable,
    ToolFailed,
)
from callboard.infra.kept import tied
from callboard.infra.urls import shown
from mcp import Client, MCPError, StdioServerParameters, stdio_client

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

logging.getLogger("mcp.client.stdio").setLevel(logging.CRITICAL)  # told as `mcp_rubbish`, in one line

_HTTP = ("http://", "https://")
_NO_SESSION = re.compile(
    r"session (id|not found|terminated|expired)|(unknown|invalid|no valid) session", re.IGNORECASE
)
"""How servers at an address say that they have begun anew, before anything was called."""
_REFUSED = frozenset({types.INVALID_REQUEST, -32000, -32001})
_CONNECT = 30.0
_WAIT = 10.0
_FIRST, _LAST = 0.1, 30.0
_STEADY = 30.0
_PAGES = 1000


class Link:
    """A session with one MCP server, and the next one when it is lost.

    Args:
        where: a command line, or an ``http(s)`` address of the streamable HTTP transport.
        environment: variables that the server's process gets beside the harmless ones of the SDK.
    """

    def __init__(self, where: str, environment: dict[str, str] | None = None) -> None:
        self.where = shown(where) if where.startswith(_HTTP) else where
        self._address = where
        self.tools: list[types.Tool] = []
        self.server: types.Implementation | None = None
        self._environment = environment or {}
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._lost = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._log = log.get("mcp").bind(server=self.where)

    @property
    def remote(self) -> bool:
        """Whether it has an address, and no process here."""
        return self._address.startswith(_HTTP)

    # -- lifecycle ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, and learn its tools.

        Raises:
            McpServerUnusable: it cannot be started or reached, or has no tools.
        """
        self._command()  # a wrong one is told at once
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._keeping = asyncio.create_task(self._keep(first))
        try:
            await first
        except McpServerUnusable:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the session, and the server's process. Idempotent."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.wait([keeping])

    async def _keep(self, first: asyncio.Future[None]) -> None:
        delay = _FIRST
        while True:
            began = time.monotonic()
            why = "it ended"
            try:
                await self._serve(first)
            except Exception as error:  # noqa: BLE001 - whatever a server or the SDK comes up with
                why = _told(error)
            finally:
                self._lose()
            if not first.done():
                reason = f"{self.where} cannot be adopted: {why}"
                first.set_exception(McpServerUnusable(reason, server=self.where, reason=why))
                return
            delay = _FIRST if time.monotonic() - began > _STEADY else min(_LAST, delay * 2)
            self._log.warning("mcp_server_lost", why=why, again_in_s=round(delay, 1))
            await asyncio.sleep(delay)

    async def _serve(self, first: asyncio.Future[None]) -> None:
        """One session, until it is lost."""
        self._lost.clear()
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(_CONNECT):
                client = await stack.enter_async_context(Client(self._streams()))
                tools = await _all_tools(client)
            if not tools:
                raise McpServerUnusable("it has no tools", server=self.where, reason="no_tools")
            if self.tools and _names(tools) != _names(self.tools):
                self._log.warning("mcp_tools_changed", fix="start the host again to announce them")
            self.tools = self.tools or tools
            self.server = client.server_info
            self._client = client
            self._up.set()
            if not first.done():
                first.set_result(None)
            await self._lost.wait()

    # -- the transport -----------------------------------------------------------------------------

    def _command(self) -> list[str]:
        if self.remote:
            return []
        try:
            command = shlex.split(self.where)
        except ValueError as error:
            raise McpServerUnusable(
                f"{self.where!r} is no command line: {error}", server=self.where, reason="command"
            ) from error
        if not command or shutil.which(command[0]) is None:
            name = command[0] if command else ""
            raise McpServerUnusable(
                f"there is no command {name!r} to start an MCP server with: give its path, or set PATH",
                server=self.where,
                reason="command",
            )
        return command

    @asynccontextmanager
    async def _streams(self) -> AsyncIterator[TransportStreams]:
        """The SDK's transport, with an eye on its end and on lines that are no messages."""
        if self.remote:
            transport = streamable_http_client(self._address)
        else:
            program, *arguments = tied(self._command())
            transport = stdio_client(
                StdioServerParameters(
                    command=program,
                    args=arguments,
                    env=self._environment or None,
                    encoding_error_handler="replace",  # rubbish must not end the session
                )
            )
        async with transport as (read, write):
            send, receive = anyio.create_memory_object_stream[Any](0)
            forwarding = asyncio.create_task(self._forward(read, send))
            try:
                yield receive, write
            finally:
                forwarding.cancel()
                await asyncio.wait([forwarding])
                send.close()
                receive.close()

    async def _forward(self, read: Any, send: Any) -> None:
        try:
            async with send:
                async for message in read:
                    if isinstance(message, Exception):
                        self._log.warning("mcp_rubbish", what=" ".join(str(message).split())[:300])
                        continue
                    await send.send(message)
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass  # our own end
        finally:
            self._lose()

    def _lose(self) -> None:
        """From now on calls wait for the next session."""
        self._client = None
        self._up.clear()
        self._lost.set()

    # -- calls -------------------------------------------------------------------------------------

    async def call(self, tool: str, arguments: dict[str, Any], where: str) -> Any:
        """Call a tool; cancelling it tells the server.

        Args:
            tool: its name at the server; where: ``actor.method``, for errors.

        Returns:
            the structured content, if the tool says what that is; else the text, or all blocks of content
            as dicts if one of them is something else.

        Raises:
            ToolFailed: the tool says so; InvalidArguments: the server finds the arguments wrong.
            InvalidResult: the result does not fit the tool's schema.
            McpServerLost: the server has gone; it may be called again.
        """
        actor, _, method = where.partition(".")
        lost = McpServerLost(
            f"{where}: the MCP server {self.where} was lost; it is started again, so call again",
            actor=actor,
            method=method,
        )
        client = await self._ready(lost)
        try:
            result = await client.call_tool(tool, arguments)
        except MCPError as error:
            if self._gone(client) or error.code == types.CONNECTION_CLOSED:
                raise lost from error
            if self._forgot(error):
                self._lose()
                raise lost from error
            if error.code == types.INVALID_PARAMS:
                raise InvalidArguments(f"{where}: {error}", actor=actor, method=method) from error
            raise ToolFailed(f"{where}: {error}", actor=actor, method=method) from error
        except RuntimeError as error:  # how the SDK says that a result does not fit its schema
            if self._gone(client):
                raise lost from error
            raise InvalidResult(f"{where}: {error}", actor=actor, method=method) from error
        except ValidationError as error:  # the tool has run: it must not be called again for that
            first = error.errors()[0]
            told = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            text = f"{where}: the server's result is none that the protocol knows: {told}"
            raise InvalidResult(text, actor=actor, method=method) from error
        except Exception as error:
            self._lose()
            raise lost from error
        if result.is_error:
            raise ToolFailed(f"{where}: {_text(result.content)}", actor=actor, method=method)
        return _value(result)

    def _forgot(self, error: MCPError) -> bool:
        """Whether a server at an address has begun anew, and knows no session of before."""
        return self.remote and error.code in _REFUSED and _NO_SESSION.search(str(error)) is not None

    def _gone(self, client: Client) -> bool:
        return self._lost.is_set() or self._client is not client

    async def _ready(self, lost: McpServerLost) -> Client:
        if self._client is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_WAIT):
                    await self._up.wait()
        if self._client is None:
            raise lost
        return self._client


async def _all_tools(client: Client) -> list[types.Tool]:
    tools: list[types.Tool] = []
    cursor: str | None = None
    for _ in range(_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            break
    return tools


def _names(tools: Sequence[types.Tool]) -> list[str]:
    return sorted(tool.name for tool in tools)


def _value(result: types.CallToolResult) -> Any:
    if result.structured_content is not None:
        return result.structured_content
    if all(isinstance(block, types.TextContent) for block in result.content):
        return _text(result.content)
    return [block.model_dump(mode="json", by_alias=True, exclude_none=True) for block in result.content]


def _text(content: Sequence[types.ContentBlock]) -> str:
    return "\n".join(block.text for block in content if isinstance(block, types.TextContent))


def _told(error: BaseException) -> str:
    """The innermost of what the SDK wraps in groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, TimeoutError):
        return f"it did not answer within {_CONNECT:g} s"
    return str(error) or type(error).__name__
