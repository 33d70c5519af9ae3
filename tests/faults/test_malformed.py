"""A hundred kinds of malformed message on every subject, while runs are in progress."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from types import TracebackType
from typing import NamedTuple, Self

import msgspec
import pytest
from nats.aio.client import Client
from tests.faults import evidence, malformed
from tests.faults.board import PATIENT, STUCK, Board
from tests.faults.checker import Allowed, Evidence
from tests.faults.malformed import Kind, Target
from tests.support import wire

from callboard.actors import registry
from callboard.actors.dead import DeadLetters
from callboard.actors.node import Node
from callboard.infra import headers as H
from callboard.infra.connection import Connection
from callboard.infra.errors import StoreRefused
from callboard.infra.settings import Settings
from callboard.infra.store import Store

pytestmark = pytest.mark.fault

_BROKEN = (
    "disconnected",
    "connection_closed",
    "driving_failed",
    "background_work_failed",
    "heart_unconnected",
    "heart_failed",
    "message_handler_failed",
)
"""What no process may say because of somebody else's message."""
_AT_ONCE = 50
_DELIVERED = 2
"""Deliveries that the server may count of a message: one for nothing, where its request was withdrawn meanwhile."""
_WORK = {"call": "CALLS", "timer": "CALLS", "request": "REQUESTS"}
"""The streams of work, by the second token of the subject."""


