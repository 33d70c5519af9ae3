"""Rates and bonds: what cash earned, before and after inflation, and what credit risk paid."""

from collections.abc import Sequence
from datetime import date
from math import prod
from statistics import fmean

from finance.model import Quarter, Rates, RatesFinding
from finance.months import quarter_label


def study_rates(rates: Rates, start: date, end: date) -> RatesFinding | None:
    """Summarise the rates of a period; None if no quarter of it has rates.

    Averages are over quarters; the bill's return compounds over the months and is None unless the
    source has every month of the period.
    """
    if not rates.quarters:
        return None
    quarters = rates.quarters
    high = max(quarters, key=lambda quarter: quarter.bill_yield)
    low = min(quarters, key=lambda quarter: quarter.bill_yield)
    spreads = [(month, baa - aaa) for month, aaa, baa in rates.bonds]
    months = (end.year - start.year) * 12 + end.month - start.month + 1
    whole = len(rates.risk_free) == months
    return RatesFinding(
        first=quarters[0].end,
        last=quarters[-1].end,
        bill_average=fmean(quarter.bill_yield for quarter in quarters),
        bill_high=(high.end, high.bill_yield),
        bill_low=(low.end, low.bill_yield),
        inflation_average=fmean(quarter.inflation for quarter in quarters),
        real_rate_average=fmean(quarter.real_rate for quarter in quarters),
        bill_return=prod(1 + value for _, value in rates.risk_free) - 1 if whole else None,
        spread_widest=max(spreads, key=lambda pair: pair[1]) if spreads else None,
        spread_average=fmean(value for _, value in spreads) if spreads else None,
        notes=ends_early(quarters, end),
        sources=rates.sources,
    )


def ends_early(quarters: Sequence[Quarter], end: date) -> tuple[str, ...]:
    """A note for the reader where the quarterly data end before the period does."""
    last = quarters[-1].end
    quarter_months = 3
    if (end.year - last.year) * 12 + end.month - last.month < quarter_months:
        return ()
    return (f"The quarterly data end with {quarter_label(last)}; later quarters are missing.",)
