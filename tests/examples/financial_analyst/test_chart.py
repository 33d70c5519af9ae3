"""The picture of the report."""

import struct
from datetime import date

import numpy as np
import pytest
from finance.chart import draw, figure_of
from finance.data import benchmark_series, stock_series
from finance.model import Series
from matplotlib.dates import num2date

PERIOD = (date(2004, 1, 1), date(2009, 12, 31))


def stocks() -> list[Series]:
    """Two stocks over the same months."""
    return [stock_series(ticker, *PERIOD) for ticker in ("AAPL", "MSFT")]


def test_the_chart_is_a_png_of_the_size_it_says() -> None:
    """Read from the file's own header; and it says in words what it shows."""
    chart = draw(stocks(), benchmark_series(*PERIOD))
    assert chart.png[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", chart.png[16:24]) == (chart.width, chart.height)
    assert all(name in chart.alt for name in ("AAPL", "MSFT", "S&P 500"))


def test_the_lines_are_the_data() -> None:
    """Above what 100 became, below how far under the high; the index first, dashed."""
    apple, microsoft = stocks()
    index = benchmark_series(*PERIOD)
    above, below = figure_of([apple, microsoft], index).axes
    lines = above.get_lines()[:3]
    assert [line.get_linestyle() for line in lines] == ["--", "-", "-"]
    for line, series in zip(lines, (index, apple, microsoft), strict=True):
        expected = [100 * close / series.closes[0] for close in series.closes]
        assert np.asarray(line.get_ydata(), float) == pytest.approx(expected)
    depths = [np.asarray(line.get_ydata(), float).min() for line in below.get_lines()[:3]]
    assert depths == pytest.approx([-52.6, -56.9, -54.9], abs=0.05)


def test_the_time_axis_shows_the_years_of_the_data() -> None:
    """Dates, not counts of days."""
    above, _ = figure_of(stocks(), None).axes
    days = np.asarray(above.get_lines()[0].get_xdata(), float)
    ends = num2date(days[[0, -1]])  # type: ignore[no-untyped-call]
    assert [day.date() for day in ends] == [date(2003, 12, 31), date(2009, 12, 31)]


def test_the_benchmark_alone_can_be_drawn() -> None:
    """A question about the index only has a picture too."""
    chart = draw([], benchmark_series(*PERIOD))
    assert chart.alt.endswith("S&P 500")
    assert len(chart.png) > 10_000
