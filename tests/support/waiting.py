"""Waiting for what a test has caused, without guessing how long it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

SOON = 30.0
"""Seconds after which a test gives up on something that should happen at once, on a busy machine too."""
_TURN = 0.005


async def until(condition: Callable[[], object], timeout: float = SOON) -> None:
    """Give way to the event loop until the condition holds.

    Raises:
        AssertionError: it does not within ``timeout`` seconds.
    """
    ends = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > ends:
            raise AssertionError(f"still not so after {timeout} s: {condition}")
        await asyncio.sleep(_TURN)


async def eventually(ask: Callable[[], Awaitable[T]], timeout: float = SOON) -> T:
    """Ask until the answer is true, and give it.

    Raises:
        AssertionError: it is not within ``timeout`` seconds.
    """
    ends = time.monotonic() + timeout
    while True:
        found = await ask()
        if found:
            return found
        if time.monotonic() > ends:
            raise AssertionError(f"still {found!r} after {timeout} s: {ask}")
        await asyncio.sleep(_TURN)
