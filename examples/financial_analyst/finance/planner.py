"""From a question to a plan. The rules stand in for a model, and every plan says so.

`Planner` is the place where a model plugs in: anything that turns a question, the catalogue and the
plan before it into a `Plan`. The rest of the example does not change: give the model-backed planner
to `Analyst` in app.py.
"""

from collections.abc import Sequence
from datetime import date
from typing import Protocol, TypeVar

from finance.data import known_names
from finance.errors import NotUnderstoodError, OutsideDataError
from finance.model import Catalog, Coverage, Metric, Plan, Section
from finance.months import month_label, shift, span_label
from finance.periods import Period
from finance.reading import Reading, read

_T = TypeVar("_T")

ALL_METRICS: tuple[Metric, ...] = (
    "return",
    "volatility",
    "drawdown",
    "sharpe",
    "extremes",
    "beta",
    "correlation",
)
ALL_SECTIONS: tuple[Section, ...] = ("chart", "headlines", "rates", "economy")
_NEED_BENCHMARK: frozenset[Metric] = frozenset({"beta", "correlation"})
_YEAR = 12  # months


class Planner(Protocol):
    """Where a model plugs in."""

    async def plan(self, question: str, catalog: Catalog, previous: Plan | None) -> Plan:
        """Turn a question into a plan.

        Args:
            question: As the user wrote it.
            catalog: What there is data for; a model gets it in its prompt.
            previous: The plan of the question before in the same session, or None.

        Raises:
            AnalystError: The question cannot be planned; the class says why.
        """
        ...


class RulePlanner:
    """A `Planner` that knows a few hundred words of English and no more."""

    name = "fixed rules, no language model"

    async def plan(self, question: str, catalog: Catalog, previous: Plan | None) -> Plan:
        """See `Planner.plan`."""
        return plan_by_rules(question, catalog, previous)


def plan_by_rules(question: str, catalog: Catalog, previous: Plan | None = None) -> Plan:
    """Read a question and merge it with the plan before it; see `Planner.plan`."""
    reading = read(question, catalog)
    if reading.empty:
        raise NotUnderstoodError(question, known_names(catalog))
    reasons: list[str] = []
    notes: list[str] = []
    tickers = _choose_tickers(reading, previous, catalog, reasons)
    metrics = _choose_metrics(reading, previous, reasons)
    benchmark = _choose_benchmark(reading, tickers, metrics, previous, reasons)
    if not tickers and not benchmark:
        raise NotUnderstoodError(question, known_names(catalog))
    start, end = _choose_period(reading.period, previous, _covers(tickers, catalog), reasons)
    if start > end:  # open on the side where the data have ended, or have not begun
        raise _outside(_covers(tickers, catalog), f'"{reading.period.words}"' if reading.period else "")
    tickers, start, end = _fit(tickers, (start, end), catalog, notes)
    if reading.period and reading.period.swapped:
        notes.append(f'"{reading.period.words}" names the later end first; it was turned round.')
    if reading.ignored:
        notes.append(f"Not understood, and ignored: {', '.join(reading.ignored)}.")
    return Plan(
        question=question,
        tickers=tickers,
        start=start,
        end=end,
        metrics=tuple(m for m in metrics if benchmark or m not in _NEED_BENCHMARK),
        benchmark=benchmark,
        sections=_choose_sections(reading, previous, reasons),
        planner=RulePlanner.name,
        reasons=tuple(reasons),
        notes=tuple(notes),
    )


def _choose_tickers(
    reading: Reading, previous: Plan | None, catalog: Catalog, reasons: list[str]
) -> tuple[str, ...]:
    before = previous.tickers if previous else ()
    if reading.tickers and (reading.follow == "replace" or not before):
        chosen = tuple(reading.tickers)
        how = "named in the question"
        if before and not set(before) <= set(chosen):
            how += f', in place of {_listed(before)} (say "add" to keep them)'
    elif reading.tickers:
        chosen = _union(before, reading.tickers)
        how = f"{_listed(reading.tickers)} added to those of the question before"
    elif reading.which and not before:
        chosen, how = tuple(catalog.stocks), '"which" asks about all'
    else:
        chosen, how = before, "as in the question before"
    if reading.dropped_tickers:
        chosen = tuple(ticker for ticker in chosen if ticker not in reading.dropped_tickers)
        how += f", without {_listed(reading.dropped_tickers)}"
    reasons.append(f"Stocks: {_listed(chosen)} ({how})." if chosen else "Stocks: none named.")
    return chosen


