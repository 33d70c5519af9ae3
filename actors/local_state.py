"""Managed state without NATS: the same sessions, kept in memory for as long as the process lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from callboard.actors import values
from callboard.actors.local_locks import SessionLocks
from callboard.actors.sessions import held
from callboard.infra.settings import Settings
from callboard.state.managed import within
from callboard.state.sessions import Sessions
from callboard.state.shelf import MemoryShelf, Place

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.state.session import Rules, Session

_settings = Settings()
_shelf = MemoryShelf(_settings)
locks = SessionLocks()
"""Of all local runs of this process."""


class LocalStates:
    """The sessions of one local run. Others may write to them between its calls.

    Args:
        makers: where the run was begun, if that was in handlers of others.
    """

    def __init__(self, makers: Sequence[str]) -> None:
        self._sessions = Sessions(_shelf, _settings)
        self._makers = makers

    async def handle(
        self, future: Future[Any], rules: Rules, run: Callable[[], Awaitable[values.Encoded]]
    ) -> values.Encoded:
        """Run a handler with its session's state, and keep what it has changed if it succeeds.

        Raises:
            SessionHeld: the call which made this one holds the session.
        """
        place = Place(future.method.actor, future.session)
        entry = locks.enter(place, future.id, self._makers)
        if entry is None:
            raise held(future.method, future.session)
        try:
            await entry.granted
            session = await self._opened(place, rules)
            try:
                with within(session.begin()):
                    encoded = await run()
                await session.commit()
            finally:
                session.rollback()
        finally:
            locks.leave(entry)
        return encoded

    async def _opened(self, place: Place, rules: Rules) -> Session:
        """A session as it was last written, by whichever run."""
        known = self._sessions.opened(place, rules)
        if known is not None and not await known.is_newest():
            self._sessions.forget(*place)
        return await self._sessions.open(*place, rules)
