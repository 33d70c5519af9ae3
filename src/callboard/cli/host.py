"""``callboard host``: run actors and drive workflows in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import UsageError

if TYPE_CHECKING:
    from callboard.actors.host import Host


def host(
    *app: str,
    grace: float | None = None,
    resource: Annotated[list[str] | None, Parameter(negative=())] = None,
    mcp: Annotated[list[str] | None, Parameter(negative=())] = None,
    mcp_env: Annotated[list[str] | None, Parameter(negative=())] = None,
    mcp_timeout: float = 300.0,
    supervised: Annotated[bool, Parameter(show=False)] = False,
    common: Common = DEFAULTS,
) -> int:
    """Run the actors and workflows of an application.

    It ends gently on SIGTERM and Ctrl-C: takes nothing new, gives back what has not started, finishes
    what has. A second Ctrl-C ends it at once.

        callboard host app.py --nats nats://10.0.0.1:4222
        callboard host app.py:StockAnalyst,prices
        callboard host shop.agents shop.tools:search
        callboard host shop.models --resource gpu=2 --resource memory_gb=64
        callboard host --mcp "python -m mcp_server_time" --mcp docs=https://tools.example.org/mcp

    Args:
        app: A file or module, then optionally ':' and names of actors.
        grace: Seconds that running calls get to finish on draining.
        resource: What this host has, as gpu=2; may be given again. By default CALLBOARD_RESOURCES, and cpu
            and memory_gb of the machine. An actor that needs more is left out, unless it is named.
        mcp: An MCP server whose tools become an actor: a command line, or an http(s) address; NAME= before it
            names the actor. May be given again, and without an application.
        mcp_env: An environment variable that MCP servers started here may see, such as an API key. By default
            they get PATH, HOME and the like only.
        mcp_timeout: Seconds that a call of a tool may take.
        supervised: Set by 'callboard dev' and 'callboard controller'.
    """
    if not app and not mcp:
        raise UsageError("there is nothing to host: name an application, or an MCP server with --mcp")
    common.log("info")
    from callboard.infra.settings import amounts

    has = amounts(resource) if resource else None
    if supervised:
        from callboard.cli.supervised import supervised as on_leash

        return on_leash(app, common, grace, has)
    from callboard.actors.resources import place_app
    from callboard.cli.serving import run_loop, serve

    settings = common.settings(grace=grace, resources=has)

    def on_ready(started: Host) -> None:
        actors = [declared.name for declared in started.declarations]
        common.output.line({"event": "host_ready", "host": started.id, "actors": actors}, "")

    placed = place_app(app, settings)
    if not mcp:
        return run_loop(serve(placed, settings, on_ready))
    from callboard.cli.mcp import adopting

    return run_loop(serve(placed, settings, on_ready, adopted=adopting(mcp, mcp_env or [], mcp_timeout)))
