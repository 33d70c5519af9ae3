"""The slots of an instance: held by handlers that run, lent by those that wait, given up to urgent calls.

A handler that waits for calls of its own does nothing, and what it waits for may need a slot of the same
instance. So it lends its slot while it waits; when its calls are there it goes on at once, and nothing
else starts until no more run than there are slots. (Ray does the same with what a task holds while it is
blocked in ``get``.)
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

from callboard.actors.future import Future

if TYPE_CHECKING:
    from callboard.actors.handler_maker import HandlerMaker
    from callboard.actors.inbound import Call
    from callboard.actors.scope import Scope

T = TypeVar("T")

PREEMPTIONS = 3
"""How often one call is stopped for more urgent ones; then it runs to its end."""


class Slots:
    """All slots of one instance.

    Args:
        size: handlers that may run at once.
        on_lent: called with the slot of a handler that begins to wait for calls of its own.
    """

    def __init__(self, size: int, on_lent: Callable[[Slot], None]) -> None:
        self.size = size
        self.allowance: int | None = None
        """Handlers that may start before it is said anew; None: as many as there are slots for."""
        self._free = size
        self.on_lent = on_lent
        self.preemptable: set[Slot] = set()

    @property
    def free(self) -> int:
        """Handlers that may start now; below 0 when many that have waited go on, or there are fewer slots."""
        return self._free if self.allowance is None else min(self._free, self.allowance)

    @property
    def busy(self) -> int:
        """Handlers that run, without those that wait for calls of their own."""
        return self.size - self._free

    def resize(self, size: int) -> None:
        """From now on there are so many; those that are held beyond it are not taken away."""
        self._free += size - self.size
        self.size = size

    def returned(self, count: int) -> None:
        """So many are not held any more; below 0: are held again."""
        self._free += count

    def take(self, calls: list[Call]) -> Slot:
        """A handler starts."""
        self._free -= 1
        if self.allowance is not None:
            self.allowance -= 1
        slot = Slot(self, calls)
        if calls[0].method.directives.preemptable:
            self.preemptable.add(slot)
        return slot

    def giving_way(self, band: int) -> int:
        """How many calls of a band could run in the place of less urgent ones, those stopping included."""
        if self.allowance == 0:
            return 0
        return sum(1 for slot in self.preemptable if slot.stopping or slot.gives_way_to(band))

    def stopping(self) -> int:
        """How many have been told to stop for a more urgent call."""
        return sum(1 for slot in self.preemptable if slot.stopping)

    def victim(self, band: int) -> Slot | None:
        """Whom to stop for a call of this band: the least urgent, and of those the last to start."""
        if self.allowance == 0:  # nothing could start in its place
            return None
        found = [slot for slot in self.preemptable if not slot.stopping and slot.gives_way_to(band)]
        return max(found, key=lambda slot: (slot.band, slot.calls[0].started), default=None)


class Slot:
    """What one started handler holds.

    Attributes:
        calls: what it handles: one, or a batch.
        maker: of its own calls; scope: where its code is; both once it runs.
        stopping: it was told to stop for a more urgent call.
    """

    __slots__ = ("_ended", "_slots", "_waits", "calls", "maker", "scope", "stopping")

    def __init__(self, slots: Slots, calls: list[Call]) -> None:
        self.calls = calls
        self.maker: HandlerMaker | None = None
        self.scope: Scope | None = None
        self.stopping = False
        self._slots = slots
        self._waits: dict[Future[Any], int] = {}
        self._ended = False

    # -- lending -----------------------------------------------------------------------------------

    @property
    def lent(self) -> bool:
        """Whether the handler waits for calls of its own."""
        return bool(self._waits)

    def lend(self, future: Future[Any]) -> None:
        """The handler begins to wait for a call of its own; some of its code may wait for it already."""
        if self._ended:
            return
        waits = self._waits.get(future, 0)
        self._waits[future] = waits + 1
        if waits == 0:
            future.when_done(self._there)  # before whoever waits, so that it goes on with its slot
            if len(self._waits) == 1:
                self._slots.returned(1)
                self._slots.on_lent(self)

    def take_back(self, future: Future[Any], times: int) -> None:
        """So many have given up waiting for this call."""
        waits = self._waits.get(future, 0)
        if waits > times:
            self._waits[future] = waits - times
        elif waits:
            asyncio.Future.remove_done_callback(future, self._there)
            self._there(future)

    def _there(self, future: Future[Any]) -> None:
        del self._waits[future]
        if not self._waits and not self._ended:
            self._slots.returned(-1)

    def end(self) -> None:
        """The handler has ended."""
        self._slots.preemptable.discard(self)
        if not self._waits:
            self._slots.returned(1)
        self._ended = True
        self.maker = self.scope = None  # they know this slot: without the circle they go at once

    # -- giving way --------------------------------------------------------------------------------

    @property
    def band(self) -> int:
        """The band of its most urgent call."""
        return min(call.band for call in self.calls)

    def gives_way_to(self, band: int) -> bool:
        """Whether it may be stopped for a call of this band. One that is lent is in nobody's way."""
        return not self._waits and self.band > band and self.calls[0].preempted < PREEMPTIONS

    def preempt(self) -> None:
        """Stop it: an async handler at its ``await``, a process at once, a thread at its next checkpoint.

        A thread keeps its slot until it stops: started again at once, the call would run twice.
        """
        self.stopping = True
        if self.maker is not None:
            self.maker.abandon()  # it finds its own calls again when it runs again
        method = self.calls[0].method
        if self.scope is not None and not (method.is_async or method.directives.cpu):
            self.scope.cancel("a more urgent call needs its slot")
            return
        for call in self.calls:
            call.stopping = True
        if self.calls[0].task is not None:
            self.calls[0].task.cancel()

    def settle(self) -> None:
        """The handler has come to an outcome: it is too late to stop it."""
        if not self.stopping:
            self._slots.preemptable.discard(self)


class HandlersFuture(Future[T]):
    """A call that a handler has made: whoever waits for it lends the handler's slot.

    All waiting (``await``, ``gather``, ``asyncio.wait``, a thread's ``value``) adds a callback, and removes
    it on giving up.
    """

    __slots__ = ("slot",)
    slot: Slot

    def add_done_callback(
        self, callback: Callable[[Self], object], /, *, context: contextvars.Context | None = None
    ) -> None:
        """As of any future."""
        if not self.done():
            self.slot.lend(self)
        super().add_done_callback(callback, context=context)

    def remove_done_callback(self, callback: Callable[[Self], object], /) -> int:
        """As of any future."""
        removed = super().remove_done_callback(callback)
        if removed:
            self.slot.take_back(self, removed)
        return removed
