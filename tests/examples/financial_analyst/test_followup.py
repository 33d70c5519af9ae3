"""A follow-up is merged with the plan of the question before."""

from datetime import date

import pytest
from finance.data import catalog
from finance.errors import NotUnderstoodError
from finance.model import Plan
from finance.planner import ALL_SECTIONS, plan_by_rules
from hypothesis import given
from hypothesis import strategies as st

KNOWN = catalog()
FIRST = plan_by_rules(
    "Compare AAPL and MSFT between 2004 and 2009: return and volatility against the S&P 500", KNOWN
)


def follow(question: str, previous: Plan = FIRST) -> Plan:
    """Plan a question that comes after another."""
    return plan_by_rules(question, KNOWN, previous)


@pytest.mark.parametrize(
    ("question", "tickers"),
    [
        ("And what about IBM?", ("IBM",)),
        ("What about Google instead?", ("GOOG",)),
        ("add Amazon", ("AAPL", "MSFT", "AMZN")),
        ("Also IBM, please", ("AAPL", "MSFT", "IBM")),
        ("IBM too", ("AAPL", "MSFT", "IBM")),
        ("Compare it with Google", ("AAPL", "MSFT", "GOOG")),
        ("compare that to IBM and Amazon", ("AAPL", "MSFT", "IBM", "AMZN")),
        ("add Apple", ("AAPL", "MSFT")),
        ("drop Microsoft", ("AAPL",)),
        ("Same without AAPL", ("MSFT",)),
        ("exclude Apple", ("MSFT",)),
        ("Which stock did best in 2005?", ("AAPL", "MSFT")),
        ("Same for 2008 only", ("AAPL", "MSFT")),
        ("Compare Google and IBM", ("GOOG", "IBM")),
    ],
)
def test_stocks_are_replaced_added_or_dropped(question: str, tickers: tuple[str, ...]) -> None:
    """What the follow-up does not mention stays."""
    found = follow(question)
    assert found.tickers == tickers
    assert found.metrics == FIRST.metrics
    assert found.benchmark == FIRST.benchmark


def test_another_company_keeps_the_period() -> None:
    """And the plan tells the reader that the others were replaced, and how to keep them."""
    found = follow("And what about IBM?")
    assert (found.start, found.end) == (FIRST.start, FIRST.end)
    assert 'in place of AAPL, MSFT (say "add" to keep them)' in found.reasons[0]


def test_another_period_keeps_all_else() -> None:
    """Only the years change."""
    found = follow("Same for 2008 only")
    assert (found.start, found.end) == (date(2008, 1, 1), date(2008, 12, 31))
    assert found.notes == ()


def test_figures_are_replaced_or_with_add_joined() -> None:
    """Naming figures asks for those; adding asks for those as well."""
    assert follow("And the Sharpe ratio?").metrics == ("sharpe",)
    assert follow("add the Sharpe ratio").metrics == ("return", "volatility", "sharpe")


def test_the_benchmark_can_be_dropped_and_comes_back_when_needed() -> None:
    """Beta makes no sense without it."""
    without = follow("without the S&P 500")
    assert not without.benchmark
    assert not follow("in 2008", without).benchmark
    assert follow("what is the beta?", without).benchmark


def test_a_section_left_out_stays_out_until_asked_for() -> None:
    """As the rest of the plan does."""
    quiet = follow("no chart and no news")
    assert follow("in 2008", quiet).sections == ("rates", "economy")
    assert follow("add the chart and the news", quiet).sections == ALL_SECTIONS


def test_follow_ups_can_be_chained() -> None:
    """Each starts from the plan before it."""
    found = follow("drop Microsoft", follow("in 2008", follow("add IBM")))
    assert found.tickers == ("AAPL", "IBM")
    assert found.start == date(2008, 1, 1)


@pytest.mark.parametrize("question", ["And what about IBM?", "hello", "why?", ""])
def test_small_talk_is_no_follow_up(question: str) -> None:
    """A follow-up must name something; only then is the plan before it of use."""
    if "IBM" in question:
        assert plan_by_rules(question, KNOWN).tickers == ("IBM",)
    else:
        with pytest.raises(NotUnderstoodError):
            follow(question)


def test_dropping_every_stock_leaves_the_benchmark() -> None:
    """Or, without one, nothing to answer."""
    assert follow("drop Apple and Microsoft").tickers == ()
    with pytest.raises(NotUnderstoodError):
        follow("drop Apple and Microsoft", follow("without the benchmark"))


STOCKS = st.lists(st.sampled_from(sorted(KNOWN.stocks)), min_size=1, unique=True)


@given(STOCKS, st.integers(2005, 2009), st.integers(2005, 2009))
def test_asking_the_same_again_changes_nothing(stocks: list[str], a: int, b: int) -> None:
    """A complete question means the same with and without a plan before it."""
    question = f"Compare {', '.join(stocks)} from {min(a, b)} to {max(a, b)}: return and beta"
    alone, after = plan_by_rules(question, KNOWN), follow(question)
    for name in ("tickers", "start", "end", "metrics", "benchmark", "sections"):
        assert getattr(alone, name) == getattr(after, name)


@given(STOCKS, STOCKS)
def test_adding_is_a_union_that_keeps_the_order(first: list[str], more: list[str]) -> None:
    """Those of before come first, each once."""
    before = plan_by_rules(f"{', '.join(first)} in 2008", KNOWN)
    after = follow(f"add {', '.join(more)}", before)
    assert list(after.tickers) == list(dict.fromkeys([*first, *more]))
