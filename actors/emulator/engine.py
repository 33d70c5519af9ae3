"""An engine that emulates: the batching scheduler on a clock, and requests that wait for their tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable
from collections.abc import Sequence as Listed
from typing import Final

from callboard.actors.emulator.batching import Batcher, Sequence
from callboard.actors.emulator.metrics import Figures
from callboard.actors.emulator.profiles import Profile

_BEHIND: Final = 1.0
"""Seconds that the clock may be behind and still catch up; what is more is lost, and told as lag."""


class Generation:
    """An answer that is being given.

    It keeps no text, only how far it is: who reads slowly costs nothing.

    Attributes:
        given: tokens of the answer so far; cached: of the prompt, taken from the prefix cache.
        done: it is complete.
        finish: the reason then; begun, first, last: monotonic times of the request and of tokens.
    """

    def __init__(self, engine: EmulatedEngine, sequence: Sequence, finish: str) -> None:
        self._engine = engine
        self._sequence = sequence
        self.finish = finish
        self._news = asyncio.Event()
        self.begun = time.monotonic()
        self.first = 0.0
        self.last = 0.0

    @property
    def given(self) -> int:
        """See the class."""
        return self._sequence.given

    @property
    def cached(self) -> int:
        """See the class."""
        return self._sequence.cached

    @property
    def done(self) -> bool:
        """See the class."""
        return self._sequence.given >= self._sequence.wanted

    async def more(self, than: int) -> int:
        """Wait for more tokens than so many; gives how many there are."""
        while self._sequence.given <= than:
            self._news.clear()
            await self._news.wait()
        return self._sequence.given

    def stop(self) -> None:
        """Generate no more, and give its room back. Idempotent."""
        self._engine.stop(self._sequence)

    def told(self) -> None:
        """There is a token more."""
        self._news.set()


class EmulatedEngine:
    """Takes requests, and gives them tokens when a real engine would.

    Args:
        profile: what it costs.
        speed: how many times as fast as the profile says.
    """

    def __init__(self, profile: Profile, speed: float = 1.0) -> None:
        self.profile = profile
        self.speed = speed
        self.batcher = Batcher(profile)
        self.figures = Figures()
        self._asked: dict[Sequence, Generation] = {}
        self._work = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def context_tokens(self) -> int:
        """Prompt and answer at most: what the model takes and the KV cache has room for."""
        blocks = self.batcher.blocks.size
        return min(self.profile.context_tokens, blocks * self.profile.block_tokens)

    def start(self) -> None:
        """Begin to work, on this event loop. Idempotent."""
        if self._running is None:
            self._running = asyncio.Task(self._run(), loop=asyncio.get_running_loop())

    async def close(self) -> None:
        """Work no more. Idempotent."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.wait([running])

    async def generate(
        self,
        prompt: Listed[Hashable],
        answer: Listed[Hashable],
        priority: int = 0,
        finish: str = "length",
    ) -> Generation:
        """Begin an answer.

        Args:
            prompt, answer: their tokens; at least one each, and together within ``context_tokens``.
            priority: the smaller the sooner.
            finish: why it ends, for the metrics.
        """
        if self.profile.request_ms:
            await asyncio.sleep(self.profile.request_ms / 1000 / self.speed)
        sequence = Sequence(prompt, len(answer), answer, priority)
        generation = self._asked[sequence] = Generation(self, sequence, finish)
        self.batcher.add(sequence)
        self._work.set()
        return generation

    def stop(self, sequence: Sequence) -> None:
        """Give up a request. Idempotent."""
        generation = self._asked.pop(sequence, None)
        if generation is not None:
            self.batcher.drop(sequence)
            self.figures.ended(generation, "abort")

    # -- the clock ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        due = time.monotonic()
        while True:
            step = self.batcher.begin()
            if step is None:
                self._work.clear()
                await self._work.wait()
                due = time.monotonic()
                continue
            due += step.seconds / self.speed
            now = time.monotonic()
            self.figures.lag(max(0.0, now - due))
            due = max(due, now - _BEHIND)
            await asyncio.sleep(max(0.0, due - now))
            now = time.monotonic()
            for sequence in self.batcher.end(step):
                self._tell(sequence, now)

    def _tell(self, sequence: Sequence, now: float) -> None:
        generation = self._asked[sequence]
        self.figures.token(generation, now)
        if generation.done:
            del self._asked[sequence]
            self.figures.ended(generation, generation.finish)
        generation.told()
