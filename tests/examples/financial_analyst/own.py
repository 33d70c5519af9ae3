"""The figures of the reports computed once more, from the files in plain Python, and reports read back.

Nothing here is shared with the example: the files are found and read anew, and every figure is written
out by its definition.
"""

from __future__ import annotations

import csv
import gzip
import re
from importlib.util import find_spec
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import pytest

EXAMPLE = (
    "Compare AAPL and MSFT between 2004 and 2009: return, volatility, worst drawdown, against the S&P 500"
)
Month = tuple[int, int]
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

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


def table(markdown: str, heading: str) -> dict[str, dict[str, str]]:
    """The table under a heading: row, column, cell. Columns by the first word of theirs."""
    section = markdown.split(f"## {heading}")[1].partition("\n## ")[0]
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


def check_figures(markdown: str, name: str, first: Month, last: Month) -> None:
    """Hold return, volatility and drawdown in a report's table of figures against their own computation."""
    own, found = Own(name, first, last), table(markdown, "Figures")
    assert number(found["Total return"][name]) == close_to(100 * own.total)
    assert number(found["Return a year"][name]) == close_to(100 * own.yearly)
    assert number(found["Volatility a year"][name]) == close_to(100 * own.volatility)
    assert number(found["Worst drawdown"][name]) == close_to(100 * own.drawdown[0])
