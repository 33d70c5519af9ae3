"""So many hosts in one process, each as any other: `python -m bench.many_hosts URL COUNT`.

Each enters in the ledger which session's priority it has put into effect, and when.
"""

import asyncio
import signal
import sys

import uvloop

from bench import app, jobs
from callboard.actors.declared import declaration
from callboard.actors.host import Host

ENFORCED = "enforced"


class Telling(Host):
    """A host that tells when it has followed a decision."""

    def _reorder(self, sessions: set[str]) -> None:
        super()._reorder(sessions)
        for session in sessions:
            jobs.record(f"{session}@{self.id}", ENFORCED)


async def main(url: str, count: int) -> None:
    """Serve until told to stop."""
    declared = declaration(app.noop)
    assert declared is not None
    hosts = [Telling([declared], url) for _ in range(count)]
    for host in hosts:
        await host.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    print("ready", flush=True)
    await ended.wait()
    await asyncio.gather(*(host.stop(grace=0.0) for host in hosts))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
