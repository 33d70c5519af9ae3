"""Running a host or a gateway in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from callboard.actors.host import Host
from callboard.actors.resources import Placed
from callboard.cli.exits import Exit, end_within
from callboard.infra.errors import ConnectionLost
from callboard.infra.settings import Settings

if TYPE_CHECKING:
    from callboard.actors.gateway import Gateway

_LINGER = 2.0
"""Seconds that the interpreter gets to end by itself after a drain; a stuck thread would hold it for ever."""


def run_loop(work: Coroutine[Any, Any, int]) -> int:
    """Run on the fastest event loop there is."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


async def serve(
    placed: Placed,
    settings: Settings,
    on_ready: Callable[[Host], None],
    stop: asyncio.Event | None = None,
) -> int:
    """Run a host until it is told to stop; returns the exit code.

    Args:
        placed: what it runs; on_ready: called once it works.
        stop: set to make it drain; SIGTERM and SIGINT do so too.

    Raises:
        ConnectionLost: the connection is closed for good.
    """
    stop = stop or asyncio.Event()
    _drain_on_signals(stop)
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def on_lost(error: ConnectionLost) -> None:
        if not lost.done():
            lost.set_exception(error)

    host = Host(placed.served, settings, on_lost, placed.left_out)
    code = Exit.NO_SERVER
    try:
        await host.start()
        on_ready(host)
        stopping = asyncio.create_task(stop.wait())
        stopped = asyncio.create_task(host.stopped())  # it may be drained from afar
        await asyncio.wait((lost, stopping, stopped), return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            lost.result()
        await host.stop()
        await stopped
        code = Exit.OK
    finally:
        end_within(_LINGER, code)
    return code


async def serve_gateway(
    settings: Settings, wait: float, on_ready: Callable[[Gateway], None], stop: asyncio.Event | None = None
) -> int:
    """Run a gateway until it is told to stop; returns the exit code.

    Args:
        on_ready: called once it answers.
        stop: set to make it drain; SIGTERM and SIGINT do so too.

    Raises:
        ConnectionLost: the connection is closed for good.
    """
    from callboard.actors.gateway import Gateway

    stop = stop or asyncio.Event()
    _drain_on_signals(stop)
    running = Gateway(settings, wait=wait)
    await running.start()
    on_ready(running)
    await running.serve(stop)
    return Exit.OK


def _drain_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if stop.is_set():
            os._exit(Exit.INTERRUPTED)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
