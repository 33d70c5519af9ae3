"""Work side by side, of which nothing goes on when one part has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it at once.

    Raises:
        the first error, as it is; what has not ended by then is cancelled. ``asyncio.gather`` would let it
        go on, ``asyncio.TaskGroup`` would wrap the error.
    """
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