class Sent(NamedTuple):
    """A malformed message that a host or a driver is given."""

    kind: Kind
    target: Target
    number: int
    stream: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.kind.name} on {self.target.subject} (#{self.sequence}, m{self.number})"


def test_table() -> None:
    """There are at least a hundred kinds, each with a name of its own."""
    kinds = malformed.kinds()
    assert len(kinds) >= 100
    assert len({kind.name for kind in kinds}) == len(kinds)


class Flood:
    """Publishes malformed messages. Use with ``async with``.

    Args:
        settings: with the server's address.
    """

    def __init__(self, settings: Settings) -> None:
        self._connection = Connection(settings, "flood")

    async def __aenter__(self) -> Self:
        await self._connection.open()
        self._store = Store(self._connection)
        self._store.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.stop()
        await self._connection.close()

    async def send(self, plan: list[tuple[Kind, Target]]) -> list[Sent]:
        """Publish all of it; returns what was stored for somebody to do."""
        sent: dict[tuple[str, int], Sent] = {}
        for first in range(0, len(plan), _AT_ONCE):
            some = enumerate(plan[first : first + _AT_ONCE], first)
            stored = await asyncio.gather(
                *(self._one(kind, target, number) for number, (kind, target) in some)
            )
            for one in stored:
                if one is not None:
                    sent.setdefault(key(one), one)  # the server has dropped a duplicate
        await self._connection.flush()
        return [one for one in sent.values() if one.target.family != "lost"]

    async def _one(self, kind: Kind, target: Target, number: int) -> Sent | None:
        subject, body, head = malformed.message(kind, target, number)
        if target.family == "told":
            self._connection.publish(subject, body, head, kind.reply)
            return None
        try:
            sequence = await self._store.stored(subject, body, head)
        except StoreRefused:
            return None  # by the server itself
        stream = _WORK.get(subject.split(".")[1])
        return Sent(kind, target, number, stream, sequence) if stream else None


def buried_wrongly(found: Evidence, sent: list[Sent]) -> list[str]:
    """Where the dead letters differ from what belongs there."""
    dead = {(letter.stream, letter.sequence): letter for letter in found.dead}
    # What an idle host has taken stands in its lane as another message.
    taken = Counter((letter.actor, letter.body) for letter in found.dead if H.STOLEN in letter.headers)
    wrong = []
    for one in sent:
        if expected(one) and key(one) not in dead:
            if taken[what(one)]:
                taken[what(one)] -= 1
            else:
                wrong.append(f"{one} is not in the dead letters")
    wrong += [f"a copy for {actor} is in the dead letters: {body!r}" for actor, body in taken.elements()]
    wrong += [
        f"{one} is in the dead letters: {dead[key(one)].detail}"
        for one in sent
        if not expected(one) and key(one) in dead
    ]
    wrong += [
        f"{x.subject} #{x.sequence} was delivered {x.delivered} times"
        for x in found.dead
        if x.delivered > _DELIVERED
    ]
    return wrong


def expected(one: Sent) -> bool:
    """Whether it belongs in the dead letters."""
    return malformed.buried(one.kind, one.target)


def what(one: Sent) -> tuple[str, bytes]:
    """The actor that it is for, and its body."""
    subject, body, _ = malformed.message(one.kind, one.target, one.number)
    return subject.split(".")[2], body


def key(one: Sent) -> tuple[str, int]:
    """Which message it is."""
    return one.stream, one.sequence


def without_outcome(found: Evidence, sent: list[Sent]) -> list[str]:
    """What neither was buried nor has an outcome in the journal of its run."""
    results = {entry.body.future for entry in found.journal if entry.kind == "result" and entry.body}
    done = {entry.run for entry in found.journal if entry.kind == "done"}
    missing = []
    for one in sent:
        name = f"m{one.number}"
        outcome = {"call": f"{name}:1" in results, "request": name in done}.get(one.target.family, True)
        if malformed.own_run(one.kind) and not outcome and not expected(one):
            missing.append(f"{one} has no outcome")
    return missing


@pytest.mark.timeout(300)
async def test_hundred_kinds_on_every_subject(board: Board) -> None:
    """Hosts and a gateway stay up and connected, traffic goes on, and everything ends where it belongs."""
    (host, second), _, _ = await asyncio.gather(
        board.hosts(2, "tools", dead_after=PATIENT),
        board.hosts(1, "workflows", dead_after=PATIENT),
        board.hosts(1, "gateway"),
    )
    held = await board.submit("holding", number=1)
    await board.begun(1)
    plan = malformed.plan(held, host.host)
    board.chance.shuffle(plan)
    async with evidence.connected(board.server.url) as client:
        async with Flood(board.settings()) as flood:
            load = asyncio.create_task(board.load(40, pause=0.05))
            sent = await flood.send(plan)
        await load
        board.open_gate()
        await answered(client)
        lost = await evidence.left(client)
        strangers = Allowed(strangers=True, starts=1, dead=None, left=frozenset(filter(unpulled, lost)))
        found = await board.verdict(strangers)
        redelivered = await evidence.redelivered(client)
    complaints = [
        *buried_wrongly(found, sent),
        *without_outcome(found, sent),
        *broken(board),
        *[f"{worker.log.name} has ended" for worker in board.workers if not worker.running],
        *[f"{name} has redelivered {count}" for name, count in redelivered.items() if count],
    ]
    assert not complaints, f"{len(complaints)} of {len(sent)}:\n" + "\n".join(complaints[:40])
    await readable(board)
    # And what lies about in the registry and in the journals is in nobody's way afterwards.
    await asyncio.gather(board.hosts(1, "tools"), board.hosts(1, "workflows"))
    await board.load(20, pause=0.05)
    await second.kill()
    await board.verdict(Allowed(strangers=True, dead=None, left=strangers.left))


async def test_subjects_that_are_no_text(board: Board) -> None:
    """Subjects and reply subjects of bytes that are not UTF-8 reach nobody's read loop or state."""
    hosts, _ = await asyncio.gather(board.hosts(2, "tools"), board.hosts(1, "workflows"))
    host = hosts[0].host.encode()
    lane = b"cb.call.%b." + host + b".%b"
    subjects = [
        lane % (b"add", b"\xff"),
        lane % (b"\xff\xfe", b"1"),
        b"cb.call.add.any.\xff",
        b"cb.request.\xff",
    ]
    subjects += [
        b"cb.dead.\xff",
        b"cb.run.m.\xff",
        b"cb.run.\xff.owner",
        b"cb.journal.m.\xff",
        b"cb.control.\xff",
    ]
    subjects += [b"$KV.cb_registry.host.\xff", b"$KV.cb_registry.takeover.\xff", b"$KV.cb_runs.\xff"]
    holds = msgspec.msgpack.encode({"type": "holds", "stream": "CALLS", "consumer": "add_any_1"})
    async with wire.connected(board.server.url) as connection:
        for subject in subjects:
            for body in (b"", b"\xff", holds):
                await connection.send(wire.plain(subject, body))
        for reply in (b"_R.\xff", b"\xff"):
            await connection.send(wire.plain(b"cb.control.all", holds, reply))
            await connection.send(wire.plain(b"cb.control." + host, holds, reply))
    await board.load(20, pause=0.02)
    await board.settled()
    async with evidence.connected(board.server.url) as client, asyncio.timeout(STUCK):
        while any(f".{hosts[0].host}." in subject for subject in await evidence.left(client)):
            await asyncio.sleep(0.03)
    assert not broken(board)
    await readable(board)


def broken(board: Board) -> list[str]:
    """What processes have logged that they must not have met."""
    return [
        f"{worker.log.name}: {line}"
        for worker in board.workers
        for event in _BROKEN
        for line in worker.lines_of(event)
    ]


async def answered(client: Client) -> None:
    """Wait until the gateway has answered everybody: some want their answer where calls go."""
    async with asyncio.timeout(STUCK):
        while json.loads((await client.request("cb.api.health.all", timeout=STUCK)).data)["waiting"]:
            await asyncio.sleep(0.01)


def unpulled(subject: str) -> bool:
    """Whether this is a subject of work that no consumer asks for."""
    return subject.startswith("cb.timer.") or subject in {
        target.subject for target in malformed.targets("", "") if target.family == "lost"
    }


async def readable(board: Board) -> None:
    """Everything that an operator looks at can be read in spite of the rubbish in it."""
    node = Node(board.settings(), "operator")
    await node.open()
    try:
        assert await DeadLetters(node.store, node.reader, "operator").list()
        assert {actor.name for actor in await registry.actors(node)} >= {"add", "chain"}
        assert len(await registry.hosts(node)) >= 3
        assert {run.id for run in board.accepted} <= {run.run for run in await node.journal.summaries()}
    finally:
        await node.close()


@pytest.mark.fault(seeds=(1, 2))
async def test_journal_of_a_run_that_is_taken_over(board: Board) -> None:
    """Rubbish in a run's journal neither stops its driver nor the one that takes it over."""
    _, (driver, _) = await asyncio.gather(board.hosts(1, "tools"), board.hosts(2, "workflows"))
    runs = [await board.submit("chain", number=n, steps=6, pause=0.1) for n in range(10)]
    await board.progress(10)
    bodies = [kind.body for kind in malformed.kinds() if kind.body is not None and len(kind.body) < 10_000]
    async with evidence.connected(board.server.url) as client:
        for run in runs:
            for body in random.Random(run).sample(bodies, 10):
                kind = board.chance.choice(("result", "signal", "pending", "attempt", "owner", "else"))
                await client.publish(f"cb.run.{run}.{kind}", body)
        await client.flush()
    await board.progress(20)
    await driver.kill()
    await board.verdict()
