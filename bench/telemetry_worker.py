"""A host with a switch for its telemetry, SIGUSR1: `python -m bench.telemetry_worker URL [TOOL...]`.

Tools are names in `bench/app.py`; without any it is `noop`.

Two hosts, one with it and one without, differ by more than telemetry costs.
"""

import asyncio
import itertools
import signal
import sys

import uvloop

from bench import app
from callboard.actors.declared import declaration
from callboard.actors.host import Host


async def main(url: str, *tools: str) -> None:
    """Serve until told to stop."""
    declared = [declaration(getattr(app, name)) for name in tools or ("noop",)]
    host = Host([one for one in declared if one is not None], url)
    await host.start()
    every = host.telemetry.every

    turns = itertools.count(1)

    def turn() -> None:
        host.telemetry.every = every - host.telemetry.every
        print(f"turned {next(turns)}.", flush=True)

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, turn)
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    print("ready", flush=True)
    await ended.wait()
    await host.stop()


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
