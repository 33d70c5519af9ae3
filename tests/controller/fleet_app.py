"""An application whose hosts a controller starts and ends; what runs is written down in a file."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from callboard import signal, tool, workflow

HOLD = "hold"
"""While there is a file of this name beside the ledger, work does not end."""


def note(line: str) -> None:
    """Append a line to the file that the test reads."""
    with Path(os.environ["FLEET_LEDGER"]).open("a") as ledger:
        ledger.write(f"{line} {os.getpid()}\n")


@tool(min_instances=2, max_instances=3, concurrency=4)
async def work(number: int) -> int:
    """Take a moment."""
    note(f"work {number}")
    await asyncio.sleep(0.1)
    while Path(os.environ["FLEET_LEDGER"]).with_name(HOLD).exists():
        await asyncio.sleep(0.05)
    return number


@tool(min_instances=1)
async def needed() -> None:
    """Be there, beside others that must be."""


@tool
async def extra(number: int) -> int:
    """Nobody runs it until somebody decides so; tells where it runs."""
    return os.getpid()


@tool(resources={"gpu": 1})
async def heavy(number: int) -> int:
    """Need a resource."""
    return number


@tool(resources={"gpu": 2})
async def heavier(number: int) -> int:
    """Need more of it."""
    return number


@tool
async def stuck() -> None:
    """Block the event loop, for longer than any test takes."""
    note("stuck")
    time.sleep(300)  # noqa: ASYNC251 - that is the point


@workflow
async def working(count: int) -> int:
    """Many calls at once."""
    return sum(await asyncio.gather(*(work(number) for number in range(count))))


@workflow
async def asking() -> int:
    """One call."""
    return await extra(1)


@workflow(concurrency=1)
async def narrow() -> None:
    """One run at a time, until somebody says so."""
    await signal("go")


@workflow
async def sticking() -> None:
    """One call that does not end."""
    await stuck()
