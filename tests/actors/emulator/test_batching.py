"""The scheduler of an emulated engine: what a step has, what it costs, and the KV cache."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import msgspec
import pytest

from callboard.actors.emulator.batching import Batcher, Sequence
from callboard.actors.emulator.profiles import PROFILES, Profile

COSTS = Profile(
    name="test",
    model="none",
    source="this test",
    step_ms=10.0,
    prefill_us=100.0,
    decode_us=1000.0,
    kv_tokens=1600,
    max_sequences=4,
    max_batched_tokens=64,
)
_numbers = itertools.count()


def asked(prompt: int, answer: int, priority: int = 0) -> Sequence:
    """A request whose tokens no other one has."""
    number = next(_numbers)
    return Sequence(
        [(number, at) for at in range(prompt)],
        answer,
        [(number, -1, at) for at in range(answer)],
        priority,
    )


def batcher(*sequences: Sequence, **changed: float) -> Batcher:
    """A scheduler that was given these."""
    made = Batcher(msgspec.structs.replace(COSTS, **changed))
    for one in sequences:
        made.add(one)
    return made


def step(batch: Batcher) -> tuple[Any, list[Sequence]]:
    """One step: its milliseconds, and who has a token more."""
    begun = batch.begin()
    assert begun is not None, "there is nothing to do"
    return begun.seconds * 1000, batch.end(begun)


def finish(batch: Batcher) -> None:
    """All steps there are."""
    for _ in range(100_000):
        begun = batch.begin()
        if begun is None:
            return
        batch.end(begun)
    pytest.fail("it never ends")


def test_what_a_step_costs() -> None:
    """Its constant, and so much for each token of a prompt and each sequence that decodes."""
    one, two = asked(20, 3), asked(30, 2)
    batch = batcher(one, two)
    assert step(batch) == (pytest.approx(10 + 50 * 0.1), [one, two])
    assert step(batch) == (pytest.approx(10 + 2 * 1.0), [one, two])
    assert step(batch) == (pytest.approx(10 + 1.0), [one])
    assert batch.begin() is None
    assert (batch.counts.prompt, batch.counts.generated, batch.counts.steps) == (50, 5, 3)


def test_a_long_prompt_is_computed_in_parts_beside_those_that_decode() -> None:
    """Who runs goes on meanwhile; the prompt's first token comes when all of it is computed."""
    short, long_one = asked(4, 10), asked(150, 1)
    batch = batcher(short)
    step(batch)
    batch.add(long_one)
    parts = [step(batch) for _ in range(3)]
    assert [ms for ms, _ in parts] == [
        pytest.approx(11 + 6.3),
        pytest.approx(11 + 6.3),
        pytest.approx(11 + 2.4),
    ]
    assert [given for _, given in parts] == [[short], [short], [short, long_one]]


def test_who_waits() -> None:
    """No more run at a time than may; the next ones by priority, then as they came."""
    first = [asked(2, 5) for _ in range(4)]
    batch = batcher(*first)
    step(batch)
    late, urgent, later = asked(2, 1), asked(2, 1, priority=-1), asked(2, 1)
    for one in (late, urgent, later):
        batch.add(one)
    assert list(batch.waiting) == [urgent, late, later]
    step(batch)
    assert (len(batch.running), len(batch.waiting)) == (4, 3)
    batch.drop(first[0])
    assert step(batch)[1][-1] is urgent


def test_a_prefix_that_is_known_costs_nothing() -> None:
    """Whole blocks of it; the last token is computed always, since the next one comes from it."""
    first = asked(40, 8)
    again = Sequence([*first.prompt], 1, ["x"])
    goes_on = Sequence([*first.prompt, *first.answer, "and", "more"], 1, ["x"])
    same_length = Sequence([*first.prompt[:32]], 1, ["x"])
    batch = batcher(first)
    finish(batch)
    for one, cached in ((again, 32), (goes_on, 32), (same_length, 16)):
        batch.add(one)
        assert step(batch)[0] == pytest.approx(10 + 0.1 * (len(one.prompt) - cached))
        assert one.cached == cached
    assert batch.counts.hits == 32 + 32 + 16
    assert batch.counts.queried == batch.counts.prompt == 40 + 40 + 50 + 32


