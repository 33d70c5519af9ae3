"""``callboard mcp``, and the MCP servers that ``callboard host`` adopts."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cyclopts import App

from callboard.cli.common import DEFAULTS, Common, Port
from callboard.cli.exits import UsageError

if TYPE_CHECKING:
    from callboard.actors.mcp.adopt import Adopted

app = App(name="mcp", help="Offer tools and workflows to MCP clients.", result_action="return_value")

_EXTRA = "this needs the package 'mcp', which is not installed: install Callboard with its extra 'mcp'"


def adopting(servers: Sequence[str], pass_on: Sequence[str], timeout: float) -> Adopted:
    """The MCP servers that a host is to adopt.

    Raises:
        UsageError: the extra is not installed, or the timeout is none.
    """
    if timeout <= 0:
        raise UsageError(f"--mcp-timeout must be above 0, not {timeout:g}")
    _need_extra()
    from callboard.actors.mcp.adopt import Adopted

    return Adopted(servers, pass_on, timeout)


def _need_extra() -> None:
    if find_spec("mcp") is None:
        raise UsageError(_EXTRA)


@app.command
def serve(
    *names: str,
    http: Port = 0,
    common: Common = DEFAULTS,
) -> int:
    """Offer tools and workflows to MCP clients, on standard input and output.

    A call of a tool is a run: the client hears of each future that has finished, and cancels the run by
    cancelling its call, or by going away. 'callboard runs' lists them. Logs go to stderr.

        callboard mcp serve
        callboard mcp serve research prices StockAnalyst
        callboard mcp serve --http 8931

    Args:
        names: What to offer: tools, workflows, and agents, of which all methods are offered. By default all
            tools and workflows.
        http: Serve http://127.0.0.1:PORT/mcp instead (streamable HTTP), to clients on this machine.
    """
    common.log("warning")
    _need_extra()
    from callboard.cli.serving import run_loop, serve_mcp

    def on_ready() -> None:
        if http:
            url = f"http://127.0.0.1:{http}/mcp"
            common.output.line({"event": "mcp_ready", "url": url}, f"answering MCP clients on {url}")

    return run_loop(serve_mcp(common.settings(), names, http, on_ready))
