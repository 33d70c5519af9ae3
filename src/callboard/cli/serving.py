"""Running a host or a gateway in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from callboard.actors.host import Host
from callboard.actors.local import leave_to_board
from callboard.actors.resources import Placed
from callboard.cli.exits import Exit, end_within
from callboard.infra.errors import ConnectionLost
from callboard.infra.settings import Settings

if TYPE_CHECKING:
    from callboard.actors.emulator.server import EmulatorApp
    from callboard.actors.gateway import Gateway
    from callboard.actors.mcp.adopt import Adopted
    from callboard.controller.controller import Controller
    from callboard.controller.provisioning.port import Provisioner

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
    adopted: Adopted | None = None,
    *,
    provisioned: bool = False,
    name: str = "",
) -> int:
    """Run a host until it is told to stop; returns the exit code.

    Args:
        placed: what it runs; on_ready: called once it works.
        adopted: the MCP servers that it runs, too. provisioned: a controller minds this process.
        name: of the host, that stays.
        stop: set to make it drain; SIGTERM and SIGINT do so too. While it starts it ends at once.

    Raises:
        ConnectionLost: the connection is closed for good.
    """
    leave_to_board()
    end = _End(stop)
    if adopted is not None and not await end.comes_after(adopted.start()):
        return Exit.OK
    declarations = [*placed.served, *(adopted.declarations if adopted is not None else ())]
    host = Host(declarations, settings, end.on_lost, placed.left_out, provisioned=provisioned, name=name)
    code = Exit.NO_SERVER
    try:
        if await end.comes_after(host.start()):
            host.startup = _lived()
            on_ready(host)
            await end.comes(asyncio.ensure_future(host.stopped()))  # it may be drained from afar
        await host.stop()
        code = Exit.OK
    finally:
        end_within(_LINGER, code)
        if adopted is not None:  # what has not ended by then ends with this process
            await adopted.stop()
    return code


def _lived() -> float:
    """Seconds since this process was started."""
    import psutil

    born = psutil.Process().create_time()
    if sys.platform == "linux":  # which counts from the boot, whose time is known to a second only
        lived = time.clock_gettime(time.CLOCK_BOOTTIME) - (born - psutil.boot_time())
    else:
        lived = time.time() - born
    return round(max(0.0, lived), 3)


async def serve_gateway(
    settings: Settings, wait: float, on_ready: Callable[[Gateway], None], stop: asyncio.Event | None = None
) -> int:
    """Run a gateway until it is told to stop; returns the exit code.

    Args:
        on_ready: called once it answers.
        stop: set to make it drain; SIGTERM and SIGINT do so too. While it starts it ends at once.

    Raises:
        ConnectionLost: the connection is closed for good.
    """
    from callboard.actors.gateway import Gateway

    end = _End(stop)
    running = Gateway(settings, end.on_lost, wait=wait)
    if await end.comes_after(running.start()):
        on_ready(running)
        await running.serve(end.told)
    return Exit.OK


async def serve_controller(
    settings: Settings,
    on_ready: Callable[[Controller], None],
    stop: asyncio.Event | None = None,
    policies: Sequence[str] = (),
    provisioner: Provisioner | None = None,
) -> int:
    """Run a controller until it is told to stop; returns the exit code.

    Args:
        on_ready: called once it has built its view.
        stop: set to make it end; SIGTERM and SIGINT do so too.
        policies: to follow as long as nobody has chosen others.
        provisioner: starts and ends hosts while this controller leads.

    Raises:
        ConnectionLost: the connection is closed for good.
        ProvisionerUnusable: hosts cannot be started and ended as asked for.
    """
    from callboard.controller.controller import Controller

    end = _End(stop)
    running = Controller(settings, end.on_lost, policies, provisioner)
    try:
        if await end.comes_after(running.start()):
            on_ready(running)
            await end.comes(asyncio.get_running_loop().create_future())
    finally:
        await running.stop()
    return Exit.OK


async def serve_mcp(
    settings: Settings, chosen: Sequence[str], port: int, on_ready: Callable[[], None]
) -> int:
    """Answer MCP clients until told to stop, or until the one on standard input goes; returns the exit code.

    Args:
        chosen: names of actors and workflows to offer; none for all tools and workflows.
        port: of the loopback interface; 0 for standard input and output.
        on_ready: called once clients can be answered.

    Raises:
        ConnectionLost: the connection is closed for good.
        UnknownActor: nothing of a chosen name is on the board.
        ServerStartFailed: nobody can listen at the port.
    """
    from callboard.actors.client import Client
    from callboard.actors.mcp.calls import mcp_call
    from callboard.actors.mcp.server import BoardServer, listening

    at = listening(port) if port else None
    end = _End(None)
    host = Host([mcp_call], settings, end.on_lost)
    code = Exit.NO_SERVER
    try:
        if await end.comes_after(host.start()):
            async with Client(settings) as client:
                server = BoardServer(client, chosen)
                await server.check()
                on_ready()
                serving = asyncio.ensure_future(server.over_stdio() if at is None else server.over_http(at))
                await end.comes(serving)
                serving.cancel()
                await asyncio.wait([serving], timeout=_LINGER)  # a read of standard input cannot be stopped
        await host.stop()
        code = Exit.OK
    finally:
        end_within(_LINGER, code)
    return code


async def serve_emulator(emulated: EmulatorApp, host: str, port: int, on_ready: Callable[[str], None]) -> int:
    """Emulate an engine until told to stop; returns the exit code.

    Args:
        host: address to listen at; port: 0: any.
        on_ready: called with its URL once it answers.

    Raises:
        ServerStartFailed: nobody can listen there.
    """
    from callboard.actors.emulator.serving import serving

    end = _End(None)
    async with serving(emulated, port, host) as url:
        on_ready(url)
        await end.told.wait()
    return Exit.OK


class _End:
    """The end of this process: it is told to, or its connection is closed for good.

    Attributes:
        told: set by then.
    """

    def __init__(self, told: asyncio.Event | None) -> None:
        self.told = told or asyncio.Event()
        self._lost: ConnectionLost | None = None
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.told.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)

    def _interrupt(self) -> None:
        if self.told.is_set():
            os._exit(Exit.INTERRUPTED)
        self.told.set()

    async def on_lost(self, error: ConnectionLost) -> None:
        """The connection is closed for good."""
        self._lost = error
        self.told.set()

    async def comes(self, other: asyncio.Future[None]) -> None:
        """Wait for it, or for something else.

        Raises:
            ConnectionLost: the connection is closed for good.
        """
        await self._or(other)
        if self._lost is not None:
            raise self._lost

    async def comes_after(self, start: Coroutine[Any, Any, None]) -> bool:
        """Start, unless the end comes first; returns whether it has started.

        A start is given little time to undo what it did: nothing of it is finished yet.

        Raises:
            ConnectionLost: the connection is closed for good; what the start raises.
        """
        starting = asyncio.ensure_future(start)
        await self._or(starting)
        if not starting.done():
            end_within(_LINGER, Exit.NO_SERVER if self._lost else Exit.OK)
            starting.cancel()
            await asyncio.wait([starting])
        failed = None if starting.cancelled() else starting.exception()
        if self._lost is not None:
            raise self._lost from failed
        if failed is not None:
            raise failed
        return not starting.cancelled()

    async def _or(self, other: asyncio.Future[None]) -> None:
        told = asyncio.ensure_future(self.told.wait())
        await asyncio.wait((told, other), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
