"""Sources and destinations that die between any two steps of a move: the session is at one place afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.board import Board, instance
from tests.support.waiting import SOON, until

from callboard import ManagedCounter, ManagedList, agent, method, workflow
from callboard.actors.client import Client
from callboard.actors.host import Host

RAN: Counter[str] = Counter()
GATE = asyncio.Event()
QUEUED = 4
STEPS = {"source": (0, 1, 2, 5, 6, 10, 11, 13, 14, 15, 16, 17, 19, 21), "destination": (0, 3, 5, 7, 9)}
"""Messages that still leave a side: the outcome, the commits, the calls one by one, their acks, what is told."""


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run, the gate is shut."""
    global GATE  # noqa: PLW0603 - an event belongs to the loop of one test
    RAN.clear()
    GATE = asyncio.Event()


@agent(concurrency=1)
class Log:
    """Keeps lines."""

    lines: ManagedList[str]
    count: ManagedCounter

    @method
    async def add(self, text: str, *, gated: bool) -> int:
        """Keep a line, perhaps when the gate opens."""
        RAN[text] += 1
        if gated:
            await GATE.wait()
        self.lines.append(text)
        self.count += 1
        return self.count


@workflow
async def note(text: str, gated: bool = False) -> int:  # noqa: FBT001, FBT002 - a request's argument
    """One line."""
    return await Log.add(text, gated=gated)


class Fuse:
    """Cuts a host off from the server when it has sent so many messages.

    Args:
        host: whose connection; left: messages that still leave it.

    Attributes:
        sent: messages that wanted to leave; blown: set when the first one could not.
    """

    def __init__(self, host: Host, left: int) -> None:
        self.left = left
        self.sent: list[bytes] = []
        self.blown = asyncio.Event()
        client: Any = host.node.connection.client
        for name in ("write", "write_later"):
            setattr(client, name, self._through(getattr(client, name)))
        plain = client._send_command

        async def send_command(frame: bytes, *, priority: bool = False) -> None:
            if self._lets_pass(frame):
                await plain(frame, priority)

        client._send_command = send_command

    def _through(self, write: Callable[[bytes], None]) -> Callable[[bytes], None]:
        return lambda frame: write(frame) if self._lets_pass(frame) else None

    def _lets_pass(self, frame: bytes) -> bool:
        if frame.startswith((b"PUB", b"HPUB")):
            self.sent.append(frame)
        if len(self.sent) > self.left:
            self.blown.set()
        return not self.blown.is_set()


async def queued(board: Board) -> tuple[Client, Host, Host, list[str]]:
    """A session with a call that runs and some behind it, its holder, another host, and the runs."""
    hosts = [await board.host(Log), await board.host(Log), await board.host(Log)]
    await board.host(note)
    client = await board.client()
    await client.run("note", {"text": "first"}, session="s", timeout=30)
    held = (await client.state.show("Log", "s")).holder
    source, other, _ = sorted(hosts, key=lambda host: host.id != held)
    runs = [await client.submit("note", {"text": "long", "gated": True}, session="s")]
    await until(lambda: RAN["long"] == 1)
    for number in range(QUEUED):
        runs.append(await client.submit("note", {"text": str(number)}, session="s"))
    await until(lambda: len(instance(source, Log).running) == QUEUED + 1)
    return client, source, other, runs


@pytest.mark.parametrize(("side", "after"), [(side, after) for side, some in STEPS.items() for after in some])
async def test_it_dies_after_so_many_messages(board: Board, side: str, after: int) -> None:
    """Its last message was number so and so of the move: nothing is lost, and nothing counts twice."""
    client, source, other, runs = await queued(board)
    victim = source if side == "source" else other
    moving = asyncio.create_task(client.migrate("s", "Log", source.id, other.id, timeout=5.0))
    await until(lambda: bool(source.migrations._moves))
    fuse = Fuse(victim, after)
    GATE.set()
    await asyncio.wait(
        [moving, asyncio.ensure_future(fuse.blown.wait())], return_when=asyncio.FIRST_COMPLETED
    )
    await board.kill(victim)
    assert sorted([await client.result(run, SOON) for run in runs]) == list(range(2, QUEUED + 3))
    await asyncio.gather(moving, return_exceptions=True)
    view = await client.state.show("Log", "s")
    assert sorted(view.attributes["lines"]) == sorted(["first", "long", *map(str, range(QUEUED))])
    assert view.attributes["count"] == QUEUED + 2
    assert view.holder in {host.id for host in board._hosts}
    assert max(RAN.values()) <= 2
    assert sum(RAN.values()) <= QUEUED + 3  # only the one that ran when its host died
