"""What the scenario of batches runs: an agent whose host now and then kills itself between two commits."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import callboard
from callboard import ManagedCounter, ManagedList
from callboard.state.session import Session

DEATHS = 8
_folder = Path(os.environ.get("FAULTS_LEDGER", "ledger")).parent


class _Death:
    """When this process ends: before or after so many commits of the batch that runs."""

    left = -1
    after = False


def _doom(numbers: list[int]) -> None:
    """Let the host end in the midst of this batch's commits, a few times in all."""
    if _Death.left >= 0:
        return  # another batch of this host has doomed it: it can die only once
    for death in range(DEATHS):
        if len(numbers) > 1 and max(numbers) >= 3 * (death + 1):
            try:
                (_folder / f"death{death}").touch(exist_ok=False)
            except FileExistsError:
                continue
            _Death.left, _Death.after = 1 + death % (len(numbers) - 1), death % 2 == 0
            return


def _step(*, after: bool) -> None:
    if _Death.after is not after or _Death.left < 0:
        return
    if _Death.left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    _Death.left -= 1


def arm() -> None:
    """In a host process: commits count."""
    real = Session.commit

    async def commit(self: Session, *args: Any) -> int:
        _step(after=False)
        try:
            return await real(self, *args)
        finally:
            _step(after=True)

    Session.commit = commit  # type: ignore[assignment]


@callboard.agent(concurrency=2)
class Till:
    """Rings up for many sessions at once."""

    rung: ManagedList[int]
    count: ManagedCounter

    @callboard.batchable(max_batch=8, max_wait=0.01)
    async def ring(self, numbers: list[int]) -> list[int]:
        """Add a line in each item's session."""
        places = []
        for number in callboard.each(numbers):
            self.rung.append(number)
            self.count += 1
            places.append(len(self.rung))
        _doom(numbers)
        return places

    @callboard.method
    async def all(self) -> tuple[list[int], int]:
        """All that was rung up."""
        return list(self.rung), self.count


@callboard.workflow
async def ringing(session: str, count: int) -> tuple[list[int], list[int], int]:
    """So many calls, one after the other; where each stood, and what there is at the end."""
    with callboard.options(session=session):
        places = [await Till.ring(number) for number in range(count)]
        rung, counted = await Till.all()
    return places, rung, counted


async def ring_all(client: callboard.Client, sessions: int, count: int, patience: float) -> list[Any]:
    """A run for each session, all at once; what they gave."""
    runs = [
        await client.submit(ringing.name, {"session": f"s{number}", "count": count})
        for number in range(sessions)
    ]
    return await asyncio.gather(*(client.result(run, patience) for run in runs))
