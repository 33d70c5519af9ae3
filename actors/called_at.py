"""Where in a user's code a call is made: what the error over a wrong argument points at."""

from __future__ import annotations

import sys
from types import FrameType

from callboard.infra.errors import InvalidArguments

_OWN = "callboard."

Place = tuple[str, int]
"""A file and a line of it."""


def place() -> Place | None:
    """The line nearest to here that is not Callboard's own; None if there is none, as in a driver."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - what `inspect` uses, without reading sources
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith(_OWN):
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__") in {"asyncio.events", "threading"}:
        return None
    return frame.f_code.co_filename, frame.f_lineno


def placed(error: InvalidArguments, at: Place | None) -> InvalidArguments:
    """The error with the line that made the call, in its text and as its field ``called_at``."""
    if at is None or "called_at" in error.fields:
        return error
    where = f"{at[0]}:{at[1]}"
    told = InvalidArguments(f"{error.message} (called at {where})", **error.fields, called_at=where)
    told.__cause__ = error.__cause__
    return told
