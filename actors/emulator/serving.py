"""An emulated engine as a server of its own, at a port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Final

import uvicorn

from callboard.actors.emulator.engine import EmulatedEngine
from callboard.actors.emulator.server import EmulatorApp
from callboard.infra.errors import ServerStartFailed

LOOPBACK: Final = "127.0.0.1"
_BACKLOG: Final = 4096


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """They are the process's own."""
        yield


@contextlib.asynccontextmanager
async def serving(emulated: EmulatorApp, port: int = 0, host: str = LOOPBACK) -> AsyncIterator[str]:
    """Serve it within this block; gives the URL, up to and with ``/v1``.

    Args:
        port: 0: any; host: address to listen at.

    Raises:
        ServerStartFailed: nobody can listen there.
    """
    try:
        listening = socket.create_server((host, port), backlog=_BACKLOG)
    except OSError as error:
        raise ServerStartFailed(f"the emulator cannot listen at {host}:{port}: {error}") from error
    config = uvicorn.Config(
        emulated.app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    engine: EmulatedEngine = emulated.engine
    engine.start()
    running = asyncio.Task(server.serve([listening]), loop=asyncio.get_running_loop())
    try:
        yield f"http://{host}:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        await asyncio.wait([running])
        for connection in list(server.server_state.connections):  # whoever does not read keeps his open
            connection.transport.abort()
        await engine.close()
        listening.close()
