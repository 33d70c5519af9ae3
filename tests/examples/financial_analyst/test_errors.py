"""What cannot be answered is a typed error that says what can."""

import inspect
import json
import pickle
from datetime import date

import pytest
from finance.data import benchmark_series, catalog, known_names, stock_series
from finance.errors import AnalystError, NotUnderstoodError, OutsideDataError, UnknownTickerError
from finance.planner import plan_by_rules

KNOWN = catalog()
NAMES = ("AAPL (Apple)", "AMZN (Amazon)", "GOOG (Google)", "IBM", "MSFT (Microsoft)")


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Compare TSLA and AAPL", "TSLA"),
        ("TSLA in 2008", "TSLA"),
        ("$tsla in 2008", "tsla"),
        ("BRK.A against the S&P 500", "BRK.A"),
        ("Compare Apple and Tesla in 2008", "Tesla"),
        ("How did Tesla's return compare?", "Tesla"),
        ("what about tesla?", "tesla"),
        ("How did General Motors do in 2008?", "General Motors"),
        ("compare netflix and apple", "netflix"),
        ("Nokia vs. Apple", "Nokia"),
        ("add nokia", "nokia"),
    ],
)
def test_an_unknown_company_is_named_with_those_known(question: str, asked: str) -> None:
    """By ticker, by capital letter, or by standing where a name stands."""
    with pytest.raises(UnknownTickerError) as caught:
        plan_by_rules(question, KNOWN)
    assert caught.value.asked == asked
    assert caught.value.known == NAMES
    assert all(name in str(caught.value) for name in (asked, *NAMES))


@pytest.mark.parametrize(
    "question",
    [
        "How did Apple do in the US since Monday, March 2005?",
        "Please tell me: Is IBM risky? Thanks!",
        "SHOW ME HOW IBM DID IN 2008",
        "Microsoft's T-bill yield and Sharpe ratio",
    ],
)
def test_ordinary_capitals_are_no_companies(question: str) -> None:
    """Months, first words, acronyms, shouting."""
    assert len(plan_by_rules(question, KNOWN).tickers) == 1


@pytest.mark.parametrize("question", ["", "hello there", "in 2008", "show the return", "?!"])
def test_nothing_to_analyse_is_an_error_with_an_example(question: str) -> None:
    """A period or a figure alone is not enough."""
    with pytest.raises(NotUnderstoodError) as caught:
        plan_by_rules(question, KNOWN)
    assert "AAPL (Apple)" in str(caught.value)
    assert caught.value.question == question


@pytest.mark.parametrize(
    ("question", "subject", "asked", "available"),
    [
        ("AAPL in 2015", "AAPL", "Jan 2015 to Dec 2015", "Jan 2000 to Feb 2010"),
        ("IBM before 1990", "IBM", '"before 1990"', "Jan 2000 to Feb 2010"),
        ("Google in 2003", "GOOG", "Jan 2003 to Dec 2003", "Aug 2004 to Feb 2010"),
        ("GOOG in August 2004", "GOOG", "Aug 2004", "Aug 2004 to Feb 2010"),
        ("IBM since March 2010", "IBM", '"since March 2010"', "Jan 2000 to Feb 2010"),
        ("the S&P 500 in 2030", "S&P 500", "Jan 2030 to Dec 2030", "Jan 1999 to Dec 2018"),
    ],
)
def test_a_period_outside_the_data_says_what_there_is(
    question: str, subject: str, asked: str, available: str
) -> None:
    """The first month of a series has no return, so it alone is outside too."""
    with pytest.raises(OutsideDataError) as caught:
        plan_by_rules(question, KNOWN)
    error = caught.value
    assert (error.subject, error.asked, error.available) == (subject, asked, available)
    assert available in str(error)


def test_the_tools_refuse_what_no_planner_should_have_asked_for() -> None:
    """A model may plan nonsense: the tools do not rely on the planner."""
    with pytest.raises(UnknownTickerError, match="TSLA"):
        stock_series("TSLA", date(2004, 1, 1), date(2009, 12, 31))
    with pytest.raises(OutsideDataError, match="Jan 2000 to Feb 2010"):
        stock_series("AAPL", date(2015, 1, 1), date(2015, 12, 31))
    with pytest.raises(OutsideDataError, match="Jan 1999 to Dec 2018"):
        benchmark_series(date(2019, 1, 1), date(2019, 12, 31))


@pytest.mark.parametrize(
    "error",
    [
        UnknownTickerError("TSLA", NAMES),
        OutsideDataError("AAPL", "Jan 2015", "Jan 2000 to Feb 2010"),
        NotUnderstoodError("hello", NAMES),
    ],
)
def test_errors_survive_the_way_between_processes(error: AnalystError) -> None:
    """By pickle, and as the runtime sends them: class and arguments, tuples become lists."""
    sent = type(error).__new__(type(error), *error.args)
    sent.args = tuple(json.loads(json.dumps(error.args)))
    for back in (pickle.loads(pickle.dumps(error)), sent):  # noqa: S301 - our own bytes
        assert type(back) is type(error)
        assert str(back) == str(error)
        for field in inspect.signature(type(error)).parameters:
            assert getattr(back, field) == getattr(error, field)


def test_the_known_names_are_those_of_the_data() -> None:
    """The list in an error cannot lag behind the data."""
    assert known_names(KNOWN) == NAMES
    assert list(KNOWN.stocks) == ["AAPL", "AMZN", "GOOG", "IBM", "MSFT"]
