"""An MCP server whose tools are the tools and workflows of a board."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Collection
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import anyio
import mcp_types as types
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

from callboard.actors import registry
from callboard.actors.client import Client
from callboard.actors.mcp.offers import Offer, offers
from callboard.infra import log
from callboard.infra.errors import CallboardError, RunFailed, ServerStartFailed
from mcp import MCPError

_LOOPBACK = "127.0.0.1"

Context = ServerRequestContext[Any]


def listening(port: int) -> socket.socket:
    """A socket of the loopback interface.

    Raises:
        ServerStartFailed: nobody can listen there.
    """
    try:
        return socket.create_server((_LOOPBACK, port))
    except OSError as error:
        why = os.strerror(error.errno or 0)
        text = f"MCP clients cannot be answered at {_LOOPBACK}:{port}: {why}; name another port"
        raise ServerStartFailed(text) from error


class BoardServer:
    """Answers MCP clients: each call of a tool is a run.

    Args:
        client: of the board, open.
        chosen: names of actors and workflows to offer; none for all tools and workflows.
    """

    def __init__(self, client: Client, chosen: Collection[str]) -> None:
        self._client = client
        self._chosen = chosen
        self._log = log.get("mcp")
        self._server: Server[Any] = Server(
            "callboard", version=version("callboard"), on_list_tools=self._list, on_call_tool=self._call
        )

    async def check(self) -> None:
        """See whether there is what was chosen.

        Raises:
            UnknownActor: there is not.
        """
        await self._offers()

    async def over_stdio(self) -> None:
        """Serve the one client on standard input and output, until it closes them."""
        async with stdio_server() as (read, write):
            await self._server.run(read, write, self._server.create_initialization_options())

    async def over_http(self, at: socket.socket) -> None:
        """Serve clients of the streamable HTTP transport, at ``/mcp``, until this is cancelled."""
        import uvicorn

        app = self._server.streamable_http_app(host=_LOOPBACK)
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        server.capture_signals = nullcontext  # type: ignore[assignment,method-assign] # they are the process's own
        running = asyncio.ensure_future(server.serve([at]))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            server.should_exit = True
            await asyncio.wait([running])
            raise

    # -- what clients ask --------------------------------------------------------------------------

    async def _offers(self) -> dict[str, Offer]:
        return offers(await registry.actors(self._client.node), self._chosen)

    async def _list(self, context: Context, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[offer.tool for offer in (await self._offers()).values()])

    async def _call(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        offer = (await self._offers()).get(params.name)
        if offer is None:
            raise MCPError(types.INVALID_PARAMS, f"there is no tool {params.name!r} on this board")
        try:
            return await self._run(context, offer, params.arguments or {})
        except RunFailed as error:
            return _failed(str(error.__cause__ or error))
        except CallboardError as error:
            return _failed(error.message)

    async def _run(self, context: Context, offer: Offer, arguments: dict[str, Any]) -> types.CallToolResult:
        run = await self._client.submit(offer.workflow, offer.request(arguments), as_json=True)
        self._log.info("mcp_called", tool=offer.tool.name, run=run)
        progress = asyncio.create_task(self._progress(context, run)) if _wants_progress(context) else None
        try:
            value = await self._client.result(run)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self._client.cancel(run, "cancelled by its MCP client")
            raise
        finally:
            if progress is not None:
                await self._end_progress(progress)
        return _succeeded(offer, value)

    async def _progress(self, context: Context, run: str) -> None:
        """Tell of each future that has finished."""
        finished = 0
        async for event in self._client.events(run):
            if event.kind == "result":
                finished += 1
                await context.session.report_progress(finished, None, str(event.data.get("call", "")) or None)

    async def _end_progress(self, progress: asyncio.Task[None]) -> None:
        """What has happened is told before the result, or not at all."""
        try:
            await asyncio.wait([progress], timeout=1.0)
        finally:
            progress.cancel()
        if progress.done() and not progress.cancelled() and (error := progress.exception()) is not None:
            self._log.warning("mcp_progress_not_told", reason=str(error) or type(error).__name__)


def _wants_progress(context: Context) -> bool:
    return context.meta is not None and context.meta.get("progress_token") is not None


def _succeeded(offer: Offer, value: Any) -> types.CallToolResult:
    plain = msgspec.to_builtins(value, str_keys=True)
    text = plain if isinstance(plain, str) else msgspec.json.encode(plain).decode()
    structured = plain if offer.tool.output_schema is not None else None
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=structured)


def _failed(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)
