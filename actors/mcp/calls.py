"""The workflow in whose runs MCP clients call single tools."""

from __future__ import annotations

from typing import Any

from callboard.actors.declare import workflow
from callboard.actors.mcp.tools import mcp_tools

NAME = "mcp_call"


@workflow(name=NAME)
async def mcp_call(actor: str, method: str, arguments: dict[str, Any]) -> Any:
    """Call one method of an actor, for an MCP client: driven by ``callboard mcp serve``."""
    return await getattr(mcp_tools(actor), method)(**arguments)
