"""The longest chain of calls behind each, held against a plain recursion."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
from hypothesis import given

from callboard.actors.longest import remaining


@dataclasses.dataclass
class Step:
    """A call that was made."""

    id: str
    seconds: float
    consumers: tuple[str, ...] = ()


STEPS = st.lists(st.tuples(st.integers(0, 9), st.sets(st.integers(1, 5))), max_size=20)
"""Seconds of each call, and how much later those were made that wait for it."""


@given(STEPS)
def test_it_is_the_longest_chain(drawn: list[tuple[int, set[int]]]) -> None:
    """Whatever waits for what; calls that are not known count for nothing."""
    made = {
        str(place): Step(str(place), seconds, tuple(str(place + later) for later in sorted(after)))
        for place, (seconds, after) in enumerate(drawn)
    }

    def longest(name: str) -> float:
        step = made.get(name)
        return 0.0 if step is None else step.seconds + max(map(longest, step.consumers), default=0.0)

    found = remaining(made.values(), made, lambda step: step.seconds)
    assert found == {name: longest(name) for name in made}


def test_a_chain_of_thousands() -> None:
    """No recursion ends at Python's limit."""
    made = {str(place): Step(str(place), 1.0, (str(place + 1),)) for place in range(5_000)}
    assert remaining([made["0"]], made, lambda step: step.seconds)["0"] == 5_000
