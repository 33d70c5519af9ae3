"""Faults that are asked for: what the next requests of an emulated engine run into."""

from __future__ import annotations

from collections import deque
from typing import Literal

import msgspec

Kind = Literal["stall", "break", "rubbish", "error", "die", "refuse"]


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong with the next requests for a chat or a completion.

    Attributes:
        kind: ``stall``: it says nothing more, and stays open. ``break``: the connection ends. ``rubbish``: it
            sends what is no JSON. ``error``: it sends an error in the stream. ``die``: the process ends at
            once, as with ``kill -9``. ``refuse``: it is refused with ``status`` before it begins.
        after: tokens that are said before (not for ``refuse``).
        times: requests that it hits.
        text: that ``rubbish`` sends in the place of a chunk's JSON.
        status: of ``refuse``; retry_after: its header in seconds, none if 0.
    """

    kind: Kind
    after: int = 3
    times: int = 1
    text: str = '{"id": "emul'
    status: int = 429
    retry_after: float = 0.0


class Faults:
    """Those that are still to come, in order."""

    def __init__(self) -> None:
        self._coming: deque[Fault] = deque()

    def add(self, fault: Fault) -> None:
        """One more, after the others."""
        if fault.times > 0:
            self._coming.append(fault)

    def clear(self) -> None:
        """No more."""
        self._coming.clear()

    def next(self) -> Fault | None:
        """What this request runs into, if anything."""
        if not self._coming:
            return None
        fault = self._coming[0]
        fault.times -= 1
        if not fault.times:
            self._coming.popleft()
        return fault
