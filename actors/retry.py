"""What a failed attempt leads to: again, or the end. Shared by hosts and the local runtime."""

from __future__ import annotations

import random
from typing import Final

from callboard.actors.directives import Directives
from callboard.infra.errors import CallboardError, CallTimeout, Terminal

PATIENCE: Final = 300.0
"""Seconds for which attempts are excused of a call that has neither a deadline nor a timeout."""


def retry_delay(directives: Directives, error: BaseException, attempt: int) -> float | None:
    """Seconds until the next attempt, or None if this was the last one.

    The delay doubles from ``backoff`` up to ``backoff_max``; half of it is drawn at random, so that
    what failed together does not come back together ("equal jitter", AWS Architecture Blog, 2015). An error
    with a ``retry_after`` (s) is not repeated before: the delay comes on top of it.

    Args:
        attempt: the one that failed, from 1; those that do not count left out.
    """
    if attempt > directives.retries or not _retryable(directives, error):
        return None
    full: float = min(directives.backoff_max, directives.backoff * 2.0 ** min(attempt - 1, 64))
    drawn = random.uniform(full / 2, full)
    wait: float = error.fields.get("retry_after", 0.0) if isinstance(error, CallboardError) else 0.0
    return drawn + wait


def excused_delay(
    directives: Directives, error: BaseException, since: float, now: float, deadline: float
) -> float | None:
    """Seconds until an attempt is repeated that does not count as a retry, or None if it counts.

    Such attempts go on until the call's deadline, else for as long as its ``timeout``, else for five minutes.

    Args:
        since: of the first of them; now; deadline: of the call, 0 for none; all in unix seconds.
    """
    wait = error.again_in if isinstance(error, CallboardError) else None
    if wait is None or not _retryable(directives, error):
        return None
    limit = deadline or since + (PATIENCE if directives.timeout is None else directives.timeout)
    return wait if now + wait < limit else None


def _retryable(directives: Directives, error: BaseException) -> bool:
    if directives.retry_on:
        return any(kind.__qualname__ in directives.retry_on for kind in type(error).__mro__)
    if isinstance(error, CallTimeout):
        return directives.idempotent
    if isinstance(error, Terminal):
        return False
    return error.retryable if isinstance(error, CallboardError) else isinstance(error, Exception)
