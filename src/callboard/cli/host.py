"""``callboard host``: run actors and drive workflows in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common

if TYPE_CHECKING:
    from callboard.actors.host import Host


def host(
    *app: Annotated[str, Parameter(required=True)],
    grace: float | None = None,
    resource: Annotated[list[str] | None, Parameter(negative=())] = None,
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

    Args:
        app: A file or module, then optionally ':' and names of actors.
        grace: Seconds that running calls get to finish on draining.
        resource: What this host has, as gpu=2; may be given again. By default CALLBOARD_RESOURCES, and cpu
            and memory_gb of the machine. An actor that needs more is left out, unless it is named.
        supervised: Set by 'callboard dev' and 'callboard controller'.
    """
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

    return run_loop(serve(place_app(app, settings), settings, on_ready))
