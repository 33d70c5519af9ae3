"""Load from outside: requests are submitted when their plan says, however slow the answers are.

A loop that is open like this shows what users would wait. A latency counts from when the request was due, so
that one which was submitted late is not let off ("coordinated omission": Tene, "How NOT to Measure Latency",
2013).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.controller.arrivals import Arrival
from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from callboard.actors.client import Client

LATE = 0.01
"""Seconds after which a submission counts as late."""


class Latency(msgspec.Struct, frozen=True):
    """Latencies in seconds; all 0 where there are none."""

    mean: float = 0.0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


def latency_of(seconds: Sequence[float]) -> Latency:
    """The figures of many latencies."""
    if not len(seconds):
        return Latency()
    import numpy as np

    p50, p95, p99 = np.percentile(seconds, (50, 95, 99)).tolist()
    return Latency(float(np.mean(seconds)), p50, p95, p99, float(max(seconds)))


class LoadFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a load has come to.

    Attributes:
        planned: requests of the whole plan; submitted: of which the server has acked.
        refused: that could not be submitted; done, failed: that have ended; open: that have not.
        late: submitted more than 10 ms after they were due; latest: seconds by which one was late at most.
        seconds: from the beginning until the last outcome; rate: requests a second that were done in it.
        latency: of those done, from when they were due; from_submission: from when they were submitted.
        errors: how often each error code ended a run, or refused one.
    """

    planned: int
    submitted: int
    refused: int
    done: int
    failed: int
    open: int
    late: int
    latest: float
    seconds: float
    rate: float
    latency: Latency
    from_submission: Latency
    errors: dict[str, int] = {}


class Load:
    """One load on one workflow.

    Args:
        client: open; workflow: its name.
        plan: in order of time; arguments: of all requests.
    """

    def __init__(
        self, client: Client, workflow: str, plan: Sequence[Arrival], arguments: Mapping[str, Any]
    ) -> None:
        self._client = client
        self._workflow = workflow
        self._plan = plan
        self._arguments = dict(arguments)
        self._stopping = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()
        self._began = self._over = time.monotonic()
        self._due: list[float] = []
        self._sent: list[float] = []
        self._errors: dict[str, int] = {}
        self.submitted = self.refused = self.failed = self._late = 0
        self._latest = 0.0

    @property
    def done(self) -> int:
        """Requests that have completed."""
        return len(self._due)

    @property
    def under_way(self) -> int:
        """Requests without an outcome."""
        return len(self._under_way)

    def stop(self) -> None:
        """Submit no more."""
        self._stopping.set()

    async def submit(self) -> None:
        """Submit all of the plan, each request when it is due; ends with the last one, or when stopped."""
        self._began = time.monotonic()
        for arrival in self._plan:
            wait = self._began + arrival.at - time.monotonic()
            if (wait > 0 and await self._stopped_within(wait)) or self._stopping.is_set():
                return
            task = asyncio.create_task(self._request(arrival))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            if wait <= 0:
                await asyncio.sleep(0)  # behind: what was made goes out before more is made

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        except TimeoutError:
            return False

    async def settle(self, seconds: float) -> None:
        """Wait for what is under way."""
        if self._under_way:
            await asyncio.wait(list(self._under_way), timeout=seconds)

    async def abandon(self) -> None:
        """Wait for nothing more; the runs go on."""
        left = list(self._under_way)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _request(self, arrival: Arrival) -> None:
        due, begun = self._began + arrival.at, time.monotonic()
        self._late += begun - due > LATE
        self._latest = max(self._latest, begun - due)
        try:
            arguments = {**self._arguments, **arrival.arguments}
            run = await self._client.submit(
                self._workflow, arguments, session=arrival.session or None, as_json=True
            )
        except CallboardError as error:
            self.refused += 1
            self._note(error.code)
            return
        self.submitted += 1
        done = await self._client.done(run)
        self._over = time.monotonic()
        if done.error is not None:
            self.failed += 1
            self._note(done.error.code)
        else:
            self._due.append(self._over - due)
            self._sent.append(self._over - begun)

    def _note(self, code: str) -> None:
        self._errors[code] = self._errors.get(code, 0) + 1

    def figures(self) -> LoadFigures:
        """What it has come to by now."""
        elapsed = max(self._over - self._began, 0.0)
        return LoadFigures(
            planned=len(self._plan),
            submitted=self.submitted,
            refused=self.refused,
            done=self.done,
            failed=self.failed,
            open=self.submitted - self.done - self.failed,
            late=self._late,
            latest=self._latest,
            seconds=elapsed,
            rate=self.done / elapsed if elapsed else 0.0,
            latency=latency_of(self._due),
            from_submission=latency_of(self._sent),
            errors=self._errors,
        )
