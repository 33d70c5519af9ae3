"""Calendar arithmetic on months, each written as the date of its last day.

The stock prices are one close a month. A file that dates a month by its first day (as Vega's does)
and a daily file both become month ends here, so that series from different sources line up.
"""

import calendar
from datetime import date

_MONTHS_PER_YEAR = 12


def month_end(year: int, month: int) -> date:
    """The last day of a month (1 to 12)."""
    return date(year, month, calendar.monthrange(year, month)[1])


def month_start(day: date) -> date:
    """The first day of the month that `day` lies in."""
    return day.replace(day=1)


def shift(day: date, months: int) -> date:
    """The end of the month that lies `months` after (or, negative, before) the month of `day`.

    A result outside the years that `date` knows stays at the nearest month it can hold.
    """
    index = day.year * _MONTHS_PER_YEAR + day.month - 1 + months
    lowest, highest = _MONTHS_PER_YEAR, date.max.year * _MONTHS_PER_YEAR + _MONTHS_PER_YEAR - 1
    index = min(max(index, lowest), highest)
    return month_end(index // _MONTHS_PER_YEAR, index % _MONTHS_PER_YEAR + 1)


def month_label(day: date) -> str:
    """A month for people, independent of the locale: ``Mar 2004``."""
    return f"{calendar.month_abbr[day.month]} {day.year}"


def span_label(first: date, last: date) -> str:
    """A span of months for people: ``Mar 2004 to Dec 2009``, or one month alone."""
    if (first.year, first.month) == (last.year, last.month):
        return month_label(first)
    return f"{month_label(first)} to {month_label(last)}"


def quarter_label(day: date) -> str:
    """The quarter of a day for people: ``Q3 2008``."""
    return f"Q{(day.month + 2) // 3} {day.year}"
