"""The floor: what a careful user writes with nats-py today.

A work-queue stream on files, `js.publish` awaited for its ack, a worker that calls
`pull_subscribe` and `fetch(256)`, replies to the client's inbox, and acks.
"""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Sequence

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import RetentionPolicy, StorageType

from bench import jobs
from bench.accounting import Parts
from bench.floor_jobs import READY, STREAM, SUBJECT, Job, Kind, Reply
from bench.processes import Child, Place, Server, start_server
from bench.sides import Load, closed_loop, worker_env

UNACKED_PUBLISHES = 256

_decode = msgspec.msgpack.Decoder(Reply).decode
_encode = msgspec.msgpack.Encoder().encode


class FloorClient:
    """Submits jobs and matches the replies to them.

    Args:
        connection: a connection to the server.
    """

    def __init__(self, connection: Client) -> None:
        self._connection = connection
        self._jetstream = connection.jetstream()
        self._inbox = connection.new_inbox()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._ids = itertools.count()
        self._publishing = asyncio.Semaphore(UNACKED_PUBLISHES)

    async def start(self) -> None:
        """Create the stream and subscribe the inbox."""
        await self._jetstream.add_stream(
            name=STREAM,
            subjects=[SUBJECT],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
        )
        await self._connection.subscribe(self._inbox, cb=self._replied)
        await self._connection.flush()

    async def _replied(self, message: Msg) -> None:
        reply = _decode(message.data)
        future = self._waiting.pop(reply.id, None)
        if future is None or future.done():
            return
        if reply.error:
            future.set_exception(RuntimeError(reply.error))
        else:
            future.set_result(None)

    async def submit(self, kind: Kind, *, number: int = 0, seconds: float = 0.0) -> asyncio.Future[None]:
        """Store a job; returns once the server has acked it, with the future of its reply."""
        job = Job(id=next(self._ids), reply=self._inbox, kind=kind, number=number, seconds=seconds)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[job.id] = future
        async with self._publishing:
            await self._jetstream.publish(SUBJECT, _encode(job))
        return future

    async def call(self, kind: Kind, *, number: int = 0, seconds: float = 0.0) -> None:
        """Store a job and wait for its reply."""
        await (await self.submit(kind, number=number, seconds=seconds))


class FloorSide:
    """The floor, running; see `bench.sides.Side`.

    Args:
        here: where workers are started.
        server: the nats-server.
        client: submits the jobs.
    """

    def __init__(self, here: Place, server: Server, client: FloorClient) -> None:
        self._here = here
        self._server = server
        self._client = client
        self._workers: list[Child] = []

    def parts(self) -> Parts:
        """The processes: `server`, `worker` and, as `client`, this one."""
        return {
            "server": [self._server.pid],
            "worker": [worker.pid for worker in self._workers],
            "client": [os.getpid()],
        }

    def workers(self) -> list[Child]:
        """The worker processes started so far."""
        return list(self._workers)

    async def add_worker(self) -> Child:
        """Start one more worker process and wait until it takes jobs."""
        worker = await self._here.spawn_python(
            "bench.floor_worker", self._server.url, extra_env=worker_env(self._here)
        )
        await worker.until_logged(READY)
        self._workers.append(worker)
        return worker

    async def sequential(self, count: int) -> list[float]:
        """Seconds of each of `count` no-op jobs, one after the other."""
        latencies = []
        for _ in range(count):
            begun = time.perf_counter()
            await self._client.call(Kind.NOOP)
            latencies.append(time.perf_counter() - begun)
        return latencies

    async def concurrent(self, count: int) -> float:
        """Seconds for `count` no-op jobs at once."""
        begun = time.perf_counter()
        await asyncio.gather(*(self._client.call(Kind.NOOP) for _ in range(count)))
        return time.perf_counter() - begun

    async def fan_out(self, count: int) -> float:
        """The same: the floor's workflow is the client's code."""
        return await self.concurrent(count)

    async def workflows(self, count: int, at_once: int) -> Load:
        """Plan, three tools in parallel, summary; `count` times, `at_once` at a time."""
        return await closed_loop(lambda _: self._workflow(), count, at_once)

    async def _workflow(self) -> None:
        call = self._client.call
        await call(Kind.SLEEP, seconds=jobs.PLAN_S)
        await asyncio.gather(*(call(Kind.SLEEP, seconds=jobs.TOOL_S) for _ in range(3)))
        await call(Kind.SLEEP, seconds=jobs.SUMMARY_S)

    async def hold(self, count: int) -> Awaitable[None]:
        """Store `count` jobs that wait for the gate."""
        replies: list[asyncio.Future[None]] = []
        numbers = iter(range(count))

        async def publisher() -> None:
            for number in numbers:
                reply = await self._client.submit(Kind.HELD, number=number)
                replies.append(reply)

        async with asyncio.TaskGroup() as publishers:
            for _ in range(UNACKED_PUBLISHES):
                publishers.create_task(publisher())
        return _all_done(replies)

    async def interruptible(self, trial: int) -> None:
        """Submit a job that hangs until its worker is killed."""
        await self._client.call(Kind.INTERRUPTED, number=trial)


async def _all_done(replies: Sequence[asyncio.Future[None]]) -> None:
    for reply in replies:
        await reply


@contextlib.asynccontextmanager
async def open_side(here: Place) -> AsyncIterator[FloorSide]:
    """Start server, client and one worker; the worker knows every kind of job."""
    server = await start_server(here)
    connection = await nats.connect(server.url)
    try:
        client = FloorClient(connection)
        await client.start()
        side = FloorSide(here, server, client)
        await side.add_worker()
        yield side
    finally:
        await connection.close()
