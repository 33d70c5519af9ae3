"""Many who ask whether a call has its outcome share a read; one that failed is nobody's."""

from __future__ import annotations

import asyncio
import math

import pytest

from callboard.infra.direct import Stored
from callboard.infra.errors import RequestTimeout
from callboard.infra.messages.run import Result
from callboard.state.journal import Outcomes, encode


class Journal:
    """One outcome; the first read waits, the second one fails."""

    def __init__(self) -> None:
        self.reads = 0
        self.reading = asyncio.Event()
        self.gate = asyncio.Event()

    async def done(self, run: str) -> None:
        """The run goes on."""

    async def read(self, run: str, kind: str, after: int = 0) -> list[Stored]:
        """As `callboard.state.journal.Journal.read`."""
        self.reads += 1
        if self.reads == 1:
            self.reading.set()
            await self.gate.wait()
            return []
        if self.reads == 2:
            raise RequestTimeout("late", subject="", timeout=1.0)
        return [Stored("cb.run.r.result", 7, 0.0, {}, encode(Result("r:1", "a.b")))] if after < 7 else []


async def test_a_read_that_failed_is_not_taken_for_one_that_was_made() -> None:
    """Three ask; the second one's read fails, which the third one was to share."""
    journal = Journal()
    outcomes = Outcomes(journal)  # type: ignore[arg-type]
    outcomes._done["r"] = (math.inf, False)
    asking = [asyncio.create_task(outcomes.known("r", "r:1")) for _ in range(3)]
    await journal.reading.wait()
    await asyncio.sleep(0)
    journal.gate.set()
    first, second, third = await asyncio.gather(*asking, return_exceptions=True)
    assert first is False
    assert isinstance(second, RequestTimeout)
    assert third is True


async def test_who_asks_later_reads_anew() -> None:
    """After a failure, too."""
    journal = Journal()
    journal.reads = 1
    outcomes = Outcomes(journal)  # type: ignore[arg-type]
    outcomes._done["r"] = (math.inf, False)
    with pytest.raises(RequestTimeout):
        await outcomes.known("r", "r:1")
    assert await outcomes.known("r", "r:1")
