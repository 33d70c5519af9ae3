"""Waiting for the ends of runs: so many at once, and no longer than a drain allows."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

from callboard.infra.errors import Overloaded

T = TypeVar("T")
_SOONEST = 0.05
_SMOOTHING = 0.05


class Waits:
    """The waiting requests of a gateway.

    Args:
        most: how many may wait at once; more are refused.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting = 0
        self._took = 0.0
        self._limits: set[asyncio.Timeout] = set()
        self._ends: float | None = None

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place among the waiting.

        Raises:
            Overloaded: there is none; says when there probably is.
        """
        if self._waiting >= self._most:
            retry_after = round(max(_SOONEST, self._took / self._most), 3)
            raise Overloaded(
                f"{self._waiting} requests wait here already: ask again in {retry_after} s, or use "
                "cb.api.submit and fetch the result later",
                queue=self._waiting,
                retry_after=retry_after,
            )
        self._waiting += 1
        begun = monotonic()
        try:
            yield
        finally:
            self._waiting -= 1
            took = monotonic() - begun
            self._took += (took - self._took) * _SMOOTHING

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Do the work, but no longer than so many seconds, or than :meth:`cut` allows.

        Raises:
            TimeoutError: it was not done by then.
        """
        ends = asyncio.get_running_loop().time() + max(0.0, seconds)
        limit = asyncio.timeout_at(ends if self._ends is None else min(ends, self._ends))
        try:
            async with limit:
                self._limits.add(limit)
                return await work
        finally:
            self._limits.discard(limit)

    @property
    def ending(self) -> bool:
        """Whether :meth:`cut` was called."""
        return self._ends is not None

    def cut(self, seconds: float) -> None:
        """From now on nothing waits longer than this."""
        ends = self._ends = asyncio.get_running_loop().time() + seconds
        for limit in self._limits:
            when = limit.when()
            if when is None or when > ends:
                limit.reschedule(ends)
