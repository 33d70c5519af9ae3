"""What the rules make of a question."""

from datetime import date

import pytest
from finance.data import catalog
from finance.errors import AnalystError
from finance.model import Plan
from finance.months import month_end, month_start
from finance.periods import find_period
from finance.planner import ALL_METRICS, ALL_SECTIONS, plan_by_rules
from finance.sentence import Sentence
from hypothesis import given
from hypothesis import strategies as st

KNOWN = catalog()
FIRST, LAST = date(2000, 1, 31), date(2010, 2, 28)

EXAMPLE = (
    "Compare AAPL and MSFT between 2004 and 2009: return, volatility, worst drawdown, against the S&P 500"
)


def plan(question: str, previous: Plan | None = None) -> Plan:
    """Plan a question with everything there is data for."""
    return plan_by_rules(question, KNOWN, previous)


def test_the_question_of_the_readme_is_understood_whole() -> None:
    """Stocks, years, figures and benchmark are all found, and nothing is left over."""
    found = plan(EXAMPLE)
    assert found.tickers == ("AAPL", "MSFT")
    assert (found.start, found.end) == (date(2004, 1, 1), date(2009, 12, 31))
    assert found.metrics == ("return", "volatility", "drawdown")
    assert found.benchmark
    assert found.sections == ALL_SECTIONS
    assert found.notes == ()
    assert found.question == EXAMPLE


def test_a_plan_says_that_rules_made_it_and_how_it_read_each_part() -> None:
    """The reader can see what was understood from which words."""
    found = plan(EXAMPLE)
    assert "no language model" in found.planner
    assert found.reasons == (
        "Stocks: AAPL, MSFT (named in the question).",
        "Figures: return, volatility, drawdown (named in the question).",
        "Benchmark: the S&P 500 (the question says so).",
        'Period: Jan 2004 to Dec 2009 ("between 2004 and 2009").',
    )


@pytest.mark.parametrize(
    ("question", "tickers"),
    [
        ("Compare AAPL and MSFT", ("AAPL", "MSFT")),
        ("compare msft and aapl", ("MSFT", "AAPL")),
        ("How did Apple do?", ("AAPL",)),
        ("Apple's and Google's returns", ("AAPL", "GOOG")),
        ("Apple\u2019s return", ("AAPL",)),
        ("Was Amazon.com, Inc. riskier than International Business Machines?", ("AMZN", "IBM")),
        ("$GOOG vs $AMZN", ("GOOG", "AMZN")),
        ("GOOGL, alphabet and google", ("GOOG",)),
        ("microsoft corporation", ("MSFT",)),
        ("COMPARE AAPL WITH IBM PLEASE", ("AAPL", "IBM")),
        ("all five stocks", ("AAPL", "AMZN", "GOOG", "IBM", "MSFT")),
        ("all the stocks without IBM and Apple", ("AMZN", "GOOG", "MSFT")),
        ("IBM, Big Blue, IBM", ("IBM",)),
        ("Which stock varied least?", ("AAPL", "AMZN", "GOOG", "IBM", "MSFT")),
        ("Which of these was better, Apple or IBM?", ("AAPL", "IBM")),
        ("How did the S&P 500 do?", ()),
    ],
)
def test_companies_are_found_by_ticker_and_by_name(question: str, tickers: tuple[str, ...]) -> None:
    """Tickers come in the order in which the question names them, each once."""
    assert plan(question).tickers == tickers


