"""The economy around the stocks: work, prices, growth."""

from datetime import date
from statistics import fmean

from finance.model import Economy, Macro
from finance.money import ends_early


def study_economy(macro: Macro, end: date) -> Economy | None:
    """Summarise the economy of a period that ends at `end`; None if no quarter of it has data."""
    if not macro.quarters:
        return None
    quarters = macro.quarters
    low = min(quarters, key=lambda quarter: quarter.unemployment)
    high = max(quarters, key=lambda quarter: quarter.unemployment)
    return Economy(
        first=quarters[0].end,
        last=quarters[-1].end,
        unemployment_first=quarters[0].unemployment,
        unemployment_last=quarters[-1].unemployment,
        unemployment_low=(low.end, low.unemployment),
        unemployment_high=(high.end, high.unemployment),
        inflation_average=fmean(quarter.inflation for quarter in quarters),
        gdp_growth=_growth(quarters[0].real_gdp, quarters[-1].real_gdp, len(quarters)),
        payrolls=_payroll_change(macro),
        notes=ends_early(quarters, end),
        sources=macro.sources,
    )


def _growth(first: float, last: float, quarters: int) -> float | None:
    """Total growth from the first to the last quarter; None for a single one."""
    return last / first - 1 if quarters > 1 else None


def _payroll_change(macro: Macro) -> tuple[date, date, float] | None:
    """First and last month with payroll numbers, and the change between them."""
    if len(macro.payrolls) < 2:
        return None
    (first, before), (last, after) = macro.payrolls[0], macro.payrolls[-1]
    return first, last, after / before - 1
