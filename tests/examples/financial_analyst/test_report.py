"""The numbers of the report against the computation in `own`; the workflow runs as it is, in this process."""

import re
from collections.abc import Callable
from statistics import correlation, linear_regression

import app
import pytest
from finance.model import Report
from tests.examples.financial_analyst.own import (
    EXAMPLE,
    MONTHS,
    Own,
    check_figures,
    close_to,
    label,
    number,
    table,
)

EVERYTHING = "Show all the figures of all five stocks since 2005 against the S&P 500"


@pytest.fixture(scope="module")
def ask() -> Callable[[str], Report]:
    """Ask the workflow; each question once."""
    answers: dict[str, Report] = {}

    def answer(question: str) -> Report:
        if question not in answers:
            answers[question] = app.research.run_local(question)
        return answers[question]

    return answer


@pytest.mark.parametrize("name", ["AAPL", "MSFT", "S&P 500"])
def test_the_figures_of_the_example_are_right(ask: Callable[[str], Report], name: str) -> None:
    """Return, volatility and drawdown with its dates."""
    own, found = Own(name, (2004, 1), (2009, 12)), table(ask(EXAMPLE).markdown, "Figures")
    check_figures(ask(EXAMPLE).markdown, name, (2004, 1), (2009, 12))
    _, peak, trough = own.drawdown
    assert found["... from high to low"][name] == f"{label(peak)} to {label(trough)}"
    assert found["Months (from the close of)"][name] == "72 (Dec 2003)"
    assert list(found) == [
        "Total return",
        "Return a year",
        "Volatility a year",
        "Worst drawdown",
        "... from high to low",
        "... made good",
        "Months (from the close of)",
    ]


@pytest.mark.parametrize("name", ["AAPL", "AMZN", "GOOG", "IBM", "MSFT", "S&P 500"])
def test_all_figures_of_all_stocks_are_right(ask: Callable[[str], Report], name: str) -> None:
    """Over another period, with Sharpe's ratio and the extremes."""
    own, found = Own(name, (2005, 1), (2010, 2)), table(ask(EVERYTHING).markdown, "Figures")
    check_figures(ask(EVERYTHING).markdown, name, (2005, 1), (2010, 2))
    assert number(found["Sharpe ratio"][name]) == close_to(own.sharpe, 2)
    best = own.months[1 + own.returns.index(max(own.returns))]
    assert number(found["Best month"][name]) == close_to(100 * max(own.returns))
    assert found["Best month"][name].endswith(f"({label(best)})")
    worst = own.months[1 + own.returns.index(min(own.returns))]
    assert number(found["Worst month"][name]) == close_to(100 * min(own.returns))
    assert found["Worst month"][name].endswith(f"({label(worst)})")


@pytest.mark.parametrize("name", ["AAPL", "AMZN", "GOOG", "IBM", "MSFT"])
def test_the_comparison_with_the_index_is_right(ask: Callable[[str], Report], name: str) -> None:
    """Beta and alpha of a regression on the index, Pearson's correlation, the difference."""
    own, index = Own(name, (2005, 1), (2010, 2)), Own("S&P 500", (2005, 1), (2010, 2))
    found = table(ask(EVERYTHING).markdown, "Against the S&P 500")[name]
    line = linear_regression(index.returns, own.returns)
    assert number(found["Beta"]) == close_to(line.slope, 2)
    assert number(found["Alpha a year"]) == close_to(100 * ((1 + line.intercept) ** 12 - 1))
    assert number(found["Correlation"]) == close_to(correlation(index.returns, own.returns), 2)
    assert number(found["Return"]) == close_to(100 * own.total)
    assert number(found["S&P 500"]) == close_to(100 * index.total)
    assert number(found["Ahead by"]) == close_to(100 * (own.total - index.total))


def test_a_stock_listed_later_is_counted_from_its_listing(ask: Callable[[str], Report]) -> None:
    """Google's figures and its comparison begin in 2004, and the reader is told."""
    report = ask("Compare Apple and Google between 2002 and 2009: return, against the S&P 500")
    google, index = Own("GOOG", (2002, 1), (2009, 12)), Own("S&P 500", (2004, 9), (2009, 12))
    found = table(report.markdown, "Figures")
    assert number(found["Total return"]["GOOG"]) == close_to(100 * google.total)
    assert found["Months (from the close of)"]["GOOG"] == "64 (Aug 2004)"
    against = table(report.markdown, "Against the S&P 500")["GOOG"]
    assert number(against["S&P 500"]) == close_to(100 * index.total)
    assert "> **Note.** GOOG: the data begin with the close of Aug 2004." in report.markdown


