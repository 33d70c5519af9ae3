"""The floor's worker process: a loop of `fetch`, a task per message, reply to the inbox, ack."""

import argparse
import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.client import JetStreamContext

from bench import jobs, loops
from bench.floor_jobs import CONSUMER, READY, STREAM, SUBJECT, Job, Kind, Reply

SLOTS = 1000
FETCH = 256
FETCH_TIMEOUT_S = 5.0
PROGRESS_S = 10.0

_decode = msgspec.msgpack.Decoder(Job).decode
_encode = msgspec.msgpack.Encoder().encode


async def _noop(job: Job) -> None:
    """Do nothing."""


async def _sleep(job: Job) -> None:
    await asyncio.sleep(job.seconds)


async def _held(job: Job) -> None:
    await jobs.held(job.number)


async def _interrupted(job: Job) -> None:
    await jobs.interrupted(job.number)


HANDLERS: dict[Kind, Callable[[Job], Awaitable[None]]] = {
    Kind.NOOP: _noop,
    Kind.SLEEP: _sleep,
    Kind.HELD: _held,
    Kind.INTERRUPTED: _interrupted,
}
LONG = {Kind.HELD, Kind.INTERRUPTED}


class Worker:
    """Runs jobs as tasks, at most `SLOTS` at a time.

    Args:
        connection: a connection to the server.
    """

    def __init__(self, connection: Client) -> None:
        self._connection = connection
        self._running: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()

    async def pull(self, subscription: JetStreamContext.PullSubscription) -> None:
        """Fetch as many messages as there are free slots, for ever."""
        while True:
            free = SLOTS - len(self._running)
            if not free:
                self._room.clear()
                await self._room.wait()
                continue
            try:
                messages = await subscription.fetch(min(FETCH, free), timeout=FETCH_TIMEOUT_S)
            except TimeoutError:
                continue
            for message in messages:
                self._start(message)

    def _start(self, message: Msg) -> None:
        task = asyncio.create_task(self._answer(message))
        self._running.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.set()

    async def _answer(self, message: Msg) -> None:
        job = _decode(message.data)
        error = ""
        try:
            if job.kind in LONG:
                async with _in_progress(message):
                    await HANDLERS[job.kind](job)
            else:
                await HANDLERS[job.kind](job)
        except Exception as failure:  # noqa: BLE001 - the client gets whatever went wrong
            error = repr(failure)
        await self._connection.publish(job.reply, _encode(Reply(job.id, error)))
        await message.ack()


@contextlib.asynccontextmanager
async def _in_progress(message: Msg) -> AsyncIterator[None]:
    """Keep the server from delivering a long job again."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            await message.in_progress()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()


async def serve(url: str) -> None:
    """Work until SIGTERM."""
    connection = await nats.connect(url)
    subscription = await connection.jetstream().pull_subscribe(SUBJECT, durable=CONSUMER, stream=STREAM)
    pulling = asyncio.create_task(Worker(connection).pull(subscription))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pulling.cancel)
    print(READY, flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await pulling
    await connection.close()


def main() -> None:
    """Read the server's address from the command line and work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="address of the nats-server")
    loops.run(serve(parser.parse_args().url))


if __name__ == "__main__":
    main()
