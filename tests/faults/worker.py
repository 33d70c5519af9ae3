"""One host process of the fault suite: ``worker.py URL NAME...`` runs these declarations of the suite.

``worker.py URL gateway`` runs a gateway.

Prints ``ready <host id>`` once it works and ``stopped`` once it has drained after SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

import uvloop
from tests.faults import accounts, app, chats, mortal, tills

from callboard.actors.declared import declaration
from callboard.actors.gateway import Gateway
from callboard.actors.host import Host
from callboard.infra import log
from callboard.infra.errors import CallboardError, ConnectionLost
from callboard.infra.settings import Settings

LOST = 3
"""Exit code when the connection is closed for good."""
REFUSED = 4
"""Exit code when the host cannot start."""


def tell_state(host: Host) -> None:
    """Log what it holds and waits for: the test asks for it when something is stuck."""
    state: dict[str, object] = {"outstanding": host.node.store.outstanding}
    for member in host.instances():
        state[member.name] = {
            "busy": member.info().busy,
            "running": [f"{future}~{attempt}" for future, attempt in getattr(member, "running", {})],
            "mailbox": len(getattr(member, "mailbox", ())),
            "pulls": {pull.consumer: (list(pull.held), pull.asked) for pull in member.pulls},
        }
    state["open"] = {
        m.context.parent or m.context.run: list(m.open)[:5] for m in host.caller.makers if m.open
    }
    log.get("worker").warning("state", **state)


def set_clock() -> None:
    """Set this process's clock, as an operator or NTP does, by ``$FAULTS_CLOCK`` seconds."""
    real = time.time
    by = float(os.environ.get("FAULTS_CLOCK", "0"))
    time.time = lambda: real() + by
    log.get("worker").warning("clock_set", seconds=by)


def say(text: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def gateway(url: str) -> int:
    """Run a gateway until SIGTERM."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with Gateway(Settings.load(nats_url=url), wait=1.0) as served:
        say(f"ready {served.id}")
        await told.wait()
    say("stopped")
    return 0


def _found(name: str) -> Any:
    """What is declared under this name in one of the suite's modules."""
    return next(
        getattr(module, name) for module in (accounts, tills, chats, mortal, app) if hasattr(module, name)
    )


async def main(url: str, names: list[str]) -> int:
    """Run a host until SIGTERM, or until its connection is closed for good."""
    found = [declaration(_found(name)) for name in names]
    if "Till" in names:
        tills.arm()
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
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell_state, host)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, set_clock)
    say(f"ready {host.id}")
    waits = [asyncio.ensure_future(wait) for wait in (told.wait(), lost.wait(), host.stopped())]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    if lost.is_set():
        return LOST
    await host.stop()
    say("stopped")
    return 0


if __name__ == "__main__":
    log.configure("debug", json=True)
    address, *wanted = sys.argv[1:]
    sys.exit(uvloop.run(gateway(address) if wanted == ["gateway"] else main(address, wanted)))
