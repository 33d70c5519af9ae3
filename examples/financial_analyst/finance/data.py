"""From the sources to the values the actors pass on: cut to a period, typed, with their source."""

from collections.abc import Mapping
from datetime import date
from typing import TypeVar

from finance import sources
from finance.errors import OutsideDataError, UnknownTickerError
from finance.model import Catalog, Coverage, Macro, Quarter, Rates, Series
from finance.months import month_end, month_start, shift, span_label

_V = TypeVar("_V")


def catalog() -> Catalog:
    """What can be asked about: every stock and the benchmark with the months they cover."""
    stocks = {
        ticker: _coverage(ticker, sources.COMPANIES.get(ticker, ticker), closes)
        for ticker, closes in sources.stock_closes().items()
    }
    index = _coverage(sources.BENCHMARK, "US stock market", sources.benchmark_closes())
    return Catalog(stocks=stocks, benchmark=index)


def known_names(known: Catalog) -> tuple[str, ...]:
    """The stocks for people: ``("AAPL (Apple)", "IBM", ...)``."""
    return tuple(
        name if name == stock.label else f"{name} ({stock.label})" for name, stock in known.stocks.items()
    )


def stock_series(ticker: str, start: date, end: date) -> Series:
    """The closes of a stock from the month before `start` (the base) to the month of `end`.

    Args:
        ticker: Upper case, for example ``"AAPL"``.
        start: A day in the first month whose return counts.
        end: A day in the last month.

    Raises:
        UnknownTickerError: There are no prices under this ticker.
        OutsideDataError: The period has no month with a close and one before it.
    """
    closes = sources.stock_closes().get(ticker)
    if closes is None:
        raise UnknownTickerError(ticker, known_names(catalog()))
    label = sources.COMPANIES.get(ticker, ticker)
    return _series(ticker, label, closes, (start, end), sources.STOCKS_SOURCE)


def benchmark_series(start: date, end: date) -> Series:
    """The S&P 500 over a period, like `stock_series`."""
    name, closes = sources.BENCHMARK, sources.benchmark_closes()
    return _series(name, "US stock market", closes, (start, end), sources.BENCHMARK_SOURCE)


def rates(start: date, end: date) -> Rates:
    """Bill yields, inflation, bond yields and the risk-free return over a period."""
    bonds = _between(sources.bonds(), start, end)
    return Rates(
        quarters=_quarters(start, end),
        risk_free=tuple(_between(sources.risk_free(), start, end).items()),
        bonds=tuple((month, pair.aaa, pair.baa) for month, pair in bonds.items()),
        sources=(sources.MACRO_SOURCE, sources.RISK_FREE_SOURCE, sources.BONDS_SOURCE),
    )


def macro(start: date, end: date) -> Macro:
    """Unemployment, inflation, growth and payrolls over a period."""
    return Macro(
        quarters=_quarters(start, end),
        payrolls=tuple(_between(sources.payrolls(), start, end).items()),
        sources=(sources.MACRO_SOURCE, sources.PAYROLLS_SOURCE),
    )


def _coverage(name: str, label: str, closes: Mapping[date, float]) -> Coverage:
    return Coverage(name=name, label=label, first=min(closes), last=max(closes))


def _series(
    name: str, label: str, closes: Mapping[date, float], period: tuple[date, date], source: str
) -> Series:
    """Cut a series to a period and its base; at least one return must be left."""
    start, end = period
    kept = _between(closes, shift(start, -1), end)
    if len(kept) < 2:
        available = span_label(min(closes), max(closes))
        raise OutsideDataError(name, span_label(start, end), available)
    return Series(name, label, tuple(kept), tuple(kept.values()), source)


def _between(values: Mapping[date, _V], start: date, end: date) -> dict[date, _V]:
    """What lies in the months from that of `start` to that of `end`, both included."""
    first, last = month_start(start), month_end(end.year, end.month)
    return {month: value for month, value in values.items() if first <= month <= last}


def _quarters(start: date, end: date) -> tuple[Quarter, ...]:
    """The quarters that end in the period."""
    last = month_end(end.year, end.month)
    return tuple(q for q in sources.quarters() if start <= q.end <= last)
