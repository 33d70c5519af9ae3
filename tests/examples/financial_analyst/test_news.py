"""Headlines derived from the data."""

from datetime import date
from itertools import pairwise

from finance.data import macro, stock_series
from finance.model import Headline, Quarter, Series
from finance.months import shift
from finance.news import (
    BEAR,
    TURN,
    economy_headlines,
    falls,
    most_important,
    series_headlines,
    unemployment_turns,
)
from hypothesis import given
from hypothesis import strategies as st

START = date(2000, 3, 31)


def quarters(rates: list[float]) -> list[Quarter]:
    """Quarters with these unemployment rates, per cent."""
    return [Quarter(shift(START, 3 * at), 1.0, 2.0, -1.0, rate, 1000.0) for at, rate in enumerate(rates)]


def test_a_fall_is_told_from_high_to_low_to_high() -> None:
    """Each with its date; shallow dips are no news."""
    (fall,) = falls([100, 95, 100, 70, 60, 80, 100, 120, 110])
    assert (fall.peak, fall.trough, fall.recovered) == (2, 4, 6)
    assert round(fall.depth, 2) == 0.40


def test_a_fall_that_goes_on_has_no_recovery() -> None:
    """The period ends first."""
    (fall,) = falls([100, 70, 90])
    assert (fall.peak, fall.trough, fall.recovered) == (0, 1, None)


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=60))
def test_falls_are_deep_apart_and_below_their_high(closes: list[float]) -> None:
    """Whatever the series."""
    found, before = falls(closes), 0
    for fall in found:
        end = len(closes) if fall.recovered is None else fall.recovered
        assert before <= fall.peak < fall.trough < end
        within = closes[fall.peak + 1 : end]
        assert min(within) == closes[fall.trough]
        assert max(within) < closes[fall.peak]
        assert fall.depth >= BEAR
        before = end


def test_a_missed_fall_would_be_deep() -> None:
    """The worst fall of Apple is found with the dates of its worst drawdown."""
    apple = stock_series("AAPL", date(2004, 1, 1), date(2009, 12, 31))
    deepest = max(falls(apple.closes), key=lambda fall: fall.depth)
    assert apple.months[deepest.peak] == date(2007, 12, 31)
    assert apple.months[deepest.trough] == date(2008, 12, 31)
    assert deepest.recovered is not None
    assert apple.months[deepest.recovered] == date(2009, 11, 30)


def test_unemployment_turns_where_it_changes_by_half_a_point() -> None:
    """A low, then a high; wobbles do not count, nor does the first quarter."""
    turns = unemployment_turns(quarters([6.0, 5.0, 4.8, 5.1, 4.5, 4.7, 5.5, 6.5, 6.4, 5.9, 5.6]))
    assert [(turn.quarter.unemployment, turn.up) for turn in turns] == [(4.5, True), (6.5, False)]


def test_the_first_quarter_is_no_turn() -> None:
    """What was before it is unknown, whether the rates rise or fall from there."""
    assert unemployment_turns(quarters([4.0, 5.0, 6.0])) == []
    assert unemployment_turns(quarters([6.0, 5.0, 4.0])) == []


@given(st.lists(st.integers(30, 110).map(lambda tenths: tenths / 10), min_size=1, max_size=40))
def test_turns_alternate_and_are_confirmed(rates: list[float]) -> None:
    """Up, down, up; each followed by the change that makes it one."""
    given_quarters = quarters(rates)
    turns = unemployment_turns(given_quarters)
    for one, two in pairwise(turns):
        assert one.up is not two.up
        assert one.quarter.end < two.quarter.end
    for turn in turns:
        later = [q.unemployment for q in given_quarters if q.end > turn.quarter.end]
        change = [(rate - turn.quarter.unemployment) * (1 if turn.up else -1) for rate in later]
        assert max(change) >= TURN - 1e-9


def test_the_recessions_of_the_data_are_found() -> None:
    """Unemployment turned up before the recessions of 1990, 2001 and 2008, and down after two."""
    turns = unemployment_turns(macro(date(1988, 1, 1), date(2009, 12, 31)).quarters)
    assert [(turn.quarter.end.year, turn.up) for turn in turns] == [
        (1989, True),
        (1992, False),
        (2000, True),
        (2003, False),
        (2006, True),
    ]
    last = economy_headlines(macro(date(1988, 1, 1), date(2009, 12, 31)))[-1]
    assert last.text == ("US unemployment turns up from 4.4% (Q4 2006) and reaches 9.6% in Q3 2009")


def test_the_largest_months_are_told_with_their_rank() -> None:
    """Two each way, only rises among the best and falls among the worst."""
    closes = (100.0, 150.0, 120.0, 126.0, 113.4, 113.4)
    made = Series("X", "X", tuple(shift(START, at) for at in range(6)), closes, "made up")
    moves = [(h.day, h.text) for h in series_headlines(made) if h.kind == "move"]
    assert moves == [
        (date(2000, 4, 30), "X gains 50.0% in Apr 2000, its best month of the period"),
        (date(2000, 5, 31), "X loses 20.0% in May 2000, its worst month of the period"),
        (date(2000, 6, 30), "X gains 5.0% in Jun 2000, its second best month of the period"),
        (date(2000, 7, 31), "X loses 10.0% in Jul 2000, its second worst month of the period"),
    ]
    rising = Series("Y", "Y", made.months[:3], (1.0, 2.0, 3.0), "made up")
    assert {h.text.split()[1] for h in series_headlines(rising)} == {"gains"}


def test_the_most_important_headlines_come_in_order_of_time() -> None:
    """Chosen by weight, told by date."""
    made = [Headline(shift(START, at), "X", "move", str(at), w) for at, w in enumerate((1, 3, 2))]
    assert [h.text for h in most_important(made, 2)] == ["1", "2"]
