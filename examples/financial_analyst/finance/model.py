"""The values that travel between the actors: immutable msgspec structs, no behaviour.

Units, unless a field says otherwise: a *fraction* is 0.1 for ten per cent, a *per cent* is 10.0
for ten per cent (as the sources publish yields and unemployment), a *month* is the date of its
last day.
"""

from datetime import date
from typing import Literal

from msgspec import Struct

Metric = Literal["return", "volatility", "drawdown", "sharpe", "extremes", "beta", "correlation"]
"""A figure that can be asked for; ``extremes`` are the best and the worst month."""

Section = Literal["chart", "headlines", "rates", "economy"]
"""A part of the report that can be left out."""

HeadlineKind = Literal["move", "fall", "trough", "recovery", "economy"]


class Coverage(Struct, frozen=True):
    """What one data source holds, from its first to its last complete month."""

    name: str
    label: str
    first: date
    last: date


class Catalog(Struct, frozen=True):
    """Everything that can be asked about; a planner gets it together with the question."""

    stocks: dict[str, Coverage]
    benchmark: Coverage


class Plan(Struct, frozen=True, kw_only=True):
    """What the question comes to: which stocks, when, which figures and parts.

    `start` is the first day of the first month whose return counts, `end` the last day of the last.
    `reasons` says how each part was found in the question, `notes` what the reader must know.
    """

    question: str
    tickers: tuple[str, ...]
    start: date
    end: date
    metrics: tuple[Metric, ...]
    benchmark: bool
    sections: tuple[Section, ...]
    planner: str
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Series(Struct, frozen=True):
    """Closing values at month ends, oldest first; the first one is the base of the first return."""

    name: str
    label: str
    months: tuple[date, ...]
    closes: tuple[float, ...]
    source: str


class Quarter(Struct, frozen=True):
    """One quarter of the US economy; rates in per cent a year, GDP in billions of 2005 dollars."""

    end: date
    bill_yield: float
    inflation: float
    real_rate: float
    unemployment: float
    real_gdp: float


class Rates(Struct, frozen=True):
    """Interest rates over a period; each sequence holds what its source has of the period.

    `risk_free` is the return of a one-month Treasury bill, a fraction a month; `bonds` are the
    yields of AAA and BAA corporate bonds, per cent a year; each is keyed by its month.
    """

    quarters: tuple[Quarter, ...]
    risk_free: tuple[tuple[date, float], ...]
    bonds: tuple[tuple[date, float, float], ...]
    sources: tuple[str, ...]


class Macro(Struct, frozen=True):
    """The US economy over a period: quarters, and nonfarm payrolls (thousands) by month."""

    quarters: tuple[Quarter, ...]
    payrolls: tuple[tuple[date, float], ...]
    sources: tuple[str, ...]


class Drawdown(Struct, frozen=True):
    """The worst fall from a high: `depth` is a fraction up to 0, `recovered` None if never."""

    depth: float
    peak: date
    trough: date
    recovered: date | None


class MonthReturn(Struct, frozen=True):
    """The return of one month, a fraction."""

    month: date
    value: float


class Finding(Struct, frozen=True, kw_only=True):
    """What the StockAnalyst says about one series.

    All figures are fractions but `sharpe`, a ratio. A figure is None where the months do not
    suffice: a yearly rate of less than a year, a deviation of a single return.
    """

    name: str
    label: str
    base: date
    last: date
    months: int
    total_return: float
    annual_return: float | None
    volatility: float | None
    sharpe: float | None
    drawdown: Drawdown
    best: MonthReturn
    worst: MonthReturn
    source: str


class Relation(Struct, frozen=True, kw_only=True):
    """A stock beside the benchmark, over the months both have; `alpha` is a fraction a year."""

    name: str
    base: date
    last: date
    stock_return: float
    benchmark_return: float
    beta: float | None
    alpha: float | None
    correlation: float | None


class RatesFinding(Struct, frozen=True, kw_only=True):
    """What the RatesAnalyst says: rates and yields in per cent a year, `bill_return` a fraction."""

    first: date
    last: date
    bill_average: float
    bill_high: tuple[date, float]
    bill_low: tuple[date, float]
    inflation_average: float
    real_rate_average: float
    bill_return: float | None
    spread_widest: tuple[date, float] | None
    spread_average: float | None
    notes: tuple[str, ...]
    sources: tuple[str, ...]


class Economy(Struct, frozen=True, kw_only=True):
    """The state of the economy: rates in per cent, growth and payroll changes as fractions."""

    first: date
    last: date
    unemployment_first: float
    unemployment_last: float
    unemployment_low: tuple[date, float]
    unemployment_high: tuple[date, float]
    inflation_average: float
    gdp_growth: float | None
    payrolls: tuple[date, date, float] | None
    notes: tuple[str, ...]
    sources: tuple[str, ...]


class Headline(Struct, frozen=True):
    """A dated sentence derived from the data; `weight` orders headlines by importance, 0 to 1."""

    day: date
    subject: str
    kind: HeadlineKind
    text: str
    weight: float


class Chart(Struct, frozen=True):
    """A drawn picture: PNG bytes, size in pixels, and a text for those who cannot see it."""

    png: bytes
    width: int
    height: int
    alt: str


class Material(Struct, frozen=True, kw_only=True):
    """All that the report is made from. What the plan leaves out is None or empty."""

    findings: tuple[Finding, ...] = ()
    benchmark: Finding | None = None
    relations: tuple[Relation, ...] = ()
    rates: RatesFinding | None = None
    economy: Economy | None = None
    headlines: tuple[tuple[Headline, ...], ...] = ()
    chart: Chart | None = None


class Summary(Struct, frozen=True):
    """What a model has written of the figures; `note` says why there is nothing."""

    text: str
    by: str
    note: str


class Approval(Struct, frozen=True):
    """What somebody says to a plan."""

    ok: bool
    reason: str = ""


class Report(Struct, frozen=True):
    """The answer. `plan` goes with the next question as `previous`, so that it can be short."""

    markdown: str
    plan: Plan
    chart: Chart | None
    sources: tuple[str, ...]