@pytest.mark.parametrize(
    ("words", "start", "end"),
    [
        ("between 2004 and 2009", "2004-01-01", "2009-12-31"),
        ("from 2004 to 2009", "2004-01-01", "2009-12-31"),
        ("from 2004 until 2009", "2004-01-01", "2009-12-31"),
        ("2004 to 2009", "2004-01-01", "2009-12-31"),
        ("2004-2009", "2004-01-01", "2009-12-31"),
        ("2004 \u2013 2009", "2004-01-01", "2009-12-31"),
        ("2004\u201309", "2004-01-01", "2009-12-31"),
        ("'04 to '09", "2004-01-01", "2009-12-31"),
        ("since 2005", "2005-01-01", "2010-02-28"),
        ("from 2005 on", "2005-01-01", "2010-02-28"),
        ("since March 2005", "2005-03-01", "2010-02-28"),
        ("after 2005", "2006-01-01", "2010-02-28"),
        ("until 2003", "2000-02-01", "2003-12-31"),
        ("before 2003", "2000-02-01", "2002-12-31"),
        ("before June 2003", "2000-02-01", "2003-05-31"),
        ("since 2005 and before 2008", "2005-01-01", "2007-12-31"),
        ("in 2008", "2008-01-01", "2008-12-31"),
        ("during the year 2008", "2008-01-01", "2008-12-31"),
        ("in Q3 2008", "2008-07-01", "2008-09-30"),
        ("in 2008 Q3", "2008-07-01", "2008-09-30"),
        ("in September 2008", "2008-09-01", "2008-09-30"),
        ("between March 2004 and June 2008", "2004-03-01", "2008-06-30"),
        ("between March and June 2008", "2008-03-01", "2008-06-30"),
        ("from Feb. 2004 to Feb. 2008", "2004-02-01", "2008-02-29"),
        ("from 2004-03 to 2008-06", "2004-03-01", "2008-06-30"),
        ("from 2004-01-01 to 2009-12-31", "2004-01-01", "2009-12-31"),
        ("in 2005 and 2007", "2005-01-01", "2007-12-31"),
        ("in 2004, 2006 and 2007", "2004-01-01", "2007-12-31"),
        ("the last five years", "2005-03-01", "2010-02-28"),
        ("over the past 3 years", "2007-03-01", "2010-02-28"),
        ("in the last year", "2009-03-01", "2010-02-28"),
        ("the last 18 months", "2008-09-01", "2010-02-28"),
        ("the last two quarters", "2009-09-01", "2010-02-28"),
        ("the first two years", "2000-02-01", "2002-01-31"),
        ("in the 2000s", "2000-02-01", "2009-12-31"),
        ("over the whole period", "2000-02-01", "2010-02-28"),
        ("", "2000-02-01", "2010-02-28"),
    ],
)
def test_periods_are_found(words: str, start: str, end: str) -> None:
    """Whole months, cut to the data; the first close there is serves as the base of a return."""
    found = plan(f"How did IBM do {words}?")
    assert (found.start.isoformat(), found.end.isoformat()) == (start, end)
    assert not [note for note in found.notes if "Not understood" in note]


def test_years_the_wrong_way_round_are_turned_and_the_reader_is_told() -> None:
    """Nothing is guessed silently."""
    found = plan("IBM between 2009 and 2004")
    assert (found.start, found.end) == (date(2004, 1, 1), date(2009, 12, 31))
    assert [note for note in found.notes if "turned round" in note]


@pytest.mark.parametrize(
    ("words", "metrics"),
    [
        ("return", ("return",)),
        ("its performance and how volatile it was", ("return", "volatility")),
        ("whether it outperformed", ("return",)),
        ("the biggest loss", ("drawdown",)),
        ("maximum draw-down", ("drawdown",)),
        ("the risk-adjusted return", ("sharpe",)),
        ("Sharpe's ratio", ("sharpe",)),
        ("the best and worst month", ("extremes",)),
        ("beta and correlation", ("beta", "correlation")),
        ("all the figures", ALL_METRICS),
        ("all the figures but no Sharpe ratio", tuple(m for m in ALL_METRICS if m != "sharpe")),
        ("the risk, that is the volatility", ("volatility",)),
    ],
)
def test_figures_are_found(words: str, metrics: tuple[str, ...]) -> None:
    """In the order of the report, whatever the order of the question."""
    assert plan(f"Show {words} of IBM against the market").metrics == metrics


@pytest.mark.parametrize(
    ("question", "benchmark"),
    [
        ("return of IBM against the S&P 500", True),
        ("return of IBM against the S&P", True),
        ("return of IBM vs. SP500", True),
        ("did IBM perform better than the market?", True),
        ("return of IBM compared with the stock market", True),
        ("return of IBM and its benchmark", True),
        ("beta of IBM", True),
        ("IBM", True),
        ("return of IBM", False),
        ("IBM without the benchmark", False),
    ],
)
def test_the_benchmark_is_taken_when_named_or_needed(question: str, *, benchmark: bool) -> None:
    """Without it, the figures that need it go too."""
    found = plan(question)
    assert found.benchmark is benchmark
    assert benchmark or not {"beta", "correlation"} & set(found.metrics)