def _choose_metrics(reading: Reading, previous: Plan | None, reasons: list[str]) -> tuple[Metric, ...]:
    chosen: tuple[Metric, ...]
    if reading.metrics and previous and reading.follow == "add" and not reading.tickers:
        chosen, how = _union(previous.metrics, reading.metrics), "added to those before"
    elif reading.metrics:
        chosen, how = tuple(reading.metrics), "named in the question"
    elif previous:
        chosen, how = previous.metrics, "as in the question before"
    else:
        chosen, how = ALL_METRICS, "none named, so all"
    kept = tuple(metric for metric in chosen if metric not in reading.dropped_metrics)
    reasons.append(f"Figures: {_listed(kept)} ({how}).")
    return kept


def _choose_benchmark(
    reading: Reading,
    tickers: tuple[str, ...],
    metrics: tuple[Metric, ...],
    previous: Plan | None,
    reasons: list[str],
) -> bool:
    new = reading.metrics or (() if previous else metrics)
    needed = bool(tickers) and bool(_NEED_BENCHMARK & set(new))
    if reading.benchmark is not None:
        chosen, how = reading.benchmark, "the question says so"
    elif needed:
        chosen, how = True, "the figures need it"
    elif previous:
        chosen, how = previous.benchmark, "as in the question before"
    else:
        chosen, how = False, "not asked for"
    reasons.append(f"Benchmark: {'the S&P 500' if chosen else 'none'} ({how}).")
    return chosen


def _choose_period(
    period: Period | None, previous: Plan | None, covers: list[Coverage], reasons: list[str]
) -> tuple[date, date]:
    first = min(cover.first for cover in covers)
    last = max(cover.last for cover in covers)
    if period:
        start, end = period.within(shift(first, 1), last)
        how = f'"{period.words}"'
        if period.months > 0:
            how += f", counted back from the end of the data in {month_label(last)}"
    elif previous:
        start, end, how = previous.start, previous.end, "as in the question before"
    else:
        start, end = Period("").within(shift(first, 1), last)
        how = "none named, so all there is"
    reasons.append(f"Period: {span_label(start, end)} ({how}).")
    return start, end


def _choose_sections(reading: Reading, previous: Plan | None, reasons: list[str]) -> tuple[Section, ...]:
    before = previous.sections if previous else ALL_SECTIONS
    wanted = set(before) - set(reading.dropped_sections) | set(reading.asked_sections)
    kept = tuple(section for section in ALL_SECTIONS if section in wanted)
    if kept != ALL_SECTIONS:
        left_out = [section for section in ALL_SECTIONS if section not in wanted]
        reasons.append(f"Left out, as the question asks: {_listed(left_out)}.")
    return kept


def _covers(tickers: tuple[str, ...], catalog: Catalog) -> list[Coverage]:
    """What the data of the chosen stocks cover; of the benchmark where there is no stock."""
    return [catalog.stocks[ticker] for ticker in tickers] or [catalog.benchmark]


def _fit(
    tickers: tuple[str, ...], period: tuple[date, date], catalog: Catalog, notes: list[str]
) -> tuple[tuple[str, ...], date, date]:
    """Cut the period to the data, and leave out stocks that have none in it.

    Raises:
        OutsideDataError: Nothing is left.
    """
    covers = _covers(tickers, catalog)
    usable = [cover for cover in covers if _overlaps(cover, period)]
    if not usable:
        raise _outside(covers, span_label(*period))
    start = max(period[0], min(_first_return(cover) for cover in usable))
    end = min(period[1], max(cover.last for cover in usable))
    if (start, end) != period:
        notes.append(f"Asked for {span_label(*period)}; the data cover {span_label(start, end)}.")
    for cover in covers:
        if cover not in usable:
            there = span_label(cover.first, cover.last)
            notes.append(f"{cover.name} is left out: its data run from {there}.")
        elif _first_return(cover) > start:
            notes.append(f"{cover.name}: the data begin with the close of {month_label(cover.first)}.")
    names = {cover.name for cover in usable}
    return tuple(ticker for ticker in tickers if ticker in names), start, end


def _outside(covers: list[Coverage], asked: str) -> OutsideDataError:
    first, last = min(cover.first for cover in covers), max(cover.last for cover in covers)
    return OutsideDataError(_listed([c.name for c in covers]), asked, span_label(first, last))


def _overlaps(cover: Coverage, period: tuple[date, date]) -> bool:
    """Whether at least one monthly return lies in the period."""
    return _first_return(cover) <= period[1] and period[0] <= cover.last


def _first_return(cover: Coverage) -> date:
    """First day of the first month with a close before it."""
    return shift(cover.first, 1).replace(day=1)


def _union(before: tuple[_T, ...], more: list[_T]) -> tuple[_T, ...]:
    return (*before, *(item for item in more if item not in before))


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items) or "none"
