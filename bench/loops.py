"""The event loop of the client of both sides and of the floor's worker."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import TypeVar

LOOP = "BENCH_LOOP"
LOOPS = ("shipped", "asyncio", "uvloop")
"""``shipped``: each side as it comes. A nats-py program runs on asyncio unless its author does something
about it; Callboard's processes run on uvloop. The others put both sides on the same loop."""

Result = TypeVar("Result")


def of(role: str, loop: str) -> str:
    """The event loop of a role's processes under this choice."""
    return loop if loop != "shipped" else "uvloop" if role == "callboard" else "asyncio"


def run(main: Coroutine[None, None, Result]) -> Result:
    """Run `main` on the event loop that the environment variable `BENCH_LOOP` names."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if os.environ.get(LOOP) == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
