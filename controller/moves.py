"""Migrations that policies decide: each asked for once, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from callboard.actors import moving
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from callboard.actors.node import Node
    from callboard.infra.messages.policy import Decision

AT_ONCE = 32
"""Migrations under way at one time."""
_TIMEOUT = 60.0
SETTLES = 1.0
"""Seconds until the view has heard of a move."""
_FAILED = 10.0
"""Seconds after which what has failed is tried again, if a policy wants it."""


class Moves:
    """The migrations under way.

    Args:
        node: of this process, open; spawn: runs a coroutine on the side.

    Attributes:
        moving: keys of states that move now, or have just done so, or failed to.
    """

    def __init__(self, node: Node, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._node = node
        self._spawn = spawn
        self._some = asyncio.Semaphore(AT_ONCE)
        self.moving: set[str] = set()
        self._log = log.get("moves")

    def begin(self, decision: Decision) -> None:
        """Carry out a decision; what is wrong with it is logged."""
        self.moving.add(decision.key)
        self._spawn(self._move(decision))

    async def _move(self, decision: Decision) -> None:
        actor, session = decision.key.split(".")[2:4]
        session, (to,) = subjects.session_of(session), decision.hosts
        again = SETTLES
        try:
            async with self._some:
                moved = await moving.migrate(self._node, [session], actor, decision.source, to, _TIMEOUT)
            self._log.debug("migrated", actor=actor, session=session, to=to, calls=moved[0].calls)
        except CallboardError as error:
            again = _FAILED
            self._log.warning("not_migrated", actor=actor, session=session, to=to, reason=str(error))
        finally:
            self._node.loop.call_later(again, self.moving.discard, decision.key)
