"""The mailbox, held against a simple reference model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from callboard.actors.mailbox import BAND, MOST, STEP, Mailbox, handicap, rank


@dataclasses.dataclass(eq=False)
class Letter:
    """A waiting call."""

    number: int
    band: int
    priority: int
    since: float
    longer: float = 0.0


BANDS = st.integers(0, 2)
PRIORITIES = st.integers(-30, 30)
TIMES = st.integers(0, 40).map(float)  # whole seconds, so that ties are common


def reference_rank(letter: Letter) -> float:
    """The order in one line: when it began to wait, ten seconds a band, a second a step of priority."""
    return letter.since + letter.longer + 10 * letter.band - max(-9, min(9, letter.priority))


class MailboxAgainstModel(RuleBasedStateMachine):
    """The model is a list, searched for the smallest rank; equal ranks leave in order of arrival."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox: Mailbox[Letter] = Mailbox()
        self.model: list[Letter] = []
        self.number = 0

    def in_order(self) -> list[Letter]:
        """The model's letters as they should leave; sorting is stable, so ties stay in arrival order."""
        return sorted(self.model, key=reference_rank)

    @rule(band=BANDS, priority=PRIORITIES, since=TIMES)
    def push(self, band: int, priority: int, since: float) -> None:
        """A call arrives."""
        self.number += 1
        letter = Letter(self.number, band, priority, since)
        self.mailbox.push(letter)
        self.model.append(letter)

    @precondition(lambda self: self.model)
    @rule()
    def pop(self) -> None:
        """The next one leaves; it is the one that was shown."""
        expected = self.in_order()[0]
        assert self.mailbox.peek() is expected
        assert self.mailbox.pop() is expected
        self.model.remove(expected)

    @rule(modulus=st.integers(1, 4), most=st.integers(0, 6))
    def take(self, modulus: int, most: int) -> None:
        """Some that fit leave together, in order; the others keep their places."""
        fits: Callable[[Letter], bool] = lambda letter: letter.number % modulus == 0  # noqa: E731
        expected = [letter for letter in self.in_order() if fits(letter)][:most]
        assert self.mailbox.count(fits) == sum(map(fits, self.model))
        assert self.mailbox.first(fits) is next(filter(fits, self.in_order()), None)
        assert self.mailbox.take(fits, most) == expected
        for letter in expected:
            self.model.remove(letter)

    @invariant()
    def counts_agree(self) -> None:
        """Its length and its counts by band are the model's."""
        assert len(self.mailbox) == len(self.model)
        for band in range(3):
            assert self.mailbox.up_to(band) == sum(letter.band <= band for letter in self.model)
            assert self.mailbox.by_band[band] == sum(letter.band == band for letter in self.model)

    def teardown(self) -> None:
        """What is left leaves in the model's order."""
        left = [self.mailbox.pop() for _ in range(len(self.mailbox))]
        assert left == self.in_order()


TestMailboxAgainstModel = MailboxAgainstModel.TestCase
TestMailboxAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(BANDS, PRIORITIES, TIMES)
def test_the_rank_is_the_models(band: int, priority: int, since: float) -> None:
    """Any change of the order has to be made in the model, too."""
    letter = Letter(1, band, priority, since)
    assert rank(letter) == reference_rank(letter)


@given(BANDS, PRIORITIES, st.lists(st.tuples(BANDS, PRIORITIES), max_size=30))
def test_nothing_starves(band: int, priority: int, others: list[tuple[int, int]]) -> None:
    """Whatever keeps coming, one a second, a call is next once it has waited for the largest handicap.

    A stream of calls more urgent than it passes it only so long.
    """
    mailbox: Mailbox[Letter] = Mailbox()
    patient = Letter(0, band, priority, 0.0)
    mailbox.push(patient)
    longest = int(2 * BAND + 2 * MOST * STEP)
    served = -1
    for second in range(1, longest + 2):
        band_, priority_ = others[second % len(others)] if others else (0, 30)
        mailbox.push(Letter(second, band_, priority_, float(second)))
        if mailbox.pop() is patient:
            served = second
            break
    assert 0 < served <= longest + 1


@given(PRIORITIES, st.floats(0, 1e9), st.floats(0, 1e9))
def test_short_ones_go_first_within_a_priority(priority: int, one: float, other: float) -> None:
    """How long a call takes orders calls of the same time and priority, and outweighs no step of it."""
    assert 0 <= handicap(one) <= STEP
    assert (handicap(one) <= handicap(other)) == (one <= other) or math.isclose(
        handicap(one), handicap(other)
    )
    short, long = Letter(1, 1, priority, 0.0, 0.0), Letter(2, 1, priority + 1, 0.0, handicap(one))
    if abs(priority) < MOST and abs(priority + 1) <= MOST:
        assert rank(long) <= rank(short)
    later = Letter(3, 1, priority, STEP, 0.0)
    assert rank(long) <= rank(later)


def test_a_more_urgent_band_goes_first_whatever_the_priority() -> None:
    """Among calls of the same time no priority outweighs a band by more than it is worth."""
    urgent = Letter(1, 0, -1, 0.0)
    patient = Letter(2, 2, 9, 0.0)
    mailbox: Mailbox[Letter] = Mailbox()
    mailbox.push(patient)
    mailbox.push(urgent)
    assert mailbox.pop() is urgent