def test_the_first_lines_say_what_the_tables_say(ask: Callable[[str], Report]) -> None:
    """The best return first, who varied, whose drawdown, who beat the index."""
    apple, microsoft = Own("AAPL", (2004, 1), (2009, 12)), Own("MSFT", (2004, 1), (2009, 12))
    first = ask(EXAMPLE).markdown.splitlines()[2]
    assert first == (
        f"**Jan 2004 to Dec 2009.** AAPL returned {apple.total:+,.1%} ({apple.yearly:+.1%} a year) "
        f"and MSFT returned {microsoft.total:+.1%}. MSFT varied least ({microsoft.volatility:.1%} "
        f"a year), AAPL most ({apple.volatility:.1%}). The worst drawdown was AAPL's: "
        f"{apple.drawdown[0]:+.1%} from Dec 2007 to Dec 2008, made good by Nov 2009. "
        "AAPL and MSFT beat the S&P 500."
    )


def test_the_report_says_who_planned_it_and_where_all_comes_from(
    ask: Callable[[str], Report],
) -> None:
    """Rules, every source, what the headlines are not, and what the comparison leaves out."""
    report = ask(EXAMPLE)
    assert "By fixed rules, no language model. It read the question as:" in report.markdown
    assert "there is no news feed" in report.markdown
    assert "without dividends" in report.markdown
    assert len(report.sources) == len(set(report.sources)) == 6
    assert all(f"- {source}." in report.markdown for source in report.sources)


def test_every_section_that_was_not_left_out_is_there_once(ask: Callable[[str], Report]) -> None:
    """In a fixed order, each with something in it."""
    headings = re.findall(r"^## (\w+)", ask(EXAMPLE).markdown, re.MULTILINE)
    assert headings == ["Figures", "Against", "Headlines", "Rates", "The", "How", "Sources"]
    assert not re.search(r"^## .*\n+(?:## |\Z)", ask(EXAMPLE).markdown, re.MULTILINE)


def test_what_is_left_out_is_not_there(ask: Callable[[str], Report]) -> None:
    """Neither headings nor the picture."""
    report = ask("return of IBM in 2008 without news, no chart, skip the economy and no rates")
    headings = re.findall(r"^## (\w+)", report.markdown, re.MULTILINE)
    assert headings == ["Figures", "How", "Sources"]
    assert report.chart is None
    assert "![" not in report.markdown


def test_a_period_without_economic_data_is_answered_and_says_so(
    ask: Callable[[str], Report],
) -> None:
    """The stocks go on for a few months after the quarterly data end."""
    report = ask("IBM in 2010")
    assert report.markdown.count("No data in this period: they end with Q3 2009.") == 2
    own = Own("IBM", (2010, 1), (2010, 2))
    found = table(report.markdown, "Figures")
    assert number(found["Total return"]["IBM"]) == close_to(100 * own.total)
    assert found["Return a year"]["IBM"] == found["Volatility a year"]["IBM"] == "-"


def test_the_benchmark_alone_can_be_asked_about(ask: Callable[[str], Report]) -> None:
    """Beyond the years of the stocks too."""
    report = ask("What was the return of the S&P 500 between 2011 and 2018?")
    own = Own("S&P 500", (2011, 1), (2018, 12))
    found = table(report.markdown, "Figures")
    assert list(found["Total return"]) == ["S&P 500"]
    assert number(found["Total return"]["S&P 500"]) == close_to(100 * own.total)
    assert "Against" not in re.findall(r"^## (\w+)", report.markdown, re.MULTILINE)


def test_headlines_are_few_dated_and_in_order(ask: Callable[[str], Report]) -> None:
    """The twelve that weigh most, however many there are."""
    section = ask(EVERYTHING).markdown.split("## Headlines")[1].split("\n## ")[0]
    dates = re.findall(r"^- \*\*(\w{3}) (\d{4})\*\*: .+\.$", section, re.MULTILINE)
    months = [(int(year), MONTHS.index(month)) for month, year in dates]
    assert len(months) == 12
    assert months == sorted(months)
