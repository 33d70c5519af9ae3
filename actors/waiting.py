"""Waiting in a workflow: for a time, or for a signal from outside. Nothing is held meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable
from datetime import datetime
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar, cast

from callboard.actors import local_waits
from callboard.actors.future import running_loop
from callboard.actors.local_maker import LocalMaker
from callboard.actors.scope import Scope, current
from callboard.infra.errors import WaitInvalid, WaitMisplaced
from callboard.infra.settings import DAY

if TYPE_CHECKING:
    from callboard.actors.future import Future

T = TypeVar("T")

_LONGEST = 36_600 * DAY
"""A hundred years, in seconds: less than what clocks, servers and threads can count."""
_SHOWN = 60


def sleep(seconds: float) -> Awaitable[None]:
    """Go on after so many seconds, however long: the run is put aside, and brought back by a timer.

    They count from this call. In a plain ``def`` workflow it returns when they are over.

    Args:
        seconds: a finite number; 0 and less are over at once.

    Raises:
        WaitInvalid: it is no such number, or longer than journals are kept.
        WaitMisplaced: called in a handler.
    """
    seconds = seconds_of(seconds, "sleep")
    scope = _board_scope("sleep")
    if scope is None:
        return _locally(seconds)
    from callboard.actors.waits import of_run

    waits = of_run(scope, "sleep")
    at = scope.maker.remember(scope.next_id(), "callboard.now", time.time) + seconds
    return handed(scope, waits.until(scope, at))


def until(when: datetime) -> Awaitable[None]:
    """Go on at a time; see :func:`sleep`.

    Args:
        when: with a time zone; a time that has passed is over at once.

    Raises:
        WaitInvalid: it is no time or has no time zone, or is further off than journals are kept.
        WaitMisplaced: called in a handler.
    """
    at = _unix(when)
    left = seconds_of(at - time.time(), "until")
    scope = _board_scope("until")
    if scope is None:
        return _locally(left)
    from callboard.actors.waits import of_run

    return handed(scope, of_run(scope, "until").until(scope, at))


def signal(name: str, *, timeout: float | None = None, type: Any = Any) -> Awaitable[Any]:  # noqa: A002
    """Wait for a signal of this name, and give its value; see :meth:`Client.signal`.

    Signals are kept until somebody asks for them: each is given once, in the order of the journal.

    Args:
        timeout: seconds, a finite number; None waits until the journal's age comes near.
        type: what the value is.

    Raises:
        WaitTimeout: none came in time.
        JournalExpired: none came while the journal is kept, and there was no timeout.
        InvalidResult: its value is of another type.
        WaitInvalid: the name is none or is taken, or the time is none or longer than journals are kept.
        WaitMisplaced: called in a handler, or without a board.
    """
    from callboard.actors.waits import RESERVED, of_run

    if not is_text(name) or not name or name in RESERVED:
        raise WaitInvalid(f"no signal can be called {shown(name)}: give another name", wait=shown(name))
    timeout = timeout_of(timeout, f"signal({name!r})")
    scope = on_board(f"signal({name!r})")
    return handed(scope, of_run(scope, "signal").signal(scope, name, timeout, type))


def on_board(what: str) -> Scope:
    """The scope of the workflow that this code is of.

    Raises:
        WaitMisplaced: there is none, or nobody outside could reach it.
    """
    scope = _board_scope(what)
    if scope is None:
        raise WaitMisplaced(
            f"{what} needs a board, through which somebody can reach the run: start it with 'callboard run', "
            "without --local",
            wait=what,
        )
    return scope


def handed(scope: Scope, future: Future[T]) -> Awaitable[T]:
    """What code in a scope gets: the future, or in a thread the value itself."""
    return cast("Awaitable[T]", future.value()) if scope.sync else future


def _board_scope(what: str) -> Scope | None:
    """The scope of code that runs on a board; None for code that runs without."""
    scope = current.get()
    if scope is None or not isinstance(scope.maker, LocalMaker):
        return scope
    if scope.maker.of_handler:
        raise WaitMisplaced(f"{what} belongs into a workflow, not into a handler", wait=what)
    return None


def _locally(seconds: float) -> Awaitable[None]:
    scope, loop = current.get(), running_loop()
    if scope is not None:
        scope.checkpoint()
    if loop is not None and (scope is None or not scope.sync):
        return local_waits.sleep(seconds)
    local_waits.pause(seconds)
    return cast("Awaitable[None]", None) if loop is None else local_waits.over()


def _unix(when: Any) -> float:
    if isinstance(when, datetime) and when.utcoffset() is not None:
        return when.timestamp()
    lacks = "has no time zone" if isinstance(when, datetime) else "is no datetime"
    raise WaitInvalid(f"until({shown(when)}) {lacks}: use datetime.now(UTC) and the like", wait="until")


def is_text(given: object) -> bool:
    """Whether somebody without a type checker has given a text, too."""
    return isinstance(given, str)


def timeout_of(given: float | None, what: str) -> float | None:
    """A timeout as it was given; None for none.

    Raises:
        WaitInvalid: it is no number of seconds.
    """
    return None if given is None else seconds_of(given, f"the timeout of {what}")


def seconds_of(given: Any, what: str) -> float:
    """A number of seconds, as it was given where that is an ``int`` or a ``float``.

    Raises:
        WaitInvalid: it is none, or more than a hundred years.
    """
    try:
        seconds = float(given) if isinstance(given, Real) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        seconds = math.inf
    if not math.isfinite(seconds):
        text = f"{what} takes seconds, which {shown(given)} is not: give a finite number"
        raise WaitInvalid(text, wait=what)
    if seconds > _LONGEST:
        text = f"{what} of {seconds:,.0f} s is more than a hundred years: give less"
        raise WaitInvalid(text, wait=what)
    return given if isinstance(given, int | float) else seconds


def shown(given: object) -> str:
    """What somebody has given instead of what was asked for, briefly."""
    try:
        text = repr(given)
    except ValueError:  # of a whole number with thousands of digits
        text = f"this {type(given).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
