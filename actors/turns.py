"""The order of a maker's calls to agents with managed state: one after the other, in the order made.

Only one call of a maker at a time is out to an agent that keeps state for the session: the next is sent when
there is an outcome. Whatever befalls a call on its way (another host, a retry, a takeover), none that was
made later overtakes it. A call that waits for its arguments is in nobody's way: it counts from when they
are there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.actors.values import Encoded

Send = Callable[["Future[Any]", "Encoded"], None]


class Turns:
    """Whose turn it is, by actor and session.

    Args:
        send: what sends a call when its turn has come.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lines: dict[tuple[str, str], deque[tuple[Future[Any], Encoded]]] = {}

    def take(self, future: Future[Any], encoded: Encoded) -> None:
        """Send a call, at once or when those before it have their outcomes."""
        line = self._lines.get(key := (future.method.actor, future.session))
        if line is not None:
            line.append((future, encoded))
            return
        self._lines[key] = deque()
        self._go(future, encoded)

    def _go(self, future: Future[Any], encoded: Encoded) -> None:
        future.when_done(self._next)
        self._send(future, encoded)

    def _next(self, done: Future[Any]) -> None:
        key = (done.method.actor, done.session)
        line = self._lines[key]
        while line:
            future, encoded = line.popleft()
            if not future.done():
                self._go(future, encoded)
                return
        del self._lines[key]
