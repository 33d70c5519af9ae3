"""So many hosts that only tell: `python -m bench.many_reporters URL FIRST COUNT RUNS PER_RUN STEPPED`.

They beat and report as hosts do, over one connection, and do nothing else. Each has so many runs, with so
many open futures each. When told to, STEPPED of all their runs come one stage further; the ledger has when
that was published.
"""

import asyncio
import itertools
import os
import platform
import signal
import sys
import time
from collections.abc import Coroutine

import msgspec
import uvloop

from bench import jobs
from bench.reports import AGENTS, NAMES, Source
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.connection import Connection
from callboard.infra.messages.control import Tell
from callboard.infra.messages.registry import InstanceInfo, Pulse
from callboard.infra.settings import Settings

STEP = "bench.step"
"""Where they are told to have runs come further; the message is a name for the ledger."""
PUBLISHED = "published"
SLOTS = 4
_BETWEEN = 0.1
_TELL = msgspec.msgpack.encode(Tell())
_ROLLUP = H.encode([("Nats-Rollup", "sub")])
_INSTANCES = {NAMES[0].format(agent).partition(".")[0]: InstanceInfo(slots=SLOTS) for agent in range(AGENTS)}


class Reporter:
    """One host.

    Args:
        connection: open; number: of the host.
        runs: that it has; per_run: open futures of each.
    """

    def __init__(self, connection: Connection, number: int, runs: int, per_run: int) -> None:
        self.name = f"h-{number}"
        self._connection = connection
        self._source = Source(self.name, per_run)
        self._steps = dict.fromkeys(range(number * runs, (number + 1) * runs), 0)
        self._telling = asyncio.Lock()
        self._next = itertools.cycle(self._steps)

    def beat(self) -> None:
        """A heartbeat."""
        now = time.time()
        pulse = Pulse(self.name, now, now, os.getpid(), platform.node(), instances=_INSTANCES)
        body = msgspec.msgpack.encode(pulse)
        self._connection.publish(subjects.registry(f"host.{self.name}"), body, _ROLLUP)

    async def tell(self) -> None:
        """The whole state, slowly: what a controller cannot read in time holds up heartbeats behind it."""
        async with self._telling:
            for body in self._source.whole(self._steps, self._steps):
                self._connection.publish(subjects.telemetry(self.name), body)
                await asyncio.sleep(_BETWEEN)

    def stepped(self, count: int) -> bytes:
        """So many of its runs come further; what it has to report."""
        runs = {run: self._steps[run] for run in itertools.islice(self._next, count)}
        for run in runs:
            self._steps[run] += 1
        return self._source.stepped(runs)

    def publish(self, report: bytes) -> None:
        """Report it."""
        self._connection.publish(subjects.telemetry(self.name), report)


class Reporters:
    """All hosts of this process.

    Args:
        connection: open; hosts: at least one.
        stepped: runs that come further at a time, taken from host after host.
    """

    def __init__(self, connection: Connection, hosts: list[Reporter], stepped: int) -> None:
        self._connection = connection
        self._hosts = {host.name: host for host in hosts}
        self._stepped = stepped
        self._next = itertools.cycle(hosts)
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """Beat from now on, answer controllers that want the whole state, and step when told to."""
        self._connection.subscribe(STEP, self._on_step)
        self._connection.subscribe(subjects.control("*"), self._on_control)
        self._spawn(self._beat())

    async def tell(self) -> None:
        """The whole state of each host, one after the other."""
        for host in self._hosts.values():
            await host.tell()

    async def _beat(self) -> None:
        every = self._connection.settings.pulse_every / len(self._hosts)
        while True:
            for host in self._hosts.values():
                host.beat()
                await asyncio.sleep(every)

    def _on_step(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        chosen: dict[Reporter, int] = {}
        for host in itertools.islice(self._next, self._stepped):
            chosen[host] = chosen.get(host, 0) + 1
        reports = [(host, host.stepped(count)) for host, count in chosen.items()]
        jobs.record(data.decode(), PUBLISHED)
        for host, report in reports:
            host.publish(report)

    def _on_control(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        if data != _TELL:
            return
        name = subject.decode().rpartition(".")[2]
        if name == subjects.EVERY_HOST:
            self._spawn(self.tell())
        elif name in self._hosts:
            self._spawn(self._hosts[name].tell())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def main(url: str, first: int, count: int, runs: int, per_run: int, stepped: int) -> None:
    """Tell of all there is, then report until told to stop."""
    connection = await Connection(Settings.load(nats_url=url), f"reporters-{first}").open()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    hosts = [Reporter(connection, number, runs, per_run) for number in range(first, first + count)]
    reporters = Reporters(connection, hosts, stepped)
    reporters.listen()
    await reporters.tell()
    print("told.", flush=True)
    await ended.wait()
    await connection.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:])))
