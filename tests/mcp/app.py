"""What calls the tools of adopted servers, and what is offered to clients, in the tests of MCP."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from callboard import mcp_tools, tool, workflow


@workflow
async def call(server: str, name: str, arguments: dict[str, Any]) -> Any:
    """Call one tool of a server."""
    return await getattr(mcp_tools(server), name)(**arguments)


@workflow
async def by_position(server: str, name: str) -> Any:
    """Call a tool as nobody can who does not know its parameters."""
    return await getattr(mcp_tools(server), name)("UTC")


@tool
async def double(n: int) -> int:
    """Twice as much."""
    return 2 * n


@tool
async def hold(note: str) -> str:
    """Wait until cancelled, and tell of it."""
    await asyncio.to_thread(_tell, note, "holds")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        _tell(note, "let go")
        raise
    return ""


def _tell(note: str, what: str) -> None:
    with Path(note).open("a") as notes:
        notes.write(f"{what}\n")


@workflow
async def doubled(numbers: list[int]) -> int:
    """The sum of all numbers, each doubled."""
    total = 0
    for n in numbers:
        total += await double(n)
    return total


@workflow
async def held(note: str) -> str:
    """Wait for what does not come."""
    return await hold(note)
