"""What runs on the leash of ``callboard dev``: it imports, tells what it found, works when told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from callboard.actors.declared import AgentClass
from callboard.actors.registry import describe
from callboard.actors.resources import place_app
from callboard.cli.common import Common
from callboard.cli.exits import Exit, end_within
from callboard.cli.serving import run_loop, serve, serve_controller, serve_gateway
from callboard.controller.dev import Broken, Leash, Loaded, Ready, own_files
from callboard.infra.errors import CallboardError
from callboard.infra.settings import Settings


class _Named(Protocol):
    """A host, gateway or controller."""

    @property
    def id(self) -> str:
        """Its name on the board."""


_AFTER_GRACE = 3.0
"""Seconds beyond its grace that a process gets whose supervisor is gone, and perhaps the server too."""


def supervised(
    app: Sequence[str],
    common: Common,
    grace: float | None,
    resources: dict[str, float] | None,
    kinds: Collection[str],
    *,
    provisioned: bool,
) -> int:
    """Run a host for a supervisor; returns the exit code."""
    leash = Leash()
    try:
        placed = place_app(app, common.settings(resources=resources), kinds, lenient=True)
        served, left_out = (list(map(describe, some)) for some in (placed.served, placed.left_out))
        apart = {one.name: one.apart for one in placed.apart if isinstance(one, AgentClass)}
        leash.say(Loaded(served, own_files(), left_out, apart))
    except CallboardError as error:
        leash.say(Broken(error.code, error.message, error.fields))
        return Exit.FAILED

    async def work(settings: Settings, on_ready: Callable[[_Named], None], stop: asyncio.Event) -> int:
        return await serve(placed, settings, on_ready, stop, provisioned=provisioned)

    return _when_told(leash, common, grace, work, resources)


def supervised_gateway(common: Common, wait: float, grace: float | None) -> int:
    """Run a gateway for a supervisor; returns the exit code."""
    leash = Leash()
    leash.say(Loaded([], []))
    return _when_told(leash, common, grace, lambda settings, *rest: serve_gateway(settings, wait, *rest))


def supervised_controller(common: Common, policies: Sequence[str]) -> int:
    """Run a controller for a supervisor; returns the exit code."""
    leash = Leash()
    leash.say(Loaded([], []))
    return _when_told(leash, common, None, partial(serve_controller, policies=policies))


def _when_told(
    leash: Leash,
    common: Common,
    grace: float | None,
    work: Callable[[Settings, Callable[[_Named], None], asyncio.Event], Coroutine[Any, Any, int]],
    resources: dict[str, float] | None = None,
) -> int:
    """Wait for the address of a server, then work until the supervisor lets go; returns the exit code."""
    address = leash.address()
    if not address:
        return Exit.OK
    settings = common.settings(grace=grace, nats_url=address, resources=resources)
    stop = asyncio.Event()

    def on_ready(one: _Named) -> None:
        leash.say(Ready(one.id))

    async def working() -> int:
        # Before anything runs: a first call may block the event loop before this process says that it works.
        _end_with(leash, settings, stop)
        return await work(settings, on_ready, stop)

    return run_loop(working())


def _end_with(leash: Leash, settings: Settings, stop: asyncio.Event) -> None:
    """From now on the supervisor's end is the end of this process."""
    loop = asyncio.get_running_loop()

    def let_go() -> None:
        end_within(settings.grace + _AFTER_GRACE, Exit.FAILED)
        with contextlib.suppress(RuntimeError):  # it has ended meanwhile
            loop.call_soon_threadsafe(stop.set)

    leash.when_let_go(let_go)
