"""``callboard host``: run actors and drive workflows in this process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit

if TYPE_CHECKING:
    from callboard.actors.declare import Declaration
    from callboard.infra.errors import ConnectionLost
    from callboard.infra.settings import Settings


def host(
    *app: str,
    grace: Annotated[float | None, Parameter(help="Seconds that running calls get on draining.")] = None,
    common: Common = DEFAULTS,
) -> int:
    """Run the actors and workflows of an application.

    Ends gently on SIGTERM and Ctrl-C: takes nothing new, gives back what has not started, finishes what
    has. A second Ctrl-C ends it at once.

    Examples:
        callboard host app.py --nats nats://10.0.0.1:4222

        callboard host app.py:StockAnalyst,prices

        callboard host shop.agents shop.tools:search

    Args:
        app: file or module, then optionally ':' and names of actors.
    """
    common.log("info")
    settings = common.settings(grace=grace)
    from callboard.actors.app import load_all

    leave(run_loop(serve(load_all(app), settings, common)))


def run_loop(work: Coroutine[Any, Any, int]) -> int:
    """Run on the fastest event loop there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)
