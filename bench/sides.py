"""What a case may ask of either side: the same small jobs, on the same processes.

Each side is a nats-server, one worker process and the process of the round, which is the floor's
client and Callboard's client and driver.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from bench import jobs
from bench.accounting import Parts
from bench.harness import Role
from bench.processes import Child, Place, place


class Load(msgspec.Struct, frozen=True):
    """What a closed loop measured.

    Args:
        elapsed_s: seconds from the first start to the last end.
        latencies_s: seconds of each job.
    """

    elapsed_s: float
    latencies_s: list[float]


class Side(Protocol):
    """One side of the comparison, running."""

    def parts(self) -> Parts:
        """The processes: `server`, `worker` and, as `client`, this one."""

    async def sequential(self, count: int) -> list[float]:
        """Call a no-op `count` times, each after the other; seconds of each."""

    async def concurrent(self, count: int) -> float:
        """Call a no-op `count` times at once; seconds until all have answered."""

    async def fan_out(self, count: int) -> float:
        """Have one workflow call a no-op `count` times and join; its seconds for the client."""

    async def workflows(self, count: int, at_once: int) -> Load:
        """Run plan, three parallel tools and summary `count` times, `at_once` at a time."""

    async def hold(self, count: int) -> Awaitable[None]:
        """Store `count` calls for a blocked worker; what is returned ends when all are answered."""

    async def interruptible(self, trial: int) -> None:
        """Call a handler that hangs until its process is killed, and returns when run again."""

    def workers(self) -> list[Child]:
        """The worker processes started so far."""

    async def add_worker(self) -> Child:
        """Start one more worker process and wait until it takes calls."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A side and the folder it works in."""

    side: Side
    here: Place


@contextlib.asynccontextmanager
async def open_side(role: Role, tools: Sequence[str], workflows: Sequence[str]) -> AsyncIterator[Stage]:
    """Start a side for one round.

    Its module is imported here and not above: both need this one, and the floor must not carry
    Callboard's modules where memory is measured.

    Args:
        role: which side.
        tools: names of the tools in `bench/app.py` that the worker serves.
        workflows: names of the workflows in `bench/app.py` that the driver serves.
    """
    async with place() as here, _open(role, here, tools, workflows) as side:
        yield Stage(side, here)


def _open(
    role: Role, here: Place, tools: Sequence[str], workflows: Sequence[str]
) -> contextlib.AbstractAsyncContextManager[Side]:
    if role is Role.FLOOR:
        from bench import floor

        return floor.open_side(here)
    from bench import callboard_side

    return callboard_side.open_side(here, tools, workflows)


def worker_env(here: Place) -> dict[str, str]:
    """Environment that tells a worker its gate and its ledger."""
    return {jobs.GATE: str(here.folder / "gate"), jobs.LEDGER: str(here.folder / "ledger")}


async def closed_loop(job: Callable[[int], Awaitable[None]], count: int, at_once: int) -> Load:
    """Run `job(0)` to `job(count - 1)`, keeping `at_once` of them going."""
    numbers = iter(range(count))
    latencies: list[float] = []

    async def lane() -> None:
        for number in numbers:
            begun = time.perf_counter()
            await job(number)
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    async with asyncio.TaskGroup() as lanes:
        for _ in range(at_once):
            lanes.create_task(lane())
    return Load(time.perf_counter() - begun, latencies)
