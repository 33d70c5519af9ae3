"""A hundred kinds of malformed message on every subject, while runs are in progress."""

from __future__ import annotations

import asyncio
import random
from typing import NamedTuple

import pytest
from nats.aio.client import Client
from nats.js.errors import APIError
from tests.faults import evidence, malformed
from tests.faults.board import Board
from tests.faults.checker import Allowed, Evidence
from tests.faults.malformed import Kind, Target

pytestmark = pytest.mark.fault

_BROKEN = (
    "disconnected",
    "connection_closed",
    "driving_failed",
    "background_work_failed",
    "heart_unconnected",
)
"""What no process may say because of somebody else's message."""


class Sent(NamedTuple):
    """A malformed message that the server has stored."""

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


async def flood(client: Client, plan: list[tuple[Kind, Target]]) -> list[Sent]:
    """Publish all of it; returns what was stored."""
    js = client.jetstream()
    sent = []
    for number, (kind, target) in enumerate(plan):
        subject, body, headers = malformed.message(kind, target, number)
        if target.family == "told":
            await client.publish(subject, body, headers=dict(headers) or None)
            continue
        try:
            ack = await js.publish(subject, body, headers=dict(headers) or None)
        except APIError:
            continue  # the server itself has refused it
        sent.append(Sent(kind, target, number, ack.stream, ack.seq))
    await client.flush()
    return sent


def buried_wrongly(found: Evidence, sent: list[Sent]) -> list[str]:
    """Where the dead letters differ from what belongs there."""
    dead = {(letter.stream, letter.sequence): letter for letter in found.dead}
    work = [one for one in sent if one.target.family in {"call", "request"}]
    wrong = [f"{one} is not in the dead letters" for one in work if expected(one) and key(one) not in dead]
    wrong += [
        f"{one} is in the dead letters: {dead[key(one)].detail}"
        for one in work
        if not expected(one) and key(one) in dead
    ]
    wrong += [
        f"{x.subject} #{x.sequence} was delivered {x.delivered} times" for x in found.dead if x.delivered > 1
    ]
    return wrong


def expected(one: Sent) -> bool:
    """Whether it belongs in the dead letters."""
    return malformed.buried(one.kind, one.target)


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
        if not (outcome or expected(one) or one.kind.bare or "Cb-Run" in one.kind.headers):
            missing.append(f"{one} has no outcome")
    return missing


@pytest.mark.timeout(90)
async def test_hundred_kinds_on_every_subject(board: Board) -> None:
    """Hosts stay up and connected, traffic goes on, and everything ends where it belongs, at once."""
    (host, second), _ = await asyncio.gather(board.hosts(2, "tools"), board.hosts(1, "workflows"))
    held = await board.submit("holding", number=1)
    await board.begun(1)
    targets = malformed.targets(held, host.host)
    plan = [(kind, target) for kind in malformed.kinds() for target in targets]
    board.chance.shuffle(plan)
    async with evidence.connected(board.server.url) as client:
        load = asyncio.create_task(board.load(40, pause=0.05))
        sent = await flood(client, plan)
        await load
        board.open_gate()
        strangers = Allowed(strangers=True, starts=1, dead=None)
        found = await board.verdict(strangers)
        redelivered = await evidence.redelivered(client)
    complaints = [
        *buried_wrongly(found, sent),
        *without_outcome(found, sent),
        *[
            f"{worker.log.name} says {event}"
            for worker in board.workers
            for event in _BROKEN
            if worker.said(event)
        ],
        *[f"{worker.log.name} has ended" for worker in board.workers if not worker.running],
        *[f"{name} has redelivered {count}" for name, count in redelivered.items() if count],
    ]
    assert not complaints, f"{len(complaints)} of {len(sent)}:\n" + "\n".join(complaints[:40])
    # And what lies about in the registry and in the journals is in nobody's way afterwards.
    await asyncio.gather(board.hosts(1, "tools"), board.hosts(1, "workflows"))
    await board.load(20, pause=0.05)
    await second.kill()
    await board.verdict(Allowed(strangers=True, dead=None))


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
