"""The statistics against definitions written out in plain Python, on random series."""

from datetime import date
from math import prod, sqrt
from statistics import correlation, fmean, linear_regression, stdev

import empyrical  # noqa: F401 - loads for a second, which is not to count as a test's time
import pytest
from finance.figures import relate, study, worst_drawdown
from finance.model import Rates, Series
from finance.months import shift
from hypothesis import given
from hypothesis import strategies as st

START = date(2004, 1, 31)
NO_RATES = Rates(quarters=(), risk_free=(), bonds=(), sources=())
CLOSES = st.lists(st.floats(1, 1000), min_size=4, max_size=60)


def series(closes: list[float], start: date = START) -> Series:
    """A series of one close a month."""
    months = tuple(shift(start, at) for at in range(len(closes)))
    return Series("X", "X", months, tuple(closes), "made up")


def returns_of(closes: list[float]) -> list[float]:
    """Monthly returns, fractions."""
    return [closes[at] / closes[at - 1] - 1 for at in range(1, len(closes))]


@given(CLOSES)
def test_return_volatility_and_extremes_are_what_their_names_say(closes: list[float]) -> None:
    """The product of the months, the sample deviation times the root of 12, the largest months."""
    found, returns = study(series(closes), NO_RATES), returns_of(closes)
    assert found.months == len(returns)
    assert found.total_return == pytest.approx(closes[-1] / closes[0] - 1)
    assert found.total_return == pytest.approx(prod(1 + value for value in returns) - 1)
    assert found.volatility == pytest.approx(stdev(returns) * sqrt(12), abs=1e-9)
    assert (found.best.value, found.worst.value) == (max(returns), min(returns))


@given(st.lists(st.floats(1, 1000), min_size=13, max_size=60))
def test_a_yearly_return_compounds(closes: list[float]) -> None:
    """So many years at this rate give the total return."""
    found = study(series(closes), NO_RATES)
    assert found.annual_return is not None
    grown = (1 + found.annual_return) ** (found.months / 12)
    assert grown == pytest.approx(closes[-1] / closes[0])


@given(CLOSES)
def test_the_worst_drawdown_is_the_deepest_of_all_pairs(closes: list[float]) -> None:
    """Compared with every earlier close against every later one, and its dates with its depth."""
    found = worst_drawdown(series(closes))
    deepest = min(later / earlier - 1 for at, earlier in enumerate(closes) for later in closes[at:])
    assert found.depth == pytest.approx(deepest, abs=1e-12)
    by_month = dict(zip(series(closes).months, closes, strict=True))
    assert found.peak <= found.trough
    fall = by_month[found.trough] / by_month[found.peak] - 1
    assert fall == pytest.approx(deepest, abs=1e-12)
    later = [month for month in by_month if month >= found.trough]
    again = [month for month in later if by_month[month] >= by_month[found.peak]]
    assert found.recovered == (again[0] if again else None)


def test_a_drawdown_that_is_made_good_says_when() -> None:
    """From the last high before the fall to the first close at or above it."""
    found = worst_drawdown(series([100, 120, 90, 60, 110, 120, 130, 100]))
    assert found.depth == pytest.approx(-0.5)
    assert (found.peak, found.trough, found.recovered) == (
        date(2004, 2, 29),
        date(2004, 4, 30),
        date(2004, 6, 30),
    )


def test_a_series_that_only_rises_has_no_drawdown() -> None:
    """Its depth is zero."""
    assert worst_drawdown(series([1, 2, 3])).depth == 0


@given(st.lists(st.tuples(st.floats(-0.3, 0.4), st.floats(0, 0.004)), min_size=12, max_size=40))
def test_sharpe_is_the_mean_excess_over_its_deviation(months: list[tuple[float, float]]) -> None:
    """A year of twelve months; the deviation is the sample's."""
    closes = [100.0]
    for value, _ in months:
        closes.append(closes[-1] * (1 + value))
    made = series(closes)
    bills = tuple(zip(made.months[1:], (bill for _, bill in months), strict=True))
    found = study(made, Rates(quarters=(), risk_free=bills, bonds=(), sources=()))
    excess = [value - bill for value, (_, bill) in zip(returns_of(closes), bills, strict=True)]
    if stdev(excess) > 1e-6:
        assert found.sharpe == pytest.approx(fmean(excess) / stdev(excess) * sqrt(12), abs=1e-6)


def test_sharpe_needs_the_risk_free_return_of_every_month() -> None:
    """A gap gives no ratio rather than a wrong one."""
    made = series([100, 110, 105, 120, 90])
    bills = tuple((month, 0.002) for month in made.months[1:])
    whole = Rates(quarters=(), risk_free=bills, bonds=(), sources=())
    gap = Rates(quarters=(), risk_free=bills[1:], bonds=(), sources=())
    assert study(made, whole).sharpe is not None
    assert study(made, gap).sharpe is None


PAIRS = st.lists(st.tuples(st.floats(-0.3, 0.4), st.floats(-0.2, 0.2)), min_size=12, max_size=40)


@given(PAIRS)
def test_beta_and_correlation_are_those_of_a_regression(pairs: list[tuple[float, float]]) -> None:
    """Of the stock's returns on the benchmark's."""
    ours, theirs = [1.0], [1.0]
    for a, b in pairs:
        ours.append(ours[-1] * (1 + a))
        theirs.append(theirs[-1] * (1 + b))
    found = relate(series(ours), series(theirs))
    x, y = returns_of(theirs), returns_of(ours)
    if stdev(x) > 1e-3 and stdev(y) > 1e-3:
        line = linear_regression(x, y)
        assert found.beta == pytest.approx(line.slope, abs=1e-6)
        assert found.correlation == pytest.approx(correlation(x, y), abs=1e-6)
        assert found.alpha == pytest.approx((1 + line.intercept) ** 12 - 1, abs=1e-5)


def test_a_stock_is_compared_over_the_months_that_both_have() -> None:
    """A stock listed later is not held against the index's earlier years."""
    stock = series([10, 11, 12, 13, 14], date(2004, 3, 31))
    index = series([100, 50, 200, 210, 220, 230, 240])
    found = relate(stock, index)
    assert (found.base, found.last) == (date(2004, 3, 31), date(2004, 7, 31))
    assert found.stock_return == pytest.approx(0.4)
    assert found.benchmark_return == pytest.approx(240 / 200 - 1)


def test_series_that_never_meet_cannot_be_compared() -> None:
    """The error names both."""
    with pytest.raises(ValueError, match="X and X have no two months"):
        relate(series([1, 2, 3]), series([1, 2, 3], date(2008, 1, 31)))


def test_few_months_give_few_figures() -> None:
    """Nothing is stated per year from less than a year, nothing varies in a single month."""
    single, year = study(series([100, 110]), NO_RATES), study(series([100.0] * 13), NO_RATES)
    assert single.total_return == pytest.approx(0.1)
    assert (single.annual_return, single.volatility, single.sharpe) == (None, None, None)
    assert year.annual_return == 0
    relation = relate(series([100, 110]), series([100, 105]))
    assert (relation.beta, relation.alpha, relation.correlation) == (None, None, None)


def test_a_series_that_never_moves_has_no_correlation() -> None:
    """None rather than not-a-number, which would not survive the report."""
    found = relate(series([1, 1, 1, 1]), series([1, 2, 1, 2]))
    assert found.correlation is None
    assert found.beta == pytest.approx(0)
    assert relate(series([1, 2, 1, 2]), series([1, 1, 1, 1])).beta is None
