"""Callboard's side: a host process, and client and driver in the process of the round.

Everything that knows Callboard's names and command line is in this file and in `bench/app.py`.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any

import nats
from nats.errors import Error as NatsError

import callboard
from bench import app
from bench.accounting import Parts
from bench.processes import ROOT, Child, Place, Server, free_port, place, start_server
from bench.sides import Load, closed_loop, worker_env
from callboard.actors.host import Host
from callboard.actors.registry import hosts

APP = str(ROOT / "bench" / "app.py")
READY = "host_ready"
CALLS_STREAM = "CALLS"
RUN_TIMEOUT_S = 300.0
POLL_S = 0.02
START_TIMEOUT_S = 60.0


class CallboardSide:
    """Callboard, running; see `bench.sides.Side`.

    Args:
        here: where hosts are started.
        server: the nats-server.
        client: a connected client.
        tools: names of the tools that hosts serve.
    """

    def __init__(self, here: Place, server: Server, client: callboard.Client, tools: Sequence[str]) -> None:
        self._here = here
        self._server = server
        self._client = client
        self._tools = tools
        self._hosts: list[Child] = []

    @property
    def url(self) -> str:
        """Of the server."""
        return self._server.url

    def parts(self) -> Parts:
        """The processes: `server`, `worker` and, as `client`, this one."""
        return {
            "server": [self._server.pid],
            "worker": [worker.pid for worker in self._hosts],
            "client": [os.getpid()],
        }

    def workers(self) -> list[Child]:
        """The host processes started so far."""
        return list(self._hosts)

    async def add_worker(self) -> Child:
        """Start one more host and wait until it takes calls."""
        host = await spawn_host(self._here, self._server, self._tools)
        self._hosts.append(host)
        return host

    async def hosts(self, actor: str) -> list[str]:
        """Ids of the hosts that serve an actor."""
        return [pulse.host for pulse in await hosts(self._client.node) if actor in pulse.instances]

    async def submit(self, workflow: str, **arguments: Any) -> str:
        """Submit a run; its id."""
        run: str = await self._client.submit(workflow, arguments)
        return run

    async def result(self, run: str) -> Any:
        """Wait for a run's result."""
        return await self._client.result(run, timeout=RUN_TIMEOUT_S)

    async def cancel(self, run: str) -> None:
        """Cancel a run."""
        await self._client.cancel(run)

    async def run(self, workflow: str, **arguments: Any) -> Any:
        """Submit a run and wait for its result."""
        return await self.result(await self.submit(workflow, **arguments))

    async def sequential(self, count: int) -> list[float]:
        """Seconds of each of `count` no-op calls, measured by the workflow."""
        latencies: list[float] = await self.run("sequential", count=count)
        return latencies

    async def concurrent(self, count: int) -> float:
        """Seconds for `count` no-op calls at once, measured by the workflow."""
        return float(await self.run("gathered", count=count))

    async def fan_out(self, count: int) -> float:
        """Seconds from submitting the run until the client has its result."""
        begun = time.perf_counter()
        await self.run("gathered", count=count)
        return time.perf_counter() - begun

    async def workflows(self, count: int, at_once: int) -> Load:
        """Submit `count` runs and await their results, `at_once` at a time."""

        async def one(_: int) -> None:
            await self.run("answer")

        return await closed_loop(one, count, at_once)

    async def hold(self, count: int) -> Awaitable[None]:
        """Have one run make `count` calls; returns once the stream holds all of them."""
        connection = await nats.connect(self._server.url)
        running = asyncio.create_task(self.run("outstanding", count=count))
        try:
            jetstream = connection.jetstream()
            while (await jetstream.stream_info(CALLS_STREAM)).state.messages < count:
                if running.done():
                    raise RuntimeError(f"the run ended while calls were held: {running.result()}")
                await asyncio.sleep(POLL_S)
        finally:
            await connection.close()
        return running

    async def interruptible(self, trial: int) -> None:
        """Run the workflow whose call hangs until its host is killed."""
        await self.run("interruptible", trial=trial)


async def spawn_host(
    here: Place, server: Server, names: Sequence[str], env: Mapping[str, str] = {}, app: str = APP
) -> Child:
    """Start a host process for these tools or workflows and wait until it pulls.

    Args:
        env: of the process, beside what handlers need; app: the file that declares them.
    """
    host = await here.spawn_python(
        "callboard", "host", f"{app}:{','.join(names)}", "--nats", server.url,
        extra_env={**worker_env(here), **env},
    )  # fmt: skip
    await host.until_logged(READY, START_TIMEOUT_S)
    return host


@contextlib.asynccontextmanager
async def open_side(
    here: Place, tools: Sequence[str], workflows: Sequence[str]
) -> AsyncIterator[CallboardSide]:
    """Start server, one host process, and the driver and the client in this process."""
    server = await start_server(here)
    driver = Host([getattr(app, name) for name in workflows], server.url)
    await driver.start()
    try:
        async with callboard.connect(server.url) as client:
            side = CallboardSide(here, server, client, tools)
            await side.add_worker()
            yield side
    finally:
        await driver.stop()


@contextlib.asynccontextmanager
async def open_apart(
    here: Place, tools: Sequence[str], workflow: str
) -> AsyncIterator[tuple[CallboardSide, Server, Child]]:
    """The same with the driver in a process of its own, which is the third of the tuple."""
    server = await start_server(here)
    driver = await spawn_host(here, server, [workflow])
    async with callboard.connect(server.url) as client:
        side = CallboardSide(here, server, client, tools)
        await side.add_worker()
        yield side, server, driver


async def seconds_to_first_result(timeout_s: float = 30) -> float:
    """Start `callboard dev`, submit as soon as it takes a request; seconds until the result."""
    port = free_port()
    async with place() as here:
        begun = time.perf_counter()
        await here.spawn_python("callboard", "dev", APP, "--port", str(port), extra_env=worker_env(here))
        async with asyncio.timeout(timeout_s):
            await _first_result(f"nats://127.0.0.1:{port}")
        return time.perf_counter() - begun


async def _first_result(url: str) -> None:
    while True:
        try:
            async with callboard.connect(url) as client:
                run = await client.submit("single", {})
                await client.result(run, timeout=RUN_TIMEOUT_S)
        except (OSError, NatsError, callboard.CallboardError):
            await asyncio.sleep(POLL_S)
        else:
            return
