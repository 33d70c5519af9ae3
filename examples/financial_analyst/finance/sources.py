"""The data files: real series that published packages ship, read as they are and never fetched.

Each reader says where the numbers come from and what their dates mean. The files are found
through the packages' metadata and read with the standard library: importing the packages would
cost seconds. A source of your own goes here, as one more reader.
"""

import csv
import gzip
from collections.abc import Iterator
from datetime import date, datetime
from functools import cache
from importlib.metadata import distribution
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from finance.model import Quarter
from finance.months import month_end

Monthly: TypeAlias = MappingProxyType[date, float]
"""A value for each month, keyed by the month's last day, oldest first."""

COMPANIES = MappingProxyType(
    {"AAPL": "Apple", "AMZN": "Amazon", "GOOG": "Google", "IBM": "IBM", "MSFT": "Microsoft"}
)
BENCHMARK = "S&P 500"

STOCKS_SOURCE = (
    "Monthly closes of AAPL, AMZN, GOOG, IBM and MSFT, adjusted for splits and dividends: "
    "stocks.csv of the Vega datasets (package vega-datasets)"
)
BENCHMARK_SOURCE = (
    "S&P 500, daily closes taken at month ends, a price index without dividends: "
    "package arch, arch.data.sp500"
)
MACRO_SOURCE = (
    "US quarterly macro-economic data of the Federal Reserve Bank of St. Louis and the Bureau of "
    "Labor Statistics: package statsmodels, statsmodels.datasets.macrodata"
)
RISK_FREE_SOURCE = (
    "One-month Treasury bill return of Kenneth French's data library: package arch, arch.data.frenchdata"
)
BONDS_SOURCE = "Yields of AAA and BAA corporate bonds: package arch, arch.data.default"
PAYROLLS_SOURCE = (
    "Nonfarm payrolls of the Bureau of Labor Statistics, seasonally adjusted: us-employment.csv of "
    "the Vega datasets (package vega-datasets)"
)


class Bonds(NamedTuple):
    """Yields of corporate bonds by rating, per cent a year."""

    aaa: float
    baa: float


def _rows(package: str, path: str) -> Iterator[dict[str, str]]:
    """The rows of a CSV file, gzipped or not, that an installed package ships."""
    file = str(distribution(package).locate_file(path))
    opened = gzip.open(file, "rt") if file.endswith(".gz") else open(file, encoding="utf-8")  # noqa: PTH123, SIM115 - closed below
    with opened as lines:
        yield from csv.DictReader(lines)


@cache
def stock_closes() -> MappingProxyType[str, Monthly]:
    """Closes in US dollars by ticker.

    The file dates a month by its first day and gives the close of its last trading day. Its last
    row, March 2010, is the close of the 9th, the day the file was made: it is left out, because a
    third of a month is no monthly return.
    """
    closes: dict[str, dict[date, float]] = {}
    for row in _rows("vega-datasets", "vega_datasets/_data/stocks.csv"):
        day = datetime.strptime(row["date"], "%b %d %Y")  # noqa: DTZ007 - a month has no time zone
        closes.setdefault(row["symbol"], {})[month_end(day.year, day.month)] = float(row["price"])
    for series in closes.values():
        series.pop(date(2010, 3, 31), None)
    return MappingProxyType({t: MappingProxyType(closes[t]) for t in sorted(closes)})


@cache
def benchmark_closes() -> Monthly:
    """The S&P 500 in points: of each month, the close of its last trading day."""
    closes: dict[date, float] = {}
    for row in _rows("arch", "arch/data/sp500/sp500.csv.gz"):
        month, _, year = (int(part) for part in row["Date"].split("/"))
        closes[month_end(year, month)] = float(row["Close"])  # rows ascend: the last one stays
    return MappingProxyType(closes)


@cache
def quarters() -> tuple[Quarter, ...]:
    """The US economy by quarter, oldest first.

    Inflation is the source's own: 400 times the log change of the consumer price index.
    """
    return tuple(
        Quarter(
            end=month_end(int(float(row["year"])), int(float(row["quarter"])) * 3),
            bill_yield=float(row["tbilrate"]),
            inflation=float(row["infl"]),
            real_rate=float(row["realint"]),
            unemployment=float(row["unemp"]),
            real_gdp=float(row["realgdp"]),
        )
        for row in _rows("statsmodels", "statsmodels/datasets/macrodata/macrodata.csv")
    )


@cache
def risk_free() -> Monthly:
    """The return of a one-month Treasury bill, a fraction a month."""
    rows = _rows("arch", "arch/data/frenchdata/frenchdata.csv.gz")
    return MappingProxyType(
        {month_end(int(r["Date"][:4]), int(r["Date"][4:])): float(r["RF"]) / 100 for r in rows}
    )


@cache
def bonds() -> MappingProxyType[date, Bonds]:
    """Yields of AAA and BAA rated corporate bonds by month."""
    yields: dict[date, Bonds] = {}
    for row in _rows("arch", "arch/data/default/default.csv.gz"):
        month, _, year = (int(part) for part in row["Date"].split("/"))
        yields[month_end(year, month)] = Bonds(float(row["AAA"]), float(row["BAA"]))
    return MappingProxyType(yields)


@cache
def payrolls() -> Monthly:
    """People on nonfarm payrolls, thousands, seasonally adjusted."""
    counts: dict[date, float] = {}
    for row in _rows("vega-datasets", "vega_datasets/_data/us-employment.csv"):
        day = date.fromisoformat(row["month"])
        counts[month_end(day.year, day.month)] = float(row["nonfarm"])
    return MappingProxyType(counts)
