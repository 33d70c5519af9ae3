"""Continuous batching: which sequences a step of the engine has, what it costs, and who has a token then.

The rules are those of vLLM's scheduler (V1): those that run come first, in their order; prompts are computed
in parts that fit the step; who finds no block makes the last one that runs begin again later. No clock and no
loop are in here, so that a load can be played faster than it is.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Hashable
from collections.abc import Sequence as Listed

import msgspec

from callboard.actors.emulator.blocks import Blocks
from callboard.actors.emulator.profiles import Profile


class Counts(msgspec.Struct):
    """What the engine has done since it began, in tokens and times."""

    prompt: int = 0
    generated: int = 0
    queried: int = 0
    hits: int = 0
    preemptions: int = 0
    steps: int = 0
    computed: int = 0


class Sequence:
    """A request in the engine.

    Attributes:
        prompt: its tokens; answer: the tokens of the answer, as many as ``wanted`` or more.
        given: tokens of the answer so far; cached: of the prompt, that need not be computed.
        priority: the smaller the sooner.
    """

    __slots__ = (
        "answer",
        "blocks",
        "cached",
        "computed",
        "given",
        "hashes",
        "order",
        "priority",
        "private",
        "prompt",
        "wanted",
    )

    def __init__(
        self, prompt: Listed[Hashable], wanted: int, answer: Listed[Hashable], priority: int = 0
    ) -> None:
        self.prompt = prompt
        self.wanted = wanted
        self.answer = answer
        self.priority = priority
        self.given = 0
        self.cached = 0
        self.computed = 0
        self.hashes: list[int] = []
        self.blocks = 0
        self.private = 0
        self.order = 0

    @property
    def length(self) -> int:
        """Tokens that it has."""
        return len(self.prompt) + self.given


class Step(msgspec.Struct):
    """One step of the engine.

    Attributes:
        seconds: that it takes.
        given: sequences that have one token more when it is over.
        parts: tokens computed of each sequence.
    """

    seconds: float
    given: list[Sequence]
    parts: list[tuple[Sequence, int]]


class Batcher:
    """The scheduler of one engine. Call :meth:`begin` and :meth:`end` in turn.

    Args:
        profile: its costs and limits.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.blocks = Blocks(max(1, profile.kv_tokens // profile.block_tokens))
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.counts = Counts()
        self._order = 0

    def add(self, sequence: Sequence) -> None:
        """Queue a request: behind those of its priority."""
        self._order += 1
        sequence.order = self._order
        self._queue(sequence)

    def _queue(self, sequence: Sequence) -> None:
        rank = (sequence.priority, sequence.order)
        waiting = self.waiting
        if not waiting or (waiting[-1].priority, waiting[-1].order) < rank:
            waiting.append(sequence)
        else:
            waiting.insert(bisect.bisect(waiting, rank, key=lambda one: (one.priority, one.order)), sequence)

    def drop(self, sequence: Sequence) -> None:
        """Forget a request, wherever it is. Idempotent."""
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    # -- a step ------------------------------------------------------------------------------------

    def begin(self) -> Step | None:
        """Choose what the next step has; None if there is nothing to do."""
        parts: list[tuple[Sequence, int]] = []
        room = self.profile.max_batched_tokens
        preempted = False
        place = 0
        while place < len(self.running) and room:
            one = self.running[place]
            count = min(one.length - one.computed, room)
            while not self._grow(one, count):
                last = self.running[-1]
                self._preempt(last)
                preempted = True
                if last is one:
                    break
            else:
                parts.append((one, count))
                room -= count
                place += 1
        while self.waiting and room and not preempted and len(self.running) < self.profile.max_sequences:
            count = self._admit(self.waiting[0], room)
            if not count:
                break
            one = self.waiting.popleft()
            self.running.append(one)
            parts.append((one, count))
            room -= count
        return Step(self._cost(parts), [], parts) if parts else None

    def end(self, step: Step) -> list[Sequence]:
        """The step is over; gives those that have a token more. Those that are complete are forgotten."""
        self.counts.steps += 1
        for one, count in step.parts:
            self.counts.computed += count
            if not one.blocks:  # dropped meanwhile
                continue
            one.computed += count
            self._fill(one)
            if one.computed == one.length:
                one.given += 1
                self.counts.generated += 1
                step.given.append(one)
                if one.given >= one.wanted:
                    self.drop(one)
        return step.given

    def _cost(self, parts: list[tuple[Sequence, int]]) -> float:
        costs = self.profile
        nanoseconds = costs.step_ms * 1e6
        for one, count in parts:
            if count == 1 and one.given:
                nanoseconds += costs.decode_us * 1e3 + costs.context_ns * one.length
            else:
                before = one.computed + count / 2
                nanoseconds += count * (costs.prefill_us * 1e3 + costs.attention_ns * before)
        return nanoseconds * 1e-9

    # -- blocks ------------------------------------------------------------------------------------

    def _admit(self, one: Sequence, room: int) -> int:
        """Take a waiting sequence in; gives how many tokens of it this step computes, 0 if it has no room."""
        hashes = self._hashes(
            one, (one.length - 1) // self.profile.block_tokens
        )  # one token is computed always
        held = self.blocks.held(hashes)
        cached = held * self.profile.block_tokens
        count = min(one.length - cached, room)
        needed = self._needed(cached + count) - held
        self.blocks.use(hashes[:held])
        if not self.blocks.take(needed):
            self.blocks.give_back(hashes[:held], 0)
            return 0
        one.hashes = hashes[:held]
        one.blocks, one.private = held + needed, needed
        one.computed = cached
        if not one.given:  # one that begins again has been counted
            one.cached = cached
            self.counts.prompt += one.length
            self.counts.queried += one.length
            self.counts.hits += cached
        return count

    def _grow(self, one: Sequence, count: int) -> bool:
        more = self._needed(one.computed + count) - one.blocks
        if more > 0:
            if not self.blocks.take(more):
                return False
            one.blocks += more
            one.private += more
        return True

    def _needed(self, tokens: int) -> int:
        return -(-tokens // self.profile.block_tokens)

    def _preempt(self, one: Sequence) -> None:
        self.running.remove(one)
        self._release(one)
        one.computed = 0
        self.counts.preemptions += 1
        self._queue(one)

    def _release(self, one: Sequence) -> None:
        self.blocks.give_back(one.hashes, one.private)
        one.hashes = []
        one.blocks = one.private = 0

    def _fill(self, one: Sequence) -> None:
        """Name the blocks that are full now."""
        full = one.computed // self.profile.block_tokens
        if full > len(one.hashes):
            known = len(one.hashes)
            one.hashes = self._hashes(one, full, one.hashes)
            for place in range(known, full):
                self.blocks.full(one.hashes[place])
                one.private -= 1

    def _hashes(self, one: Sequence, count: int, known: Listed[int] = ()) -> list[int]:
        """Of the first so many blocks; each is of all tokens before it, too."""
        size = self.profile.block_tokens
        hashes = list(known)
        for place in range(len(hashes), count):
            tokens = tuple(self._token(one, at) for at in range(place * size, (place + 1) * size))
            hashes.append(hash((hashes[-1] if hashes else 0, tokens)))
        return hashes

    def _token(self, one: Sequence, at: int) -> Hashable:
        at_answer = at - len(one.prompt)
        return one.prompt[at] if at_answer < 0 else one.answer[at_answer]
