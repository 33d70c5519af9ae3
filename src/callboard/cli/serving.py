"""Running a host in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from callboard.actors.declare import Declaration
from callboard.actors.host import Host
from callboard.cli.exits import Exit, end_within
from callboard.infra.errors import ConnectionLost
from callboard.infra.settings import Settings

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
    declarations: Sequence[Declaration],
    settings: Settings,
    on_ready: Callable[[Host], None],
    stop: asyncio.Event | None = None,
) -> int:
    """Run a host until it is told to stop; returns the exit code.

    Args:
        on_ready: called once it works.
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

    host = Host(declarations, settings, on_lost)
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


def _drain_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if stop.is_set():
            os._exit(Exit.INTERRUPTED)
        stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupt)
