"""The tables of the report. A dash stands where the months do not suffice for a figure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from finance.model import Drawdown, Finding, Metric, Plan, Relation
from finance.months import month_label, span_label

Row = tuple[str, Callable[[Finding], str]]


def percent(value: float | None) -> str:
    """A signed fraction as per cent: ``+12.3%``."""
    return "-" if value is None else f"{value:+,.1%}"


def _plain_percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _fall_dates(fall: Drawdown) -> str:
    return span_label(fall.peak, fall.trough) if fall.depth < 0 else "-"


def _recovery(fall: Drawdown) -> str:
    if fall.depth == 0:
        return "-"
    return month_label(fall.recovered) if fall.recovered else "not in the period"


_ROWS: Mapping[Metric, tuple[Row, ...]] = MappingProxyType(
    {
        "return": (
            ("Total return", lambda f: percent(f.total_return)),
            ("Return a year", lambda f: percent(f.annual_return)),
        ),
        "volatility": (("Volatility a year", lambda f: _plain_percent(f.volatility)),),
        "drawdown": (
            ("Worst drawdown", lambda f: percent(f.drawdown.depth)),
            ("... from high to low", lambda f: _fall_dates(f.drawdown)),
            ("... made good", lambda f: _recovery(f.drawdown)),
        ),
        "sharpe": (("Sharpe ratio", lambda f: _ratio(f.sharpe)),),
        "extremes": (
            ("Best month", lambda f: f"{percent(f.best.value)} ({month_label(f.best.month)})"),
            ("Worst month", lambda f: f"{percent(f.worst.value)} ({month_label(f.worst.month)})"),
        ),
    }
)


def figures_table(plan: Plan, findings: Sequence[Finding]) -> list[str]:
    """One column for each series, one row for each figure the plan asks for."""
    rows = [row for metric in plan.metrics for row in _ROWS.get(metric, ())]
    head = ["", *(f.name if f.name == f.label else f"{f.name} ({f.label})" for f in findings)]
    body = [[title, *(cell(finding) for finding in findings)] for title, cell in rows]
    counted = [
        "Months (from the close of)",
        *(f"{f.months} ({month_label(f.base)})" for f in findings),
    ]
    return _table(head, [*body, counted])


def relations_table(relations: Sequence[Relation]) -> list[str]:
    """One row for each stock beside the benchmark."""
    head = ["", "Return", "S&P 500", "Ahead by", "Beta", "Alpha a year", "Correlation", "Months"]
    body = [
        [
            relation.name,
            percent(relation.stock_return),
            percent(relation.benchmark_return),
            f"{(relation.stock_return - relation.benchmark_return) * 100:+,.1f} points",
            _ratio(relation.beta),
            percent(relation.alpha),
            _ratio(relation.correlation),
            span_label(relation.base, relation.last),
        ]
        for relation in relations
    ]
    return _table(head, body)


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *body)]
