"""A board for one test: hosts and clients on a real server, stopped when the test is over."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from tests.support.waiting import SOON, eventually

from callboard.actors import registry
from callboard.actors.client import Client
from callboard.actors.dead import DeadLetters
from callboard.actors.declared import Workflow, declaration
from callboard.actors.driver import Driver
from callboard.actors.host import Host
from callboard.actors.instance import Instance
from callboard.actors.node import Node
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.direct import Stored
from callboard.infra.messages.dead import DeadLetter
from callboard.infra.messages.run import Done, Result
from callboard.infra.settings import Settings
from callboard.state.journal import read_results

QUICK: dict[str, Any] = {"pulse_every": 0.1, "dead_after": 0.4, "grace": 5.0}
"""Settings with which death is noticed soon."""


class Board:
    """Starts hosts and clients, and ends them.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._hosts: list[Host] = []
        self._nodes: list[Node | Client] = []

    def settings(self, **overrides: Any) -> Settings:
        """Quick settings for the test's server."""
        return Settings.load({}, nats_url=self.url, **{**QUICK, **overrides})

    async def host(self, *things: Any, **settings: Any) -> Host:
        """Start a host that runs these agents, tools and workflows."""
        return await self.named("", *things, **settings)

    async def named(self, name: str, /, *things: Any, **settings: Any) -> Host:
        """The same, with a name that stays."""
        found = [declaration(thing) for thing in things]
        host = Host([one for one in found if one is not None], self.settings(**settings), name=name)
        assert len(host.declarations) == len(things), "not everything given is declared"
        self._hosts.append(host)
        await host.start()
        return host

    async def client(self, **settings: Any) -> Client:
        """Open a client."""
        client = Client(self.settings(**settings))
        self._nodes.append(client)
        return await client.__aenter__()

    async def node(self) -> Node:
        """Open a bare process: its store, reader, journal and blobs."""
        node = Node(self.settings(), "test")
        self._nodes.append(node)
        return await node.open()

    async def run(self, workflow: Workflow[Any, Any], /, *, timeout: float = SOON, **arguments: Any) -> Any:
        """Submit a request and wait for its result."""
        client = await self.client()
        return await client.run(workflow.name, arguments, timeout=timeout)

    async def submit(self, workflow: Workflow[Any, Any], /, **arguments: Any) -> str:
        """Submit a request; gives the run's id."""
        client = await self.client()
        return await client.submit(workflow.name, arguments)

    async def done(self, run: str, timeout: float = SOON) -> Done:
        """Wait for the end of a run, whatever it is."""
        client = await self.client()
        return await client.done(run, timeout)

    async def results(self, run: str) -> list[Result]:
        """The outcomes of calls in a run's journal, those of nested calls too."""
        node = await self.node()
        entries = await node.journal.read(run, ">")
        kept = [entry for entry in entries if entry.subject.split(".")[3] == "result"]
        return [result for entry in kept for result in read_results(entry.body)]

    async def letters(self, count: int = 1, timeout: float = SOON) -> list[DeadLetter]:
        """Wait for so many dead letters and give them, oldest first."""
        node = await self.node()
        dead = DeadLetters(node.store, node.reader, "test")

        async def enough() -> list[DeadLetter]:
            found = await dead.list()
            return [letter for _, letter in found] if len(found) >= count else []

        return await eventually(enough, timeout)

    async def stream(self, name: str) -> dict[str, Any]:
        """A stream's state."""
        node = await self.node()
        state: dict[str, Any] = (await node.topology.api(f"STREAM.INFO.{name}"))["state"]
        return state

    async def emptied(self, name: str, timeout: float = SOON) -> None:
        """Wait until a work queue holds nothing: everything in it was acked."""
        node = await self.node()

        async def is_empty() -> bool:
            return not (await node.topology.api(f"STREAM.INFO.{name}"))["state"]["messages"]

        await eventually(is_empty, timeout)

    async def entries(self, run: str, kind: str, count: int = 1, timeout: float = SOON) -> list[Stored]:
        """Wait for so many entries of a kind in a run's journal, and give them; of results, for so many."""
        node = await self.node()

        async def enough() -> list[Stored]:
            found = await node.journal.read(run, kind)
            held = sum(len(read_results(entry.body)) if kind == "result" else 1 for entry in found)
            return found if held >= count else []

        return await eventually(enough, timeout)

    async def emptied_of_host(self, host: Host, timeout: float = SOON) -> None:
        """Wait until somebody has swept up after a dead host."""
        node = await self.node()

        async def is_gone() -> bool:
            return host.id not in [pulse.host for pulse in await registry.hosts(node)]

        await eventually(is_gone, timeout)

    async def kill(self, host: Host) -> None:
        """End a host as ``kill -9`` does: nothing leaves it any more, its connections break."""
        self._hosts.remove(host)
        client = host.node.connection.client
        client._pending.clear()
        client._pending_data_size = 0
        client.write = client.write_later = lambda frame: None  # type: ignore[method-assign]
        host._heart._beat_once = lambda connection: None  # type: ignore[method-assign]
        host.node.connection._closing = True
        await client.close()
        await asyncio.to_thread(host._heart.stop)
        tasks: set[asyncio.Task[Any]] = set(host.caller._tasks)
        for member in host._members:
            if isinstance(member, Driver):
                tasks |= member._tasks
            else:
                tasks |= {c.task for c in member.running.values() if isinstance(c.task, asyncio.Task)}
                member.host.draining = True
        for task in (host._ticker, host.watch._task, host.caller._sweeper, host.node.store._sweeper):
            if task is not None:
                tasks.add(task)
        if host.node.connection._watchdog is not None:
            tasks.add(host.node.connection._watchdog)
        pending = tasks
        while pending:  # some of them try to tell others of their end first
            for one in pending:
                one.cancel()
            pending = (await asyncio.wait(pending, timeout=0.01))[1]
        for member in host._members:
            member.close()

    async def close(self) -> None:
        """End everything that was started."""
        await asyncio.gather(*(host.stop(grace=0.2) for host in self._hosts))
        for node in self._nodes:
            await node.close()


def instance(host: Host, thing: Any) -> Instance:
    """A host's instance of an actor."""
    declared = declaration(thing)
    assert declared is not None
    return next(m for m in host._members if isinstance(m, Instance) and m.name == declared.name)


def call_headers(future: str, method: str = "call", **more: str) -> bytes:
    """The header block of a call, as a driver makes it; ``Cb_Name=value`` for others."""
    items = [(H.FUTURE, future), (H.METHOD, method), (H.RUN, future.partition(":")[0]), (H.WORKFLOW, "flow")]
    given = {name.replace("_", "-"): value for name, value in more.items()}
    return H.encode([*((n, v) for n, v in items if n not in given), *given.items()])


def packed(value: Any) -> bytes:
    """A value as msgpack."""
    return msgspec.msgpack.encode(value)


def call_subject(thing: Any, band: int = 1) -> str:
    """Where calls of an actor go."""
    declared = declaration(thing)
    assert declared is not None
    return subjects.call(declared.name, subjects.ANY, band)
