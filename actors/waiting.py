"""Waiting in a workflow: for a time, or for a signal from outside. Nothing is held meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from callboard.actors.local_maker import LocalMaker
from callboard.actors.scope import Scope, current
from callboard.infra.errors import WaitInvalid, WaitMisplaced

if TYPE_CHECKING:
    from callboard.actors.future import Future

T = TypeVar("T")


def sleep(seconds: float) -> Awaitable[None]:
    """Go on after so many seconds, however long: the run is put aside, and brought back by a timer.

    In a plain ``def`` workflow it returns when they are over.

    Raises:
        WaitInvalid: that is longer than journals are kept.
        WaitMisplaced: called in a handler.
    """
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
        when: with a time zone.

    Raises:
        WaitInvalid: it has no time zone, or is further off than journals are kept.
        WaitMisplaced: called in a handler.
    """
    if when.tzinfo is None:
        raise WaitInvalid(
            f"until({when!r}) has no time zone: use datetime.now(UTC) and the like", wait="until"
        )
    scope = _board_scope("until")
    if scope is None:
        return _locally((when - datetime.now(UTC)).total_seconds())
    from callboard.actors.waits import of_run

    return handed(scope, of_run(scope, "until").until(scope, when.timestamp()))


def signal(name: str, *, timeout: float | None = None, type: Any = Any) -> Awaitable[Any]:  # noqa: A002
    """Wait for a signal of this name, and give its value; see :meth:`Client.signal`.

    Signals are kept until somebody asks for them: each is given once, in the order of the journal.

    Args:
        timeout: seconds; None waits until the journal's age comes near.
        type: what the value is.

    Raises:
        WaitTimeout: none came in time.
        JournalExpired: none came while the journal is kept, and there was no timeout.
        InvalidResult: its value is of another type.
        WaitInvalid: the name is taken, or the time is longer than journals are kept.
        WaitMisplaced: called in a handler, or without a board.
    """
    from callboard.actors.waits import RESERVED, of_run

    if not name or name in RESERVED:
        raise WaitInvalid(f"no signal can be called {name!r}: give another name", wait=name)
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


def _locally(seconds: float, pause: Callable[[float], None] = time.sleep) -> Awaitable[None]:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pause(max(0.0, seconds))
        return cast("Awaitable[None]", None)
    return asyncio.sleep(max(0.0, seconds))
