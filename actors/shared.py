"""Work that many ask for at once, and that is done once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from callboard.infra.errors import CallboardError

T = TypeVar("T")


class Shared(Generic[T]):
    """One such work. Each call gets the outcome of a round that began after the call, never of one before.

    Rounds follow one another, so however many ask, one is under way and one is waited for.

    Args:
        work: one round. Its CallboardErrors are an outcome too; one that is cancelled is done again by
            whoever is next.
    """

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self._lock = asyncio.Lock()
        self._begun = 0
        self._ended = 0
        self._outcome: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        """Do it, or wait for whoever does.

        Raises:
            CallboardError: as the work.
        """
        asked = self._begun
        async with self._lock:
            if self._outcome is None or self._ended <= asked:
                self._begun += 1
                outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
                try:
                    outcome.set_result(await self._work())
                except CallboardError as error:
                    outcome.set_exception(error)
                self._outcome, self._ended = outcome, self._begun
            return self._outcome.result()
