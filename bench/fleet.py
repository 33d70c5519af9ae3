"""A board of many hosts under load, with Callboard's control or without it: for the live cases of control."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence

import callboard
from bench import crowd
from bench.callboard_side import spawn_host
from bench.processes import ROOT, Place, Server, place, start_server
from callboard.actors import registry
from callboard.actors.host import Host
from callboard.controller.arrivals import Arrival
from callboard.controller.load import Load, LoadFigures

HOSTS = 8
SETTLES_S = 30.0
POLL_S = 0.1
WITHOUT = {"CALLBOARD_STEAL_AFTER": "0"}
"""What hosts are told so that nothing is taken from one another."""
_APP = str(ROOT / "bench" / "crowd.py")


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Hosts in processes of their own, a driver and a client in this one.

    Attributes:
        client: connected; hosts: their ids, in order.
    """

    client: callboard.Client
    hosts: Sequence[str]

    async def under(self, workflow: str, plan: Sequence[Arrival]) -> LoadFigures:
        """Submit all of a plan when it is due; what it comes to.

        Raises:
            RuntimeError: not all of it was done, soon after the last one was submitted.
        """
        load = Load(self.client, workflow, plan, {})
        await load.submit()
        await load.settle(SETTLES_S)
        figures = load.figures()
        if figures.done != len(plan):
            raise RuntimeError(f"of {len(plan)} requests {figures.done} are done, {figures.open} are open")
        return figures


@contextlib.asynccontextmanager
async def open_fleet(
    actors: Sequence[str], workflows: Sequence[str], policies: Sequence[str], env: Mapping[str, str] = {}
) -> AsyncIterator[Fleet]:
    """Start it.

    Args:
        actors, workflows: names in `bench/crowd.py`, for the hosts and for the driver.
        policies: of a controller; none: there is no controller.
        env: of the hosts.
    """
    async with place() as here:
        server = await start_server(here)
        await asyncio.gather(*(spawn_host(here, server, actors, env, _APP) for _ in range(HOSTS)))
        if policies:
            await _controller(here, server, policies)
        driver = Host([getattr(crowd, name) for name in workflows], server.url)
        await driver.start()
        try:
            async with callboard.connect(server.url) as client:
                yield Fleet(client, await _serving(client, actors[0]))
        finally:
            await driver.stop(grace=1.0)


async def _serving(client: callboard.Client, actor: str) -> list[str]:
    """The hosts of an actor, once all are known: a look while they beat may miss some."""
    async with asyncio.timeout(SETTLES_S):
        while True:
            pulses = await registry.hosts(client.node)
            found = sorted(pulse.host for pulse in pulses if actor in pulse.instances)
            if len(found) == HOSTS:
                return found
            await asyncio.sleep(POLL_S)


async def _controller(here: Place, server: Server, policies: Sequence[str]) -> None:
    chosen = [word for policy in policies for word in ("--policy", policy)]
    controller = await here.spawn_python("callboard", "controller", "--nats", server.url, *chosen)
    await controller.until_logged("controller_ready", timeout_s=60)


def latencies(figures: LoadFigures) -> dict[str, float]:
    """In milliseconds, from when requests were due."""
    told = figures.latency
    return {"p50": told.p50 * 1000, "p99": told.p99 * 1000, "mean": told.mean * 1000}
