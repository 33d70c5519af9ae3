"""``callboard up``: a NATS server and nothing else."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from callboard.cli.common import DEFAULTS, Common, Port
from callboard.cli.exits import UsageError
from callboard.infra.errors import ServerStartFailed

if TYPE_CHECKING:
    from callboard.infra.server import EmbeddedServer

USUAL_PORT = 4222


def up(
    *,
    port: Port | None = None,
    store: Path | None = None,
    durability: Literal["development", "production"] | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Run a NATS server with JetStream, for hosts and clients on this machine.

    For other machines, and for production with more than one server, run a NATS cluster and give its
    address with --nats or NATS_URL.

        callboard up --store ./data --durability production

    Args:
        port: Where it listens on 127.0.0.1. By default 4222, or a free port if that is taken.
        store: Directory for its data. By default a temporary one, removed at the end.
        durability: 'production' syncs every write to disk before it is acknowledged.
    """
    if common.nats is not None:
        raise UsageError("--nats names a server that runs, but 'up' runs one of its own: leave it out")
    common.log("warning")
    settings = common.settings(durability=durability)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    server = start_server(port, store, sync_always=settings.production)
    try:
        tell_of(server, common, temporary=store is None)
        while server.running and not ended.wait(0.5):
            pass
        if not ended.is_set():
            raise ServerStartFailed("nats-server was ended by somebody else", reason="exited")
    finally:
        server.stop()
    return 0


def start_server(port: int | None, store: Path | None, *, sync_always: bool) -> EmbeddedServer:
    """Start a server on this port, or on the usual one, or on a free one.

    Raises:
        ServerStartFailed: see the error's text.
    """
    from callboard.infra.server import EmbeddedServer

    if port is None:
        usual = EmbeddedServer(store, USUAL_PORT, sync_always)
        try:
            usual.start()
        except ServerStartFailed as error:
            if error.fields.get("reason") != "port_taken":
                raise
        else:
            return usual
    server = EmbeddedServer(store, port, sync_always)
    server.start()
    return server


def tell_of(server: EmbeddedServer, common: Common, *, temporary: bool) -> None:
    """Print where the server is and what to type next."""
    output = common.output
    output.line(
        {"event": "server_ready", "url": server.url, "store": str(server.store_dir), "pid": server.pid},
        f"NATS server at [bold]{server.url}[/], data in {server.store_dir}"
        + (" (temporary: give --store DIR to keep it)" if temporary else ""),
    )
    option = nats_option(server.url)
    output.hint(f"next: callboard host app.py{option}    then: callboard run WORKFLOW{option}")


def nats_option(url: str) -> str:
    """What must be added to a command so that it finds this server; nothing for the usual address."""
    return "" if url == f"nats://127.0.0.1:{USUAL_PORT}" else f" --nats {url}"
