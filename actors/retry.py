"""What a failed attempt leads to: again, or the end. Shared by hosts and the local runtime."""

from __future__ import annotations

import random

from callboard.actors.directives import Directives
from callboard.infra.errors import CallboardError, CallTimeout, Terminal


def retry_delay(directives: Directives, error: BaseException, attempt: int) -> float | None:
    """Seconds until the next attempt, or None if this was the last one.

    The delay doubles from ``backoff`` up to ``backoff_max``; half of it is drawn at random, so that
    what failed together does not come back together ("equal jitter", AWS Architecture Blog, 2015). An error
    with a ``retry_after`` (s) is not repeated before.

    Args:
        attempt: the one that failed, from 1.
    """
    if attempt > directives.retries or not _retryable(directives, error):
        return None
    full: float = min(directives.backoff_max, directives.backoff * 2.0 ** min(attempt - 1, 64))
    drawn = random.uniform(full / 2, full)
    return max(drawn, error.fields.get("retry_after", 0.0)) if isinstance(error, CallboardError) else drawn


def _retryable(directives: Directives, error: BaseException) -> bool:
    if directives.retry_on:
        return any(kind.__qualname__ in directives.retry_on for kind in type(error).__mro__)
    if isinstance(error, CallTimeout):
        return directives.idempotent
    if isinstance(error, Terminal):
        return False
    return error.retryable if isinstance(error, CallboardError) else isinstance(error, Exception)
