"""Limits of how many requests of a workflow are accepted a second: hearing of them, and waiting for a turn.

A request above the limit is not refused but waits here, un-acked, in the order of the stream: so whoever
published it need not be there, and with this host it goes to the next one. Only one that would be too late at
its turn is refused at once, with the time after which it could have been accepted.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from callboard.actors.entries import PREFIX, Newest
from callboard.infra.errors import Overloaded
from callboard.infra.messages.policy import Admission

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle

    from callboard.actors.node import Node
    from callboard.actors.run import Request

UNKNOWN = 30.0
"""Seconds after which to ask again where nothing is accepted."""
_BURST = 0.1
_IN_TIME = 0.1
_JOINS = 1.0
"""Seconds after which a driver that has come asks for requests."""
_WHOLE = 1 - 1e-6
_PREFIX = f"{PREFIX}admit."
_decode = msgspec.msgpack.Decoder(Admission).decode


class Admissions:
    """The limits that hold now.

    Args:
        node: of this process, open.
        changed: told of which workflow there is another limit, or none any more.
        spawn: runs a coroutine on the side.
    """

    def __init__(self, node: Node, changed: Callable[[str], None], spawn: Callable[..., object]) -> None:
        self._newest = Newest(
            node,
            "admit",
            lambda subject: (subject.removeprefix(_PREFIX), ""),
            read_admission,
            spawn,
            lambda limit: changed(limit.workflow),
            gone=lambda about: changed(about[0]),
        )

    async def start(self) -> None:
        """Hear of limits from now on, and read what there is. Idempotent."""
        await self._newest.start()

    def stop(self) -> None:
        """Idempotent."""
        self._newest.stop()

    def of(self, workflow: str) -> Admission | None:
        """The limit that holds for a workflow, if there is one."""
        return self._newest.held.get((workflow, ""))


def read_admission(subject: str, body: bytes) -> Admission | None:
    """A stored limit; None for what is none, whoever has put it there."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    usable = 0 <= found.rate < math.inf and found.workflow == subject.removeprefix(_PREFIX)
    return found if usable else None


class Bucket:
    """A rate that lets in single ones, or those of a tenth of a second at once: a token bucket.

    Source: Turner, "New Directions in Communications (or Which Way to the Information Age?)" (IEEE
    Communications Magazine, 1986).

    Args:
        rate: how many a second; now: seconds that never go back; tokens: so many may come at once.
    """

    def __init__(self, rate: float, now: float, tokens: float = 1.0) -> None:
        self.rate = rate
        self._tokens = tokens
        self._at = now

    def change(self, rate: float, now: float) -> None:
        """Another rate from now on."""
        self._fill(now)
        self.rate = rate

    def take(self, now: float) -> bool:
        """Whether one may come in now; then it has."""
        self._fill(now)
        if self.rate <= 0 or self._tokens < _WHOLE:
            return False
        self._tokens -= 1
        return True

    def wait(self, now: float, before: int = 0) -> float:
        """Seconds until one comes in before whom so many others do; infinite where nobody does."""
        self._fill(now)
        if self.rate <= 0:
            return math.inf
        return max(0.0, before + 1 - self._tokens) / self.rate

    def _fill(self, now: float) -> None:
        self._tokens = min(max(1.0, self.rate * _BURST), self._tokens + (now - self._at) * self.rate)
        self._at = now


