"""One more fault: sessions that are moved from host to host all the time, at moments that the seed draws."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence

from tests.faults.board import Board, until

from callboard.actors import registry
from callboard.infra.errors import (
    Fenced,
    MigrationFailed,
    NoDestination,
    RequestTimeout,
    ResultTimeout,
    StateUnknown,
    UnknownActor,
)

_ACTORS = ("Purse", "Chest")
_REFUSED = (Fenced, MigrationFailed, NoDestination, RequestTimeout, ResultTimeout, StateUnknown, UnknownActor)
"""What whoever asks may be told while hosts come and go; the session is at one place all the same."""


class Mover:
    """Moves sessions.

    Args:
        board: where; sessions: which.

    Attributes:
        over: no further move is begun; moved: how many have; calls: that went after them; refused: how many could not be moved then.
    """

    def __init__(self, board: Board, sessions: Sequence[str]) -> None:
        self._board = board
        self._sessions = sessions
        self._chance = random.Random(board.chance.randrange(2**32))
        self.moved = self.calls = self.refused = 0
        self.over = False

    async def progress(self, moves: int) -> None:
        """Wait until so many sessions have moved."""
        await until(lambda: self.moved >= moves, f"{moves} sessions moved")

    async def go_on(self) -> None:
        """Move one session after the other, now and then several in one go."""
        client, chance = self._board.client, self._chance
        while not self.over:
            some = chance.sample(self._sessions, chance.choice((1, 1, 1, 2)))
            hosts = [p.host for p in await registry.hosts(client.node) if "Purse" in p.instances]
            to = chance.choice(hosts) if hosts else None
            try:
                moved = await client.migrate(some, chance.choice(_ACTORS), None, to, timeout=30)
            except _REFUSED:
                self.refused += 1
            else:
                self.moved += sum(one.epoch > 0 for one in moved)
                self.calls += sum(one.calls for one in moved)
            await asyncio.sleep(chance.uniform(0.0, 0.05))  # so that calls run in between


@contextlib.asynccontextmanager
async def moving(board: Board, sessions: Sequence[str], count: int = 2) -> AsyncIterator[Mover]:
    """Move sessions meanwhile, so many at a time."""
    mover = Mover(board, sessions)
    tasks = [asyncio.create_task(mover.go_on()) for _ in range(count)]
    try:
        yield mover
    finally:
        mover.over = True  # what has begun to move arrives
        await asyncio.gather(*tasks)
