"""A board with runs on it that wait for a signal; what `wake_up` measures."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import msgspec

import callboard
from bench import app
from bench.accounting import by_part, memory_bytes
from bench.processes import Server, place, start_server
from callboard.actors.host import Host
from callboard.infra import subjects
from callboard.infra.settings import Settings

AT_ONCE = 2000
POLL_S = 0.1
STREAMS = ("REQUESTS", "CALLS", "RUNS", "KV_cb_runs", "KV_cb_inbox")


class Waiting:
    """Runs that wait.

    Args:
        client: connected; server: to which.
    """

    def __init__(self, client: callboard.Client, server: Server) -> None:
        self._client = client
        self._parts = {"server": [server.pid], "driver and client": [os.getpid()]}

    def memory(self) -> dict[str, float]:
        """Bytes of the processes: of the server, and of this one, which drives and asks."""
        return by_part(self._parts, memory_bytes)

    async def put_aside(self, count: int) -> list[str]:
        """Submit so many runs, and return when all of them are put aside."""
        runs = [subjects.new_id() for _ in range(count)]  # as long as those that clients give
        for start in range(0, count, AT_ONCE):
            some = runs[start : start + AT_ONCE]
            await asyncio.gather(*(self._client.submit("patient", {}, run=run) for run in some))
            await self._acked()
        return runs

    async def _acked(self) -> None:
        while True:
            if not (await self._state("REQUESTS"))["messages"]:
                return
            await asyncio.sleep(POLL_S)

    async def wake(self, run: str) -> None:
        """Send a run its signal and wait for its end."""
        await self._client.signal(run, "go")
        await self._client.result(run, timeout=30)

    async def stored_bytes(self) -> int:
        """What all streams hold."""
        return sum([(await self._state(name))["bytes"] for name in STREAMS])

    async def _state(self, stream: str) -> dict[str, int]:
        answer = await self._client.node.topology.api(f"STREAM.INFO.{stream}")
        state: dict[str, int] = answer["state"]
        return state


@contextlib.asynccontextmanager
async def open_waiting() -> AsyncIterator[Waiting]:
    """A server, a driver and a client in this process."""
    async with place() as here:
        server = await start_server(here)
        settings = msgspec.structs.replace(Settings.load(nats_url=server.url), park_after=0.1)
        driver = Host([app.patient], settings)
        await driver.start()
        try:
            async with callboard.connect(server.url) as client:
                yield Waiting(client, server)
        finally:
            await driver.stop(grace=1.0)
