"""The sessions of stateful agents without NATS: one call at a time in each, as in hosts (``sessions.py``)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard.actors.future import Future


class LocalTurns:
    """Whose turn it is, by actor and session."""

    def __init__(self) -> None:
        self._lines: defaultdict[tuple[str, str], _Line] = defaultdict(_Line)

    @contextlib.asynccontextmanager
    async def turn(self, call: Future[Any]) -> AsyncIterator[None]:
        """Wait for the call's turn, and hold the session."""
        line = self._lines[call.method.actor, call.session]
        await line.enter(call.id)
        try:
            yield
        finally:
            line.leave(call.id)


def is_made_by(call: str, other: str) -> bool:
    """Whether an attempt at the other call has made it, directly or through further calls."""
    return call.startswith((f"{other}.", f"{other}~"))


class _Line:
    def __init__(self) -> None:
        self._holders: list[str] = []  # each one was made by the one before
        self._behind: deque[tuple[str, asyncio.Future[None]]] = deque()

    async def enter(self, call: str) -> None:
        if self._lets_in(call):
            self._holders.append(call)
            return
        turn = asyncio.get_running_loop().create_future()
        self._behind.append((call, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if call in self._holders:
                self.leave(call)
            else:
                self._behind.remove((call, turn))
            raise

    def leave(self, call: str) -> None:
        self._holders.remove(call)
        found = next((one for one in self._behind if self._lets_in(one[0])), None)
        if found is not None:
            self._behind.remove(found)
            self._holders.append(found[0])
            found[1].set_result(None)

    def _lets_in(self, call: str) -> bool:
        return not self._holders or is_made_by(call, self._holders[-1])