def test_an_answer_is_in_the_cache_too() -> None:
    """A chat that goes on finds what was answered."""
    first = asked(40, 25)
    goes_on = Sequence([*first.prompt, *first.answer, "next"], 1, ["x"])
    batch = batcher(first)
    finish(batch)
    batch.add(goes_on)
    step(batch)
    assert goes_on.cached == 64


def test_the_oldest_prefix_goes_first() -> None:
    """When its room is needed; one that was used again is younger."""
    old, newer = asked(32, 1), asked(32, 1)
    batch = batcher(old, newer, kv_tokens=16 * 6)
    finish(batch)
    batch.add(again := Sequence([*old.prompt, "x"], 1, ["x"]))
    finish(batch)
    assert again.cached == 32
    batch.add(asked(48, 1))
    finish(batch)
    for one, cached in ((old, 32), (newer, 0)):
        batch.add(again := Sequence([*one.prompt, "y"], 1, ["x"]))
        step(batch)
        assert again.cached == cached


def test_preemption() -> None:
    """Who finds no block makes the last one begin again; nothing is lost, and all ends."""
    first, last = asked(32, 60), asked(32, 60)
    batch = batcher(first, last, kv_tokens=16 * 8)
    finish(batch)
    assert batch.counts.preemptions >= 1
    assert (first.given, last.given) == (60, 60)
    assert batch.counts.generated == 120
    assert batch.blocks.usage == 0.0


def test_a_dropped_request_gives_its_room_back() -> None:
    """Running, waiting, in the middle of a step, and twice."""
    one, two = asked(40, 50), asked(40, 50)
    batch = batcher(one, two, max_sequences=1)
    begun = batch.begin()
    assert begun is not None
    assert batch.blocks.usage > 0
    batch.drop(one)
    assert batch.end(begun) == []
    batch.drop(one)
    batch.drop(two)
    assert (batch.blocks.usage, batch.begin(), one.given) == (0.0, None, 0)


def closed_loop(profile: Profile, at_once: int, prompt: int, answer: int) -> tuple[Any, Any]:
    """So many requests always under way, in virtual time: ms between tokens, tokens/s."""
    batch = Batcher(profile)
    now, left = 0.0, 4 * at_once
    first: dict[Sequence, float] = {}
    gaps: list[float] = []
    for _ in range(at_once):
        batch.add(asked(prompt, answer))
    left -= at_once
    while (begun := batch.begin()) is not None:
        now += begun.seconds
        for one in batch.end(begun):
            first.setdefault(one, now)
            if one.given == one.wanted:
                gaps.append((now - first[one]) / (answer - 1))
                if left:
                    batch.add(asked(prompt, answer))
                    left -= 1
    return statistics.mean(gaps) * 1000, 4 * at_once * answer / now


@pytest.mark.parametrize(
    ("at_once", "between", "rate"),
    [(1, 4.63, 214.56), (25, 5.19, 4678.88), (100, 7.57, 12214.97), (250, 16.14, 12964.72)],
)
def test_the_published_figures_of_the_h100(at_once: int, between: float, rate: float) -> None:
    """Within 15 %, see the profile's source."""
    told = closed_loop(PROFILES["h100-llama-3.1-8b"], at_once, 200, 200)
    assert told == (pytest.approx(between, rel=0.15), pytest.approx(rate, rel=0.15))


@pytest.mark.parametrize(("at_once", "rate"), [(1, 75.0), (8, 6.6 * 75.0)])
def test_the_published_figures_of_the_a100(at_once: int, rate: float) -> None:
    """Within 15 %, see the profile's source."""
    assert closed_loop(PROFILES["a100-llama-3.1-8b"], at_once, 1024, 128)[1] == pytest.approx(rate, rel=0.15)
