"""Threads for blocking handlers: as many as there are handlers, kept for a moment for the next ones.

The pool of the standard library has a fixed size and never shrinks. Here slots limit how many handlers run;
those that wait for calls of their own, and those that ignore that they were cancelled, come on top.
"""

from __future__ import annotations

import functools
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_IDLE = 5.0
"""Seconds after which a thread without work ends."""
_Work = Callable[[], Callable[[], None]]
_Inbox = queue.SimpleQueue[_Work | None]


class Threads:
    """Runs functions in threads.

    Args:
        name: what the threads' names begin with.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = itertools.count()
        self._idle: deque[_Inbox] = deque()
        self._closed = False

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Run a function in the thread that was busy last, or in a new one if none is free.

        Raises:
            RuntimeError: the system has no more threads; the function does not run.
        """
        outcome: Future[T] = Future()
        work = functools.partial(_done, outcome, function, args)
        try:
            inbox = self._idle.pop()
        except IndexError:
            name = f"{self._name}_{next(self._numbers)}"
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True).start()
        else:
            inbox.put(work)
        return outcome

    def close(self) -> None:
        """Let threads end when they are done. Idempotent."""
        self._closed = True
        while self._idle:
            self._idle.pop().put(None)

    def _run(self, work: _Work | None) -> None:
        inbox: _Inbox = queue.SimpleQueue()
        while work is not None:
            tell = work()
            self._idle.append(inbox)  # free before it is known that it is, so that who waits for it finds it
            if self._closed:
                self.close()  # which may have missed this one
            tell()
            del work, tell  # they hold arguments and outcome
            try:
                work = inbox.get(timeout=_IDLE)
            except queue.Empty:
                work = self._last(inbox)

    def _last(self, inbox: _Inbox) -> _Work | None:
        """Nothing more comes, unless it is on its way just now."""
        try:
            self._idle.remove(inbox)
        except ValueError:
            return inbox.get()
        return None


def _done(outcome: Future[T], function: Callable[..., T], args: tuple[Any, ...]) -> Callable[[], None]:
    """Do the work; gives what tells its outcome."""
    if not outcome.set_running_or_notify_cancel():
        return _nothing
    try:
        return functools.partial(outcome.set_result, function(*args))
    except BaseException as error:  # noqa: BLE001 - whatever it raises is its outcome
        return functools.partial(outcome.set_exception, error)


def _nothing() -> None:
    """Of work that was cancelled nothing is told."""
