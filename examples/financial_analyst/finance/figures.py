"""The statistics of a series and of a stock beside the benchmark, computed by empyrical.

empyrical loads pandas and SciPy, so it is imported by the functions that need it.
Definitions: the yearly return compounds (12 months a year), volatility is the sample deviation of
monthly returns times the root of 12, Sharpe's ratio is the mean monthly return above the one-month
Treasury bill over its deviation, times the root of 12 (Sharpe 1994); beta and alpha are the slope
and the compounded yearly intercept of the stock's returns on the benchmark's.
"""

import math
from collections.abc import Sequence
from datetime import date
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from finance.model import Drawdown, Finding, MonthReturn, Rates, Relation, Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[np.float64]

_YEAR = 12  # months; below it nothing is stated per year
_FEW = 3  # returns; below it a deviation or a slope says nothing


def monthly_returns(series: Series) -> dict[date, float]:
    """The return of each month but the base, a fraction."""
    steps = zip(series.months[1:], pairwise(series.closes), strict=True)
    return {month: now / before - 1 for month, (before, now) in steps}


def study(series: Series, rates: Rates) -> Finding:
    """Return, risk and extremes of one series.

    Args:
        series: Closes, the first one being the base.
        rates: Where the risk-free return comes from; without it for every month, no Sharpe ratio.
    """
    import empyrical
    import numpy as np

    by_month = monthly_returns(series)
    returns = np.array(list(by_month.values()))
    best = max(by_month, key=lambda month: by_month[month])
    worst = min(by_month, key=lambda month: by_month[month])
    full_year, enough = len(returns) >= _YEAR, len(returns) >= _FEW
    return Finding(
        name=series.name,
        label=series.label,
        base=series.months[0],
        last=series.months[-1],
        months=len(returns),
        total_return=float(empyrical.cum_returns_final(returns)),
        annual_return=_number(empyrical.annual_return(returns, "monthly")) if full_year else None,
        volatility=_number(empyrical.annual_volatility(returns, "monthly")) if enough else None,
        sharpe=_sharpe(by_month, rates) if enough else None,
        drawdown=worst_drawdown(series),
        best=MonthReturn(best, by_month[best]),
        worst=MonthReturn(worst, by_month[worst]),
        source=series.source,
    )


def _sharpe(by_month: dict[date, float], rates: Rates) -> float | None:
    import empyrical
    import numpy as np

    free = dict(rates.risk_free)
    if any(month not in free for month in by_month):
        return None
    returns = np.array(list(by_month.values()))
    bills = np.array([free[month] for month in by_month])
    return _number(empyrical.sharpe_ratio(returns, bills, "monthly"))


def worst_drawdown(series: Series) -> Drawdown:
    """The deepest fall from a high so far, its dates, and the month the high was reached again."""
    import empyrical
    import numpy as np

    returns = np.array(list(monthly_returns(series).values()))
    depth = float(empyrical.max_drawdown(returns))
    peaks, trough = _running_peaks(series.closes), 0
    for at, close in enumerate(series.closes):
        lowest = series.closes[trough] / series.closes[peaks[trough]]
        if close / series.closes[peaks[at]] < lowest:
            trough = at
    high = series.closes[peaks[trough]]
    later = zip(series.months[trough:], series.closes[trough:], strict=True)
    recovered = next((month for month, close in later if close >= high), None)
    return Drawdown(depth, series.months[peaks[trough]], series.months[trough], recovered)


def _running_peaks(closes: Sequence[float]) -> list[int]:
    """For each position, where the highest close up to it stands (the latest of equals)."""
    peaks: list[int] = []
    for at, close in enumerate(closes):
        peaks.append(at if not peaks or close >= closes[peaks[-1]] else peaks[-1])
    return peaks


def relate(stock: Series, benchmark: Series) -> Relation:
    """A stock beside the benchmark, over the months that both have.

    Raises:
        ValueError: They have no two months in common.
    """
    import empyrical

    stock, benchmark = _common(stock, benchmark)
    ours, theirs = _vector(stock), _vector(benchmark)
    enough = len(ours) >= _FEW
    alpha = beta = correlation = None
    if enough:
        both = empyrical.alpha_beta(ours, theirs, period="monthly")
        alpha, beta = _number(both[0]), _number(both[1])
        correlation = _correlation(ours, theirs)
    return Relation(
        name=stock.name,
        base=stock.months[0],
        last=stock.months[-1],
        stock_return=stock.closes[-1] / stock.closes[0] - 1,
        benchmark_return=benchmark.closes[-1] / benchmark.closes[0] - 1,
        beta=beta,
        alpha=alpha if len(ours) >= _YEAR else None,
        correlation=correlation,
    )


def _common(left: Series, right: Series) -> tuple[Series, Series]:
    """Both series cut to the months that both have."""
    shared = sorted(set(left.months) & set(right.months))
    if len(shared) < 2:
        raise ValueError(f"{left.name} and {right.name} have no two months in common")
    return _only(left, shared), _only(right, shared)


def _only(series: Series, months: Sequence[date]) -> Series:
    closes = dict(zip(series.months, series.closes, strict=True))
    kept = tuple(closes[month] for month in months)
    return Series(series.name, series.label, tuple(months), kept, series.source)


def _vector(series: Series) -> "Vector":
    import numpy as np

    return np.array(list(monthly_returns(series).values()))


def _correlation(ours: "Vector", theirs: "Vector") -> float | None:
    """Pearson's coefficient; None where one of the two never moves."""
    import numpy as np

    if not ours.std() or not theirs.std():
        return None
    return _number(np.corrcoef(ours, theirs)[0, 1])


def _number(value: "float | np.floating") -> float | None:
    """A plain float, or None for what is not a number."""
    number = float(value)
    return number if math.isfinite(number) else None