def test_parts_of_the_report_can_be_left_out() -> None:
    """The report then has no such section, and the plan says why."""
    found = plan("IBM in 2008 without news, no chart, skip the economy")
    assert found.sections == ("rates",)
    assert "Left out, as the question asks: chart, headlines, economy." in found.reasons


def test_words_that_mean_nothing_to_the_rules_are_told() -> None:
    """The reader learns what had no influence."""
    assert plan("IBM in 2008, discombobulated quixotically").notes == (
        "Not understood, and ignored: discombobulated, quixotically.",
    )


def test_a_period_that_the_data_cover_in_part_is_cut_and_the_reader_is_told() -> None:
    """March 2010 is not complete in the file, so February is the last month."""
    found = plan("IBM between 1995 and 2020")
    assert (found.start, found.end) == (date(2000, 2, 1), date(2010, 2, 28))
    assert found.notes == ("Asked for Jan 1995 to Dec 2020; the data cover Feb 2000 to Feb 2010.",)


def test_a_stock_that_begins_within_the_period_is_kept_with_a_note() -> None:
    """Google was first listed in August 2004."""
    found = plan("Apple and Google between 2002 and 2009")
    assert found.tickers == ("AAPL", "GOOG")
    assert found.start == date(2002, 1, 1)
    assert found.notes == ("GOOG: the data begin with the close of Aug 2004.",)


def test_a_stock_without_data_in_the_period_is_left_out_with_a_note() -> None:
    """The others are answered for."""
    found = plan("Apple and Google in 2003")
    assert found.tickers == ("AAPL",)
    assert found.notes == ("GOOG is left out: its data run from Aug 2004 to Feb 2010.",)


def test_the_benchmark_alone_has_more_years_than_the_stocks() -> None:
    """Its own data decide when no stock is named."""
    found = plan("How did the S&P 500 do between 2011 and 2018?")
    assert (found.start, found.end) == (date(2011, 1, 1), date(2018, 12, 31))


YEARS = st.integers(1960, 2049)
TWO_YEARS = st.sampled_from(
    ["between {} and {}", "from {} to {}", "{} to {}", "{}-{}", "{} through {}", "from {} until {}"]
)


@given(TWO_YEARS, YEARS, YEARS, st.sampled_from(["IBM ", "show me ", ""]))
def test_any_two_years_in_any_wording_span_both(words: str, a: int, b: int, before: str) -> None:
    """The span runs from the start of the earlier to the end of the later year."""
    period = find_period(Sentence(before + words.format(a, b)))
    assert period is not None
    assert (period.start, period.end) == (date(min(a, b), 1, 1), date(max(a, b), 12, 31))
    assert period.swapped is (a > b)


MONTHS = st.dates(date(1960, 1, 1), date(2049, 12, 31))
NAMED = st.sampled_from(["%B %Y", "%b %Y", "%Y-%m", "%Y-%m-%d"])


@given(MONTHS, MONTHS, NAMED)
def test_any_two_months_in_any_notation_span_both(a: date, b: date, notation: str) -> None:
    """Days are widened to their months: the prices are monthly."""
    period = find_period(Sentence(f"between {a.strftime(notation)} and {b.strftime(notation)}"))
    assert period is not None
    first, last = min(a, b), max(a, b)
    assert (period.start, period.end) == (month_start(first), month_end(last.year, last.month))


WORDS = """
and compare AAPL apple's ibm $GOOG vs the S&P 500 2004 2009 in since between last five years
without news no add drop sharpe return 2004-2009 before q3 march 's , . ? all
"""
PIECES = st.lists(st.one_of(st.sampled_from(WORDS.split()), st.text(max_size=6)), max_size=14)


@given(PIECES.map(" ".join), st.booleans())
def test_any_text_gives_a_valid_plan_or_a_typed_error(text: str, followed: bool) -> None:  # noqa: FBT001
    """Whatever is typed, a plan lies within the data and names only known stocks."""
    previous = plan(EXAMPLE) if followed else None
    try:
        found = plan(text, previous)
    except AnalystError:
        return
    assert date(1999, 2, 1) <= found.start <= found.end
    assert set(found.tickers) <= set(KNOWN.stocks)
    assert found.tickers or found.benchmark
