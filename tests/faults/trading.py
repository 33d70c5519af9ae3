"""The load of a scenario of sessions, and the verdict on what it leaves behind."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import msgspec
from tests.faults.accounts import Report
from tests.faults.board import Board
from tests.faults.checker import Accepted, Allowed, Evidence
from tests.faults.histories import Account, Answer, History, Line, Place, violations

from callboard.actors.node import Node
from callboard.infra.messages.run import Done, Result
from callboard.state.states import States

_SHOWN = 20


class _Any:
    """Equal to everything: where operations took effect depends on who came first."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


class Trade:
    """Business in some sessions.

    Args:
        board: where it goes on.
        sessions: how many.
    """

    def __init__(self, board: Board, sessions: int = 4) -> None:
        self._board = board
        self.sessions = [f"s{number}" for number in range(sessions)]
        self._of: dict[str, str] = {}

    async def load(self, count: int, steps: int = 5, pause: float = 0.01) -> None:
        """Submit so many runs; their makers share the sessions."""
        await asyncio.gather(*(self._some(steps, pause) for _ in range(count)))

    async def _some(self, steps: int, pause: float) -> None:
        chance = self._board.chance
        session = chance.choice(self.sessions)
        arguments = {
            "maker": f"m{len(self._of)}",
            "others": [other for other in self.sessions if other != session],
            "seed": chance.randrange(2**32),
            "steps": steps,
            "pause": pause * chance.uniform(0.0, 2.0),
        }
        self._of[maker := str(arguments["maker"])] = session
        run = await self._board.client.submit("business", arguments, session=session)
        self._of[run] = self._of.pop(maker)
        self._board.accepted.append(Accepted(run, "business", _Any()))

    async def verdict(self, allowed: Allowed | None = None) -> History:
        """Wait for all outcomes, then hold runs and sessions against the guarantees."""
        found = await self._board.verdict(allowed)
        history = await self._history(found)
        broken = violations(history)
        if broken:
            raise AssertionError(f"{len(broken)} violations:\n" + "\n".join(broken[:_SHOWN]))
        return history

    async def _history(self, found: Evidence) -> History:
        answers: dict[Place, list[Answer]] = defaultdict(list)
        moved: list[tuple[str, str]] = []
        told: dict[str, float] = {}
        for entry in found.journal:
            if isinstance(entry.body, Result):
                told.setdefault(entry.body.future, entry.at)
            elif isinstance(entry.body, Done):
                report = msgspec.msgpack.decode(entry.body.value, type=Report)
                moved += report.moved
                for one in report.answers:
                    answers[Place(one.actor, one.session or self._of[entry.run])].append(one)
        return History(answers, await self._accounts(), told, moved)

    async def _accounts(self) -> dict[Place, Account]:
        node = await Node(self._board.settings(), "checker").open()
        try:
            states = States(node.shelf, node.settings)
            found: dict[Place, Account] = {}
            for info in await states.all():
                held: dict[str, Any] = (await states.show(info.actor, info.session)).attributes
                lines = [Line(*line) for line in held.get("log", [])]
                found[Place(info.actor, info.session)] = Account(lines, held.get("balance", 0))
            return found
        finally:
            await node.close()
