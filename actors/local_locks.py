"""The sessions of managed state without NATS: one call at a time in each, in order of arrival.

They are shared by all runs of the process, whichever thread or event loop these are on.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence

from callboard.actors.local_turns import is_made_by
from callboard.state.shelf import Place


class Entry:
    """A call that holds a session, or waits for it.

    Args:
        place: the session at its actor; call: its id.

    Attributes:
        granted: done when the session is the call's; on the event loop where it was made.
    """

    __slots__ = ("call", "granted", "loop", "place")

    def __init__(self, place: Place, call: str) -> None:
        self.place = place
        self.call = call
        self.loop = asyncio.get_running_loop()
        self.granted: asyncio.Future[None] = self.loop.create_future()

    def grant(self) -> bool:
        """Let the call go on, from any thread; False if nobody waits for that any more."""
        if self.granted.cancelled():
            return False
        try:
            self.loop.call_soon_threadsafe(self._grant)
        except RuntimeError:  # its loop is closed
            return False
        return True

    def _grant(self) -> None:
        if not self.granted.done():
            self.granted.set_result(None)


class SessionLocks:
    """Who holds which session, and who waits for it. A session that nobody wants takes no place."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._queues: dict[Place, deque[Entry]] = {}  # the first one holds the session
        self._left: deque[Entry] = deque()

    def enter(self, place: Place, call: str, makers: Sequence[str]) -> Entry | None:
        """Queue a call of the running event loop; None if the call that holds the session has made it.

        Args:
            makers: where the run was begun that the call is of, if that was in handlers of others.
        """
        entry = Entry(place, call)
        try:
            with self._mutex:
                queue = self._queues.setdefault(place, deque())
                if queue and any(is_made_by(one, queue[0].call) for one in (call, *makers)):
                    return None
                queue.append(entry)
                if queue[0] is entry:
                    entry.granted.set_result(None)
        finally:
            self._remove_left()
        return entry

    def leave(self, entry: Entry) -> None:
        """A call has ended, or waits no more: it is the next one's turn. Idempotent."""
        self._left.append(entry)
        self._remove_left()

    def _remove_left(self) -> None:
        # The garbage collector may end a call of a closed loop at any point, also while this very thread
        # has the mutex. So nobody waits for it here: whoever has it looks again when it is free.
        while self._left and self._mutex.acquire(blocking=False):
            try:
                while self._left:
                    self._remove(self._left.popleft())
            finally:
                self._mutex.release()

    def _remove(self, entry: Entry) -> None:
        queue = self._queues.get(entry.place)
        if queue is None or entry not in queue:
            return
        held = queue[0] is entry
        queue.remove(entry)
        while held and queue and not queue[0].grant():
            queue.popleft()
        if not queue:
            del self._queues[entry.place]
