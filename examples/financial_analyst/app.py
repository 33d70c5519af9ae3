"""A financial analyst: a question in plain English, answered from real data by a handful of agents.

This file is the whole distributed part. It says who does what; the computations are plain functions
in the package `finance`, which know nothing of Callboard. Run it with

    callboard dev app.py
    callboard run research --question "Compare AAPL and MSFT between 2004 and 2009" --watch
"""

from datetime import date

from finance import data
from finance.errors import PlanRefusedError
from finance.model import (
    Approval,
    Catalog,
    Chart,
    Economy,
    Finding,
    Headline,
    Macro,
    Material,
    Plan,
    Rates,
    RatesFinding,
    Relation,
    Report,
    Series,
    Summary,
)
from finance.planner import Planner, RulePlanner

from callboard import agent, human, method, tool, workflow

# --- tools: functions without a memory, where the data come from ---------------------------------


@tool(idempotent=True, timeout=10)
def catalog() -> Catalog:
    """What there is data for."""
    return data.catalog()


@tool(idempotent=True, timeout=10)
def prices(ticker: str, start: date, end: date) -> Series:
    """Monthly closes of a stock, and the one before `start` as the base."""
    return data.stock_series(ticker, start, end)


@tool(idempotent=True, timeout=10)
def benchmark(start: date, end: date) -> Series:
    """Monthly closes of the S&P 500, and the one before `start` as the base."""
    return data.benchmark_series(start, end)


@tool(idempotent=True, timeout=10)
def rates(start: date, end: date) -> Rates:
    """Treasury bills, corporate bonds, the risk-free return."""
    return data.rates(start, end)


@tool(idempotent=True, timeout=10)
def macro(start: date, end: date) -> Macro:
    """Unemployment, prices, growth, payrolls."""
    return data.macro(start, end)


@tool(idempotent=True, timeout=60, cpu=True)
def chart(stocks: list[Series], index: Series | None) -> Chart:
    """Draw the series; in a process of its own, because drawing keeps a core busy."""
    from finance.chart import draw

    return draw(stocks, index)


# --- agents --------------------------------------------------------------------------------------


@agent
class Analyst:
    """Plans the answer and writes it."""

    planner: Planner = RulePlanner()
    """Where no model is named; see `finance.planner.Planner`."""

    @method
    async def plan(self, question: str, known: Catalog, previous: Plan | None, model: str = "") -> Plan:
        """Turn the question, and the plan of the question before, into a plan; by a model if one is named."""
        if model:
            from finance.by_model import plan_by_model

            return await plan_by_model(model, question, known, previous)
        return await self.planner.plan(question, known, previous)

    @method
    async def summarise(self, plan: Plan, material: Material, model: str) -> Summary:
        """What a model makes of the figures."""
        from finance.by_model import summarise_by_model

        return await summarise_by_model(model, plan, material)

    @method
    def report(self, plan: Plan, material: Material, summary: Summary | None = None) -> Report:
        """Join what the others found into the answer."""
        from finance.report import write

        return write(plan, material, summary)


@agent(max_instances=4)
class StockAnalyst:
    """Return and risk of one series. Sync, so it runs in a thread: statistics take their time."""

    @method
    def study(self, series: Series, rates: Rates) -> Finding:
        """The figures of one series; `rates` give the risk-free return."""
        from finance.figures import study

        return study(series, rates)


@agent
class RatesAnalyst:
    """Treasury bills, inflation, credit."""

    @method
    def study(self, rates: Rates, start: date, end: date) -> RatesFinding | None:
        """Summarise the rates of a period; None where there are none."""
        from finance.money import study_rates

        return study_rates(rates, start, end)


@agent
class MarketResearcher:
    """What surrounds the stocks: the market and the economy."""

    @method
    def relate(self, series: Series, index: Series) -> Relation:
        """A stock beside the S&P 500."""
        from finance.figures import relate

        return relate(series, index)

    @method
    def economy(self, macro: Macro, end: date) -> Economy | None:
        """Summarise the economy of a period; None where there are no data."""
        from finance.economy import study_economy

        return study_economy(macro, end)


@agent
class NewsAgent:
    """Headlines derived from the data. There is no news feed; one would be a tool to ask."""

    @method
    def about(self, series: Series) -> tuple[Headline, ...]:
        """Large moves, falls and recoveries of one series."""
        from finance.news import series_headlines

        return series_headlines(series)

    @method
    def economy(self, macro: Macro) -> tuple[Headline, ...]:
        """Turns of unemployment."""
        from finance.news import economy_headlines

        return economy_headlines(macro)


# --- the workflow --------------------------------------------------------------------------------


@workflow
async def research(
    question: str, previous: Plan | None = None, *, approve: bool = False, model: str = ""
) -> Report:
    """Answer a question about stocks.

    Only the plan is waited for. All other calls get futures as arguments: each starts when what it
    needs is there, and independent ones run side by side.

    Args:
        question: In plain English.
        previous: The `plan` of the last report in the same session, for a follow-up such as "And
            what about IBM?". The client keeps it and passes it on.
        approve: Ask somebody whether the plan is right before any data are read: `callboard inbox`
            shows the question, `callboard answer` answers it. The run holds nothing meanwhile.
        model: The name of a model on the board that is to plan and to write; without one, fixed rules do.
    """
    plan = await Analyst.plan(question, catalog().arg, previous, model)
    start, end = plan.start, plan.end
    if approve:
        asked = f"{', '.join(plan.tickers) or 'no stocks'}, {start} to {end}: is this what to study?"
        decision = await human.ask(asked, schema=Approval, to="analyst")
        if not decision.ok:
            raise PlanRefusedError(decision.reason or "no reason was given")

    money = rates(start, end).arg
    world = macro(start, end).arg
    index: Series | None = benchmark(start, end).arg if plan.benchmark else None
    stocks = [prices(ticker, start, end).arg for ticker in plan.tickers]
    everything = stocks if index is None else [*stocks, index]

    news: list[tuple[Headline, ...]] = []
    if "headlines" in plan.sections:
        news = [
            *(NewsAgent.about(series).arg for series in everything),
            NewsAgent.economy(world).arg,
        ]
    material = Material(
        findings=tuple(StockAnalyst.study(series, money).arg for series in stocks),
        benchmark=StockAnalyst.study(index, money).arg if index is not None else None,
        relations=tuple(MarketResearcher.relate(series, index).arg for series in stocks if index is not None),
        rates=RatesAnalyst.study(money, start, end).arg if "rates" in plan.sections else None,
        economy=MarketResearcher.economy(world, end).arg if "economy" in plan.sections else None,
        headlines=tuple(news),
        chart=chart(stocks, index).arg if "chart" in plan.sections else None,
    )
    summary = Analyst.summarise(plan, material, model).arg if model else None
    return await Analyst.report(plan, material, summary)
