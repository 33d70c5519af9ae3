"""One host process of the fault suite: ``worker.py URL NAME...`` runs these declarations of `app`.

Prints ``ready <host id>`` once it works and ``stopped`` once it has drained after SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop
from tests.faults import app

from callboard.actors.declare import declaration
from callboard.actors.host import Host
from callboard.infra import log
from callboard.infra.errors import CallboardError, ConnectionLost
from callboard.infra.settings import Settings

LOST = 3
"""Exit code when the connection is closed for good."""
REFUSED = 4
"""Exit code when the host cannot start."""


def say(text: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def main(url: str, names: list[str]) -> int:
    """Run a host until SIGTERM, or until its connection is closed for good."""
    found = [declaration(getattr(app, name)) for name in names]
    lost = asyncio.Event()

    async def on_lost(_: ConnectionLost) -> None:
        lost.set()

    host = Host([one for one in found if one is not None], Settings.load(nats_url=url), on_lost)
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    try:
        await host.start()
    except CallboardError as error:
        log.get("worker").error("not_started", exc_info=error)
        return REFUSED
    say(f"ready {host.id}")
    waits = [asyncio.ensure_future(event.wait()) for event in (told, lost)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if lost.is_set():
        return LOST
    await host.stop()
    say("stopped")
    return 0


if __name__ == "__main__":
    log.configure("debug", json=True)
    sys.exit(uvloop.run(main(sys.argv[1], sys.argv[2:])))
