"""What a simulation is made of: a clock, calls, the server's lanes, and requests that wait to be accepted."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from typing import Any

from callboard.actors.admission import Bucket
from callboard.controller.programs import Play, Step
from callboard.infra import subjects


class Clock:
    """What happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._entries: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0

    def after(self, seconds: float, do: Callable[..., None], *arguments: Any) -> None:
        """Have something done later; what is due at the same time is done in the order of asking."""
        self._number += 1
        heapq.heappush(self._entries, (self.now + seconds, self._number, do, arguments))

    def __len__(self) -> int:
        """How much is left to be done."""
        return len(self._entries)

    def run(self) -> None:
        """Let time pass until nothing is left to be done."""
        while self._entries:
            self.now, _, do, arguments = heapq.heappop(self._entries)
            do(*arguments)


class Job:
    """A call that is played; for the mailbox, too.

    Attributes:
        band, priority, since, longer: see :class:`callboard.actors.mailbox.Waiting`.
        began: when its handler did, below 0: it has not; over: it has ended.
        host: where it is in a mailbox or a slot; lane: where it was sent.
        step: what it is; ended: called when it has.
    """

    __slots__ = ("band", "began", "ended", "host", "lane", "longer", "over", "priority", "since", "step")

    def __init__(self, step: Step, since: float, ended: Callable[[], None]) -> None:
        self.band = step.call.band
        self.priority = step.call.priority
        self.since = since
        self.longer = 0.0
        self.began = -1.0
        self.over = False
        self.host = ""
        self.lane = subjects.ANY
        self.step = step
        self.ended = ended


class Lane:
    """The calls of one actor and band that nobody has pulled, and who has asked for some: a consumer."""

    def __init__(self, clock: Clock, hop: float) -> None:
        self._clock = clock
        self._hop = hop
        self._jobs: deque[Job] = deque()
        self._asked: deque[list[Any]] = deque()  # pull, its generation, how many are still to come

    def __len__(self) -> int:
        """How many wait."""
        return len(self._jobs)

    def store(self, job: Job) -> None:
        """A call has come."""
        self._jobs.append(job)
        self._serve()

    def store_again(self, job: Job) -> None:
        """A call was given back: it is delivered before those that nobody has had."""
        self._jobs.appendleft(job)
        self._serve()

    def ask(self, pull: SimulatedPull, generation: int, count: int, *, wait: bool) -> None:
        """Somebody asks for calls: for those that are there, or for those that are yet to come, too."""
        if wait:
            self._asked.append([pull, generation, count])
            self._serve()
            return
        for _ in range(min(count, len(self._jobs))):
            self._clock.after(self._hop, pull.came, generation, self._jobs.popleft())
            count -= 1
        if count:
            self._clock.after(self._hop, pull.over, generation, count)

    def _serve(self) -> None:
        """One call for each who has asked, in turn, as the server does."""
        while self._jobs and self._asked:
            asked = self._asked.popleft()
            pull, generation, _ = asked
            if generation != pull.generation:
                continue
            self._clock.after(self._hop, pull.came, generation, self._jobs.popleft())
            asked[2] -= 1
            if asked[2]:
                self._asked.append(asked)


class SimulatedPull:
    """What :class:`callboard.infra.pull.Pull` is to a live instance."""

    def __init__(
        self, clock: Clock, hop: float, lane: Lane, accept: Callable[[Job], None], over: Callable[..., None]
    ) -> None:
        self._clock = clock
        self._hop = hop
        self._lane = lane
        self._accept = accept
        self._over = over
        self.asked = 0
        self.generation = 0

    def ask(self, count: int, *, wait: bool) -> None:
        """Ask for calls."""
        if count > 0:
            self.asked += count
            self._clock.after(self._hop, self._arrive, self.generation, count, wait)

    def _arrive(self, generation: int, count: int, wait: bool) -> None:  # noqa: FBT001 - by the clock
        if generation == self.generation:
            self._lane.ask(self, generation, count, wait=wait)

    def withdraw(self) -> None:
        """Take back what was asked for; calls that are on their way still come."""
        if self.asked:
            self.generation += 1
            self.asked = 0

    def came(self, generation: int, job: Job) -> None:
        """A call has come."""
        if generation == self.generation:
            self.asked -= 1
        self._accept(job)

    def over(self, generation: int, count: int) -> None:
        """There is nothing more for a request that does not wait."""
        if generation == self.generation:
            self.asked -= count
            self._over(self)


class Gate:
    """Requests of a workflow that wait to be accepted, in their order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._bucket: Bucket | None = None
        self._waiting: deque[Callable[[], None]] = deque()
        self._looks = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def accept(self, begin: Callable[[], None]) -> None:
        """A request has come: it begins now, or at its turn."""
        self._waiting.append(begin)
        self._open(self._looks)

    def limit(self, rate: float | None) -> None:
        """So many a second from now on; None: all."""
        now = self._clock.now
        if rate is None:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = Bucket(rate, now)
        else:
            self._bucket.change(rate, now)
        self._open(self._looks)

    def _open(self, look: int) -> None:
        if look != self._looks:
            return  # another look was agreed upon since
        self._looks += 1
        while self._waiting:
            if self._bucket is not None and not self._bucket.take(self._clock.now):
                wait = self._bucket.wait(self._clock.now)
                if wait < math.inf:
                    self._clock.after(wait, self._open, self._looks)
                return
            self._waiting.popleft()()


class Events:
    """What has happened since somebody took it: calls and runs, in order.

    Attributes:
        made: calls; ended: calls, and when.
        moved: call, from where, where to, how; runs_begun: when they came; runs_ended: how long they took.
    """

    def __init__(self) -> None:
        self.made: list[Job] = []
        self.ended: list[tuple[Job, float]] = []
        self.moved: list[tuple[Job, str, str, str]] = []
        self.runs_begun: list[tuple[Play, float]] = []
        self.runs_ended: list[tuple[Play, float]] = []
