"""The picture of the report: what 100 became, and the falls from each high."""

from collections.abc import Sequence
from io import BytesIO
from itertools import accumulate
from typing import TYPE_CHECKING

from finance.model import Chart, Series
from finance.months import month_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT, _DPI = 9.0, 6.4, 110  # inches, inches, pixels an inch
_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
)  # Okabe and Ito: told apart by all eyes
_GREY = "#555555"


def draw(stocks: Sequence[Series], benchmark: Series | None) -> Chart:
    """Draw the series and render the picture; see `figure_of`."""
    names = [series.name for series in (*stocks, *([benchmark] if benchmark else []))]
    alt = "Growth of 100 and falls from the high of " + ", ".join(names)
    return _png(figure_of(stocks, benchmark), alt)


def figure_of(stocks: Sequence[Series], benchmark: Series | None) -> "Figure":
    """The series as growth of 100 (logarithmic) above their falls from the high, per cent.

    Args:
        stocks: At least one series unless there is a benchmark.
        benchmark: Drawn grey and dashed.
    """
    from matplotlib.dates import date2num
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    lines = [(series, _COLOURS[at % len(_COLOURS)], "-") for at, series in enumerate(stocks)]
    if benchmark:
        lines.insert(0, (benchmark, _GREY, "--"))
    for series, colour, style in lines:
        days = date2num(list(series.months))  # type: ignore[no-untyped-call]
        label = f"{series.name} (since {month_label(series.months[0])})"
        above.plot(days, _growth(series), color=colour, linestyle=style, linewidth=1.8, label=label)
        below.plot(days, _under_water(series), color=colour, linestyle=style, linewidth=1.3)
    _dress(above, below)
    return figure


def _growth(series: Series) -> list[float]:
    return [100 * close / series.closes[0] for close in series.closes]


def _under_water(series: Series) -> list[float]:
    """How far below its high so far each close stands, per cent (0 or negative)."""
    highs = accumulate(series.closes, max)
    return [100 * (close / high - 1) for close, high in zip(series.closes, highs, strict=True)]


def _dress(above: "Axes", below: "Axes") -> None:
    """Scales, labels and grid."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    above.set_yscale("log")
    above.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    above.yaxis.set_minor_formatter(NullFormatter())
    above.axhline(100, color="#bbbbbb", linewidth=0.8, zorder=0)
    above.set_title("What 100 became (logarithmic scale)", loc="left", fontsize=11)
    above.legend(frameon=False, fontsize=9)
    below.set_title("Below the high so far, per cent", loc="left", fontsize=11)
    below.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    for axes in (above, below):
        axes.grid(visible=True, color="#eeeeee")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)


def _png(figure: "Figure", alt: str) -> Chart:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    out = BytesIO()
    canvas.print_png(out)  # type: ignore[no-untyped-call]
    width, height = canvas.get_width_height()
    return Chart(png=out.getvalue(), width=width, height=height, alt=alt)
