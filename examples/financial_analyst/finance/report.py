"""The answer as Markdown: tables, headlines, sources, and how the question was planned."""

from collections.abc import Iterable, Sequence

from finance.model import Economy, Finding, Headline, Material, Plan, RatesFinding, Relation, Report, Summary
from finance.months import month_label, quarter_label, span_label
from finance.news import most_important
from finance.summary import summarise
from finance.tables import figures_table, relations_table

CHART_FILE = "chart.png"
HEADLINES = 12  # at most


def write(plan: Plan, material: Material, summary: Summary | None = None) -> Report:
    """Write the report from what the plan asked for and the agents found.

    Args:
        summary: A model's; without one, or with an empty one, the first lines are written by rules.
    """
    parts = [
        [f"# {' '.join(plan.question.split())}"],
        _summary(plan, material, summary),
        _warnings(plan, summary),
        _figures(plan, material),
        _chart(material),
        _relations(material.relations),
        _headlines(plan, [headline for some in material.headlines for headline in some]),
        _rates(plan, material.rates),
        _economy(plan, material.economy),
        _planning(plan),
        _sources(plan, material),
    ]
    markdown = "\n\n".join("\n".join(part) for part in parts if part) + "\n"
    return Report(markdown, plan, material.chart, tuple(_all_sources(material)))


def _summary(plan: Plan, material: Material, summary: Summary | None) -> list[str]:
    if summary is None or not summary.text:
        return summarise(plan, material)
    by = f"*Written by the model {summary.by}, which may be wrong; the figures below are computed.*"
    return [f"**{span_label(plan.start, plan.end)}.** {summary.text}", "", by]


def _warnings(plan: Plan, summary: Summary | None) -> list[str]:
    more = (summary.note,) if summary is not None and summary.note else ()
    return [f"> **Note.** {note}" for note in (*plan.notes, *more)]


def _figures(plan: Plan, material: Material) -> list[str]:
    findings = [*material.findings, *([material.benchmark] if material.benchmark else [])]
    return [f"## Figures, {span_label(plan.start, plan.end)}", "", *figures_table(plan, findings)]


def _chart(material: Material) -> list[str]:
    return [f"![{material.chart.alt}]({CHART_FILE})"] if material.chart else []


def _relations(relations: Sequence[Relation]) -> list[str]:
    return ["## Against the S&P 500", "", *relations_table(relations)] if relations else []


def _headlines(plan: Plan, headlines: Sequence[Headline]) -> list[str]:
    if "headlines" not in plan.sections:
        return []
    chosen = most_important(headlines, HEADLINES)
    lines = [f"- **{month_label(headline.day)}**: {headline.text}." for headline in chosen]
    note = "Derived from the data above: there is no news feed behind them."
    return ["## Headlines", "", note, "", *(lines or ["Nothing that the rules count as news."])]


def _rates(plan: Plan, rates: RatesFinding | None) -> list[str]:
    if "rates" not in plan.sections:
        return []
    if rates is None:
        return ["## Rates and bonds", "", "No data in this period: they end with Q3 2009."]
    quarters = f"{quarter_label(rates.first)} to {quarter_label(rates.last)}"
    lines = [
        (
            f"- Three-month Treasury bill ({quarters}): {rates.bill_average:.2f}% a year on "
            f"average, at most {rates.bill_high[1]:.2f}% ({quarter_label(rates.bill_high[0])}), "
            f"at least {rates.bill_low[1]:.2f}% ({quarter_label(rates.bill_low[0])})."
        ),
        (
            f"- After inflation of {rates.inflation_average:.2f}% a year, it paid "
            f"{rates.real_rate_average:.2f}% a year."
        ),
    ]
    if rates.bill_return is not None:
        period = span_label(plan.start, plan.end)
        lines.append(f"- Cash rolled over in one-month bills ({period}): {rates.bill_return:+.1%}.")
    if rates.spread_average is not None and rates.spread_widest is not None:
        month, widest = rates.spread_widest
        lines.append(
            f"- Credit risk (BAA less AAA corporate yield): {rates.spread_average:.2f} points on "
            f"average, widest in {month_label(month)} at {widest:.2f} points."
        )
    return ["## Rates and bonds", "", *lines, *(f"- {note}" for note in rates.notes)]


def _economy(plan: Plan, economy: Economy | None) -> list[str]:
    if "economy" not in plan.sections:
        return []
    if economy is None:
        return ["## The economy", "", "No data in this period: they end with Q3 2009."]
    low, high = economy.unemployment_low, economy.unemployment_high
    first, last = quarter_label(economy.first), quarter_label(economy.last)
    lines = [
        (
            f"- Unemployment: {economy.unemployment_first:.1f}% in {first}, "
            f"{economy.unemployment_last:.1f}% in {last}; lowest {low[1]:.1f}% "
            f"({quarter_label(low[0])}), highest {high[1]:.1f}% ({quarter_label(high[0])})."
        ),
        f"- Consumer prices rose {economy.inflation_average:.2f}% a year on average.",
    ]
    if economy.gdp_growth is not None:
        lines.append(f"- Real GDP: {economy.gdp_growth:+.1%} from {first} to {last}.")
    if economy.payrolls:
        begin, end, change = economy.payrolls
        lines.append(f"- Nonfarm payrolls: {change:+.1%} from {month_label(begin)} to {month_label(end)}.")
    return ["## The economy", "", *lines, *(f"- {note}" for note in economy.notes)]


def _planning(plan: Plan) -> list[str]:
    intro = f"By {plan.planner}. It read the question as:"
    return ["## How this was planned", "", intro, "", *(f"- {reason}" for reason in plan.reasons)]


def _sources(plan: Plan, material: Material) -> list[str]:
    lines = [f"- {source}." for source in _all_sources(material)]
    if plan.benchmark:
        lines.append(
            "- The stock prices include dividends, the S&P 500 does not: the stocks look better "
            "against it by the index's dividends, about two points a year."
        )
    lines.append("- Past figures from teaching data sets; no advice.")
    return ["## Sources and limits", "", *lines]


def _all_sources(material: Material) -> Iterable[str]:
    """Every source once, in the order of the report."""
    benchmark: list[Finding] = [material.benchmark] if material.benchmark else []
    found = [finding.source for finding in (*material.findings, *benchmark)]
    for part in (material.rates, material.economy):
        found += part.sources if part else ()
    return dict.fromkeys(found)
