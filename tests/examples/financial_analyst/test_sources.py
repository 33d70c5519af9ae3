"""The data files are read as what they are."""

from datetime import date

import pytest
from finance import sources
from finance.data import catalog, macro, rates, stock_series
from finance.economy import study_economy
from finance.model import Macro, Rates, RatesFinding
from finance.money import study_rates


def test_an_incomplete_last_month_is_left_out() -> None:
    """The file ends in the middle of March 2010."""
    assert max(sources.stock_closes()["AAPL"]) == date(2010, 2, 28)
    assert sources.stock_closes()["AAPL"][date(2010, 2, 28)] == 204.62


def test_stock_and_index_are_taken_on_the_same_day() -> None:
    """Both at the end of the month: so they fall and rise together, unlike a month apart."""
    ibm, index = sources.stock_closes()["IBM"], sources.benchmark_closes()
    months = [month for month in sorted(ibm) if month > date(2000, 2, 1)]
    pairs = list(zip(months, months[1:], months[2:], strict=False))

    def agreement(shifted: int) -> int:
        """In how many months both moved the same way, the index `shifted` months later."""
        return sum(
            (ibm[group[1]] > ibm[group[0]]) == (index[group[1 + shifted]] > index[group[shifted]])
            for group in pairs
        )

    assert agreement(0) > agreement(1) + 10


def test_index_closes_are_those_of_the_last_trading_day() -> None:
    """October 2008 ended at 968.75, a Friday; 2009 at 1115.10."""
    closes = sources.benchmark_closes()
    assert closes[date(2008, 10, 31)] == pytest.approx(968.75)
    assert closes[date(2009, 12, 31)] == pytest.approx(1115.10)


def test_every_series_is_in_order_and_without_gaps() -> None:
    """Each month follows the one before."""
    everything = [*sources.stock_closes().values(), sources.benchmark_closes()]
    everything += [sources.risk_free(), sources.payrolls()]
    for series in everything:
        months = [month.year * 12 + month.month for month in series]
        assert months == list(range(months[0], months[0] + len(months)))


def test_a_series_starts_with_its_base() -> None:
    """The close of the month before the first month asked for, whatever the day."""
    series = stock_series("MSFT", date(2004, 1, 20), date(2004, 3, 2))
    assert series.months == (
        date(2003, 12, 31),
        date(2004, 1, 31),
        date(2004, 2, 29),
        date(2004, 3, 31),
    )


def test_the_catalogue_tells_what_is_there() -> None:
    """Google begins when it was listed."""
    known = catalog()
    assert known.stocks["GOOG"].first == date(2004, 8, 31)
    assert {stock.last for stock in known.stocks.values()} == {date(2010, 2, 28)}
    assert (known.benchmark.first, known.benchmark.last) == (date(1999, 1, 31), date(2018, 12, 31))


def rates_of(start: date, end: date) -> RatesFinding | None:
    """What the RatesAnalyst says about a period."""
    return study_rates(rates(start, end), start, end)


def test_rates_of_the_crisis() -> None:
    """Bills fell to nothing, credit spreads to their widest, as is known of the end of 2008."""
    found = rates_of(date(2008, 1, 1), date(2008, 12, 31))
    assert found is not None
    assert found.bill_low == (date(2008, 12, 31), 0.12)
    assert found.bill_average == pytest.approx((1.56 + 1.74 + 1.17 + 0.12) / 4)
    assert found.spread_widest is not None
    assert found.spread_widest[0] == date(2008, 12, 31)
    assert found.spread_widest[1] == pytest.approx(8.43 - 5.05)
    assert found.notes == ()


def test_rates_past_the_end_of_the_data_say_so() -> None:
    """The quarterly data end with the third quarter of 2009."""
    found = rates_of(date(2009, 1, 1), date(2010, 2, 28))
    assert found is not None
    assert found.last == date(2009, 9, 30)
    assert found.notes == ("The quarterly data end with Q3 2009; later quarters are missing.",)
    assert rates_of(date(2010, 1, 1), date(2010, 2, 28)) is None


def test_a_bill_return_needs_every_month() -> None:
    """Otherwise it would be a return of fewer months than the reader thinks."""
    start, end = date(2008, 1, 1), date(2008, 12, 31)
    whole = rates(start, end)
    gap = Rates(whole.quarters, whole.risk_free[1:], whole.bonds, whole.sources)
    full, less = study_rates(whole, start, end), study_rates(gap, start, end)
    assert full is not None
    assert full.bill_return == pytest.approx(0.016, abs=0.001)
    assert less is not None
    assert less.bill_return is None


def test_the_economy_of_the_crisis() -> None:
    """Unemployment rose, payrolls fell."""
    end = date(2009, 9, 30)
    found = study_economy(macro(date(2008, 1, 1), end), end)
    assert found is not None
    assert (found.unemployment_first, found.unemployment_last) == (4.9, 9.6)
    assert found.unemployment_low == (date(2008, 3, 31), 4.9)
    assert found.unemployment_high == (date(2009, 9, 30), 9.6)
    assert found.gdp_growth == pytest.approx(12990.341 / 13366.865 - 1)
    assert found.payrolls is not None
    assert found.payrolls[2] < -0.05
    assert study_economy(Macro((), (), ()), end) is None
