"""The event loop of the client of both sides and of the floor's worker."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import TypeVar

LOOP = "BENCH_LOOP"
LOOPS = ("asyncio", "uvloop")

Result = TypeVar("Result")


def run(main: Coroutine[None, None, Result]) -> Result:
    """Run `main` on the event loop that the environment variable `BENCH_LOOP` names."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if os.environ.get(LOOP) == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
