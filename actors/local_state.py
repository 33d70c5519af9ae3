"""Managed state without NATS: the same sessions, kept in memory for as long as the process lives."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from callboard.actors import values
from callboard.actors.local_turns import is_made_by
from callboard.actors.sessions import held
from callboard.infra.errors import Fenced
from callboard.infra.settings import Settings
from callboard.state.managed import within
from callboard.state.sessions import Sessions
from callboard.state.shelf import MemoryShelf, Place

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.state.session import Rules

_settings = Settings()
_shelf = MemoryShelf(_settings)


class LocalStates:
    """The sessions of one local run. Others may write to them meanwhile: then a handler runs once more."""

    def __init__(self) -> None:
        self._sessions = Sessions(_shelf, _settings)
        self._locks: defaultdict[Place, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._holders: dict[Place, str] = {}

    async def handle(
        self, future: Future[Any], rules: Rules, run: Callable[[], Awaitable[values.Encoded]]
    ) -> values.Encoded:
        """Run a handler with its session's state, and keep what it has changed if it succeeds.

        Raises:
            SessionHeld: the call which made this one holds the session.
        """
        place = Place(future.method.actor, future.session)
        if is_made_by(future.id, self._holders.get(place, "-")):
            raise held(future.method, future.session)
        async with self._locks[place]:
            self._holders[place] = future.id
            try:
                while True:
                    try:
                        return await self._once(place, rules, run)
                    except Fenced:
                        self._sessions.forget(*place)
            finally:
                del self._holders[place]

    async def _once(
        self, place: Place, rules: Rules, run: Callable[[], Awaitable[values.Encoded]]
    ) -> values.Encoded:
        session = await self._sessions.open(*place, rules)
        try:
            with within(session.begin()):
                encoded = await run()
            await session.commit()
            return encoded
        finally:
            session.rollback()
