"""A board with sessions on two hosts; what the cases of migration measure."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import callboard
from bench import app
from bench.callboard_side import spawn_host
from bench.processes import place, start_server
from callboard.actors import registry
from callboard.actors.host import Host

RUN_TIMEOUT_S = 60.0
POLL_S = 0.05


class Moving:
    """Sessions of `Desk` on two hosts.

    Args:
        client: connected; hosts: their ids.
    """

    def __init__(self, client: callboard.Client, hosts: Sequence[str]) -> None:
        self._client = client
        self.hosts = hosts

    async def sessions(self, count: int, host: str) -> list[str]:
        """So many sessions with a line each, all held by one host."""
        sessions = [f"s{number}" for number in range(count)]
        await asyncio.gather(*(self.file(session) for session in sessions))
        await self.move(sessions, host)
        return sessions

    async def file(self, session: str, seconds: float = 0.0) -> float:
        """One call in a session; when it began."""
        arguments = {"text": "line", "seconds": seconds}
        began: float = await self._client.run("filing", arguments, session=session, timeout=RUN_TIMEOUT_S)
        return began

    async def file_timed(self, session: str) -> float:
        """The same; seconds until it began."""
        waited: float = await self._client.run("filing_timed", {}, session=session, timeout=RUN_TIMEOUT_S)
        return waited

    async def submit(self, session: str, seconds: float) -> str:
        """Begin a call that takes so long; its run."""
        return await self._client.submit("filing", {"text": "line", "seconds": seconds}, session=session)

    async def cancel(self, run: str) -> None:
        """Stop it."""
        await self._client.cancel(run)

    async def move(self, sessions: Sequence[str], host: str) -> int:
        """Move sessions to a host; how many calls went after them."""
        moved = await self._client.migrate(sessions, "Desk", destination=host)
        return sum(one.calls for one in moved)

    async def until_held(self, host: str, calls: int) -> None:
        """Wait until a host has told in its heartbeat that it has so many calls."""
        while True:
            for pulse in await registry.hosts(self._client.node):
                if pulse.host == host and sum(map(len, pulse.inflight.values())) >= calls:
                    return
            await asyncio.sleep(POLL_S)


@contextlib.asynccontextmanager
async def open_moving(env: Mapping[str, str] = {}) -> AsyncIterator[Moving]:
    """A server, two hosts of their own, and the driver and the client in this process.

    Args:
        env: of the hosts.
    """
    async with place() as here:
        server = await start_server(here)
        driver = Host([app.filing, app.filing_timed], server.url)
        await driver.start()
        try:
            async with callboard.connect(server.url) as client:
                for _ in range(2):
                    await spawn_host(here, server, ["Desk"], env)
                hosts = [p.host for p in await registry.hosts(client.node) if "Desk" in p.instances]
                yield Moving(client, sorted(hosts))
        finally:
            await driver.stop(grace=1.0)
