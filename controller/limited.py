"""Somebody else's code, limited in time."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from callboard.infra.errors import PolicyTooSlow

if TYPE_CHECKING:
    from callboard.controller.policy import Act, Policy
    from callboard.controller.view import View

T = TypeVar("T")

ROUND = 0.5
"""Seconds that a policy has for one round."""
_STEP = 0.02


def within(limit: float, policy: Policy, view: View, act: Act) -> None:
    """Let a policy decide, for so many seconds; nothing else of the event loop goes on meanwhile.

    Raises:
        PolicyTooSlow: it has not ended. Any other: what it has raised.
    """
    limited(limit, lambda: policy.decide(view, act), "decided")


def limited(limit: float, work: Callable[[], T], done: str) -> T:
    """What some work gives, which is waited for so long and no longer.

    Seconds in which the whole process stands still do not count.

    Args:
        limit: seconds; work: runs in a thread of its own; done: what it has not in time, in a word.

    Raises:
        PolicyTooSlow: it has not ended. Any other: what it has raised.
    """
    given: list[T] = []
    raised: list[Exception] = []

    def run() -> None:
        try:
            given.append(work())
        except Exception as error:  # noqa: BLE001 - raised again below
            raised.append(error)
        except BaseException as error:  # noqa: BLE001 - it wanted to end more than itself
            raised.append(RuntimeError(f"{type(error).__name__}: {error}"))

    thread = threading.Thread(target=run, name="policy", daemon=True)
    thread.start()
    left, at = limit, time.monotonic()
    while thread.is_alive() and left > 0:
        thread.join(min(_STEP, left))
        now = time.monotonic()
        left, at = left - min(now - at, 2 * _STEP), now
    if thread.is_alive():
        # Python code ends at its next step; what waits in C stays, harmless, until it returns.
        stopped = ctypes.py_object(SystemExit)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), stopped)
        raise PolicyTooSlow(f"it has not {done} within {limit:g} s", limit=limit)
    if raised:
        raise raised[0]
    return given[0]
