"""An MCP server that misbehaves as it is told; it notes down what happens to it.

Usage: ``odd_server.py NOTES``
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

NOTES = Path(sys.argv[1])
_PATH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "where": {"$ref": "#/definitions/Place"},
        "much-more": {"type": "integer", "minimum": 1},
    },
    "required": ["where"],
    "additionalProperties": False,
    "definitions": {"Place": {"type": "string", "pattern": "^[a-z]+$"}},
}
_NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
_SUM = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 2}},
    "required": ["a"],
}
_SUMMED = {"type": "object", "properties": {"sum": {"type": "integer"}}, "required": ["sum"]}


def note(what: str) -> None:
    """Write it down for the test."""
    with NOTES.open("a") as notes:
        notes.write(f"{what}\n")


async def listed(context: Any, params: Any) -> types.ListToolsResult:
    """Two pages."""
    if params is None or params.cursor is None:
        first = [
            types.Tool(name="get-path", description="Say it again.", input_schema=_PATH),
            types.Tool(name="add", input_schema=_SUM, output_schema=_SUMMED),
            types.Tool(name="import", input_schema=_NOTHING),
        ]
        return types.ListToolsResult(tools=first, next_cursor="more")
    names = ("hang", "refuse", "picture", "die", "secrets")
    return types.ListToolsResult(tools=[types.Tool(name=name, input_schema=_NOTHING) for name in names])


async def called(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Do what the tool's name says."""
    given = params.arguments or {}
    if params.name == "hang":
        note("hangs")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note("cancelled")
            raise
    if params.name == "refuse":
        return types.CallToolResult(content=[types.TextContent(text="not on a Sunday")], is_error=True)
    if params.name == "picture":
        return types.CallToolResult(content=[types.ImageContent(data="AAAA", mime_type="image/png")])
    if params.name == "die":
        note("dies")
        os.kill(os.getpid(), signal.SIGKILL)
    if params.name == "add":
        summed = {"sum": given["a"] + given.get("b", 2)}
        return types.CallToolResult(content=[], structured_content=summed)
    if params.name == "secrets":
        return types.CallToolResult(content=[types.TextContent(text=",".join(sorted(os.environ)))])
    return types.CallToolResult(content=[types.TextContent(text=f"{params.name}: {given}")])


def leave_another() -> None:
    """Start a process that would outlive a careless owner: the end of its input and SIGTERM are nothing to it."""
    left = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; exec sleep 60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    note(f"pid {left.pid}")


async def main() -> None:
    """Serve, after some rubbish on standard output."""
    note(f"pid {os.getpid()}")
    leave_another()
    wire = os.dup(1)
    os.write(wire, b'Welcome to the odd server!\n{"jsonrpc": 17}\n\xff\xfe\n')
    server: Server[Any] = Server("odd-mcp-server", on_list_tools=listed, on_call_tool=called)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(main())
