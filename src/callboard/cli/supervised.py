"""A host on the leash of ``callboard dev``: it imports, tells what it found, and works when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from callboard.actors.app import load_all
from callboard.actors.host import Host
from callboard.actors.registry import describe
from callboard.cli.common import Common
from callboard.cli.exits import Exit, end_within
from callboard.cli.serving import run_loop, serve
from callboard.controller.dev import Broken, Leash, Loaded, Ready, own_files
from callboard.infra.errors import CallboardError

_AFTER_GRACE = 3.0
"""Seconds beyond its grace that a host gets whose supervisor is gone, and perhaps the server too."""


def supervised(app: Sequence[str], common: Common, grace: float | None) -> int:
    """Run a host for a supervisor; returns the exit code."""
    leash = Leash()
    try:
        declarations = load_all(app)
        leash.say(Loaded([describe(declared) for declared in declarations], own_files()))
    except CallboardError as error:
        leash.say(Broken(error.code, error.message, error.fields))
        return Exit.FAILED
    address = leash.address()
    if not address:
        return Exit.OK
    settings = common.settings(grace=grace, nats_url=address)
    stop = asyncio.Event()

    def on_ready(host: Host) -> None:
        leash.say(Ready(host.id))
        leash.when_let_go(let_go)

    def let_go() -> None:
        end_within(settings.grace + _AFTER_GRACE, Exit.FAILED)
        stop.set()

    return run_loop(serve(declarations, settings, on_ready, stop))
