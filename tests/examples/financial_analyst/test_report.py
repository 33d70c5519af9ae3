"""The numbers of the report against a computation of their own, from the files in plain Python.

The workflow runs as it is, in this process. Nothing here is shared with the example: the files are
found and read anew, and every figure is written out by its definition.
"""

import csv
import gzip
import re
from collections.abc import Callable
from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from statistics import correlation, fmean, linear_regression, stdev

import app
import pytest
from finance.model import Report

EXAMPLE = (
    "Compare AAPL and MSFT between 2004 and 2009: return, volatility, worst drawdown, against the S&P 500"
)
EVERYTHING = "Show all the figures of all five stocks since 2005 against the S&P 500"
Month = tuple[int, int]
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@pytest.fixture(scope="module")
def ask() -> Callable[[str], Report]:
    """Ask the workflow; each question once."""
    answers: dict[str, Report] = {}

    def answer(question: str) -> Report:
        if question not in answers:
            answers[question] = app.research.run_local(question)
        return answers[question]

    return answer


# --- the independent computation -----------------------------------------------------------------


def _file(package: str, path: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / path


def closes_of(name: str) -> dict[Month, float]:
    """Closes at the ends of complete months."""
    closes: dict[Month, float] = {}
    if name == "S&P 500":
        with gzip.open(_file("arch", "data/sp500/sp500.csv.gz"), "rt") as lines:
            days = [(row["Date"].split("/"), row["Close"]) for row in csv.DictReader(lines)]
        for (month, _, year), close in sorted(days, key=lambda day: int(day[0][1])):
            closes[int(year), int(month)] = float(close)
        return dict(sorted(closes.items()))
    with _file("vega_datasets", "_data/stocks.csv").open() as plain:
        for row in csv.DictReader(plain):
            month, _, year = row["date"].split()
            if row["symbol"] == name and (month, year) != ("Mar", "2010"):
                closes[int(year), MONTHS.index(month) + 1] = float(row["price"])
    return closes


def bills() -> dict[Month, float]:
    """The risk-free return, a fraction a month."""
    with gzip.open(_file("arch", "data/frenchdata/frenchdata.csv.gz"), "rt") as lines:
        return {
            (int(row["Date"][:4]), int(row["Date"][4:])): float(row["RF"]) / 100
            for row in csv.DictReader(lines)
        }


class Own:
    """One series from the month before `first` to `last`, and its figures by their definitions."""

    def __init__(self, name: str, first: Month, last: Month) -> None:
        closes = closes_of(name)
        before = (first[0] - 1, 12) if first[1] == 1 else (first[0], first[1] - 1)
        self.months = [month for month in closes if before <= month <= last]
        self.closes = [closes[month] for month in self.months]
        pairs = zip(self.closes, self.closes[1:], strict=False)
        self.returns = [later / earlier - 1 for earlier, later in pairs]

    @property
    def total(self) -> float:
        """From the base to the end."""
        return self.closes[-1] / self.closes[0] - 1

    @property
    def yearly(self) -> float:
        """The same, compounded a year."""
        years = len(self.returns) / 12
        return float((self.closes[-1] / self.closes[0]) ** (1 / years) - 1)

    @property
    def volatility(self) -> float:
        """Sample deviation of the months, a year."""
        return stdev(self.returns) * sqrt(12)

    @property
    def sharpe(self) -> float:
        """Mean excess over deviation of the excess, a year."""
        free = bills()
        excess = [r - free[m] for r, m in zip(self.returns, self.months[1:], strict=True)]
        return fmean(excess) / stdev(excess) * sqrt(12)

    @property
    def drawdown(self) -> tuple[float, Month, Month]:
        """The deepest of all pairs of an earlier and a later close, with their months."""
        return min(
            (later / earlier - 1, self.months[at], self.months[at + further])
            for at, earlier in enumerate(self.closes)
            for further, later in enumerate(self.closes[at:])
        )


def label(month: Month) -> str:
    """As the report writes a month."""
    return f"{MONTHS[month[1] - 1]} {month[0]}"


# --- reading the report --------------------------------------------------------------------------


def table(report: Report, heading: str) -> dict[str, dict[str, str]]:
    """The table under a heading: row, column, cell. Columns by the first word of theirs."""
    section = report.markdown.split(f"## {heading}")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    rows = [[cell.strip() for cell in row] for row in rows]
    columns = [re.sub(r" \(.*", "", cell) for cell in rows[0] if cell]
    return {row[0]: dict(zip(columns, row[1:], strict=True)) for row in rows[2:]}


def number(cell: str) -> float:
    """The number a cell starts with."""
    found = re.match(r"[+-]?[\d,]+\.?\d*", cell)
    assert found is not None, cell
    return float(found.group().replace(",", ""))


def close_to(value: float, decimals: int = 1) -> object:
    """What a number rounded to so many decimals may be."""
    return pytest.approx(value, abs=0.5 * 10**-decimals + 1e-9)


# --- the tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["AAPL", "MSFT", "S&P 500"])
def test_the_figures_of_the_example_are_right(ask: Callable[[str], Report], name: str) -> None:
    """Return, volatility and drawdown with its dates."""
    own, found = Own(name, (2004, 1), (2009, 12)), table(ask(EXAMPLE), "Figures")
    assert number(found["Total return"][name]) == close_to(100 * own.total)
    assert number(found["Return a year"][name]) == close_to(100 * own.yearly)
    assert number(found["Volatility a year"][name]) == close_to(100 * own.volatility)
    depth, peak, trough = own.drawdown
    assert number(found["Worst drawdown"][name]) == close_to(100 * depth)
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
    own, found = Own(name, (2005, 1), (2010, 2)), table(ask(EVERYTHING), "Figures")
    assert number(found["Total return"][name]) == close_to(100 * own.total)
    assert number(found["Return a year"][name]) == close_to(100 * own.yearly)
    assert number(found["Volatility a year"][name]) == close_to(100 * own.volatility)
    assert number(found["Worst drawdown"][name]) == close_to(100 * own.drawdown[0])
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
    found = table(ask(EVERYTHING), "Against the S&P 500")[name]
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
    found = table(report, "Figures")
    assert number(found["Total return"]["GOOG"]) == close_to(100 * google.total)
    assert found["Months (from the close of)"]["GOOG"] == "64 (Aug 2004)"
    against = table(report, "Against the S&P 500")["GOOG"]
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
    found = table(report, "Figures")
    assert number(found["Total return"]["IBM"]) == close_to(100 * own.total)
    assert found["Return a year"]["IBM"] == found["Volatility a year"]["IBM"] == "-"


def test_the_benchmark_alone_can_be_asked_about(ask: Callable[[str], Report]) -> None:
    """Beyond the years of the stocks too."""
    report = ask("What was the return of the S&P 500 between 2011 and 2018?")
    own = Own("S&P 500", (2011, 1), (2018, 12))
    found = table(report, "Figures")
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