class Door:
    """The requests of a driver that wait to be accepted, and the share of the limit that is its own.

    Args:
        loop: whose clock counts.
        begin: accepts a request.
        refuse: ends the run of one that would be too late, with the error.
        deadline: of a request, unix seconds; 0: none.
        now: unix seconds.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        begin: Callable[[Request], None],
        refuse: Callable[[Request, Overloaded], None],
        deadline: Callable[[Request], float],
        now: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._begin = begin
        self._refuse = refuse
        self._deadline = deadline
        self._now = now
        self._bucket: Bucket | None = None
        self._limit: Admission | None = None
        self._drivers = 0
        self._held: dict[int, Request] = {}
        self._order: list[int] = []
        self._ends: list[tuple[float, int]] = []  # deadlines of those that have one
        self._timer: TimerHandle | None = None

    def __len__(self) -> int:
        """How many wait."""
        return len(self._held)

    @property
    def limit(self) -> Admission | None:
        """The limit that holds."""
        return self._limit

    def set(self, limit: Admission | None, drivers: int) -> None:
        """What holds now, and by how many drivers it is shared; called often."""
        if limit is self._limit and drivers == self._drivers:
            return
        if drivers > self._drivers and self._limit is not None:
            self._loop.call_later(_JOINS, self._share)
        self._limit, self._drivers = limit, drivers
        now = self._loop.time()
        if limit is None:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = Bucket(limit.rate / drivers, now, 1.0 / drivers)
        else:
            self._bucket.change(limit.rate / drivers, now)
        self._open()

    def accept(self, request: Request) -> None:
        """A request has come: it begins now, or at its turn, or it is refused."""
        known = self._held.get(request.delivered.sequence)
        if known is not None:
            known.delivered = request.delivered  # the same message again: settle the newest
            return
        self._held[request.delivered.sequence] = request
        heapq.heappush(self._order, request.delivered.sequence)
        if deadline := self._deadline(request):
            heapq.heappush(self._ends, (deadline, request.delivered.sequence))
        self._open()
        if request.delivered.sequence in self._held:
            self._refuse_if_late(request, len(self._held) - 1)

    def take(self, run: str) -> Request | None:
        """The request of a run, which waits here no more."""
        for sequence, request in self._held.items():
            if request.run == run:
                return self._held.pop(sequence)
        return None

    def tick(self) -> None:
        """Called 20 times a second: those whose time is over are refused."""
        while self._ends and self._ends[0][0] <= self._now() + _IN_TIME:
            request = self._held.get(heapq.heappop(self._ends)[1])
            if request is not None:
                self._refuse_if_late(request, sum(one < request.delivered.sequence for one in self._held))

    def _share(self) -> None:
        """Drivers that have come get their part of what waits."""
        if self._limit is not None:
            self.give_back()

    def give_back(self) -> None:
        """What waits goes to other drivers, or comes again. Idempotent."""
        for request in self._held.values():
            request.delivered.nak()
        self._held.clear()
        self._order.clear()
        self._ends.clear()

    def close(self) -> None:
        """Nothing is accepted any more. Idempotent."""
        self.give_back()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _open(self) -> None:
        """Accept all whose turn it is, and look again when it is the next one's."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._order:
            if self._order[0] not in self._held:
                heapq.heappop(self._order)
                continue
            now = self._loop.time()
            if self._bucket is not None and not self._bucket.take(now):
                wait = self._bucket.wait(now)
                if wait < math.inf:
                    self._timer = self._loop.call_later(wait, self._open)
                return
            self._begin(self._held.pop(heapq.heappop(self._order)))

    def _refuse_if_late(self, request: Request, before: int) -> None:
        """Of a rate above 0 it is known when its turn is; else it waits until its time is over."""
        deadline = self._deadline(request)
        if not deadline or self._bucket is None or self._limit is None:
            return
        left, wait = deadline - self._now(), self._bucket.wait(self._loop.time(), before)
        if left > (_IN_TIME if wait == math.inf else wait):
            return
        del self._held[request.delivered.sequence]
        retry_after = UNKNOWN if wait == math.inf else wait
        limit = self._limit
        why = f" ({limit.policy}: {limit.reason})" if limit.reason else f" ({limit.policy})"
        error = Overloaded(
            f"{limit.workflow} accepts {limit.rate:g} requests a second{why}, and {before} wait here before "
            f"this one: its deadline comes first; try again in {retry_after:.2f} s",
            queue=before,
            retry_after=retry_after,
        )
        self._refuse(request, error)
