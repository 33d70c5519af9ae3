"""When a process that has crashed is started again: later each time, until it has lived for a while."""

from __future__ import annotations

FIRST_WAIT, LONGEST_WAIT = 0.2, 10.0
"""Seconds; each wait is twice the one before."""
HEALTHY_AFTER = 10.0
"""Seconds of life after which earlier crashes do not count."""


class Restarts:
    """Counts the crashes of one process."""

    def __init__(self) -> None:
        self._crashes = 0

    def crashed(self, lived: float) -> float:
        """Gives the seconds to wait before the next start.

        Args:
            lived: seconds from its start to its end.
        """
        if lived > HEALTHY_AFTER:
            self._crashes = 0
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._crashes, 30))
        self._crashes += 1
        return wait
