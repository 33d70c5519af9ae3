"""Planning and writing by a language model.

What it answers is held against what is known: the question's own words, the data, the figures. Where it fails
the rules stand in, and the report says so.
"""

import json
import re
from datetime import date
from typing import Any

import msgspec

from callboard import model
from callboard.infra.errors import (
    AnswerUnusable,
    ContextOverflow,
    EngineDown,
    EngineRefused,
    OutputInvalid,
    RateLimited,
)
from finance.errors import NotUnderstoodError
from finance.model import Catalog, Coverage, Material, Metric, Plan, Summary
from finance.months import shift
from finance.planner import ALL_METRICS, ALL_SECTIONS, plan_by_rules
from finance.reading import read
from finance.summary import summarise

_FAILED = (AnswerUnusable, ContextOverflow, EngineDown, EngineRefused, OutputInvalid, RateLimited)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")
_SENTENCE = re.compile(r"(.*[.!?])(?:\s|$)", re.DOTALL)
_BETWEEN = re.compile(r"from (\w+ \d{4}) to (\w+ \d{4})")
_SHORTEST = 40  # characters of a summary

_PLANNER = (
    "You plan studies of stocks. Read the question and answer with JSON: the tickers of the stocks that it "
    "names, the first and the last year, the figures that it asks for, and whether it names the S&P 500. "
    "Stocks: {stocks}. Years: {first} to {last}. Figures: {figures}."
)
_WRITER = (
    "You write for investors, in plain words. Say in two or three sentences what the facts mean. Use only "
    "numbers that are in the facts."
)


class Choice(msgspec.Struct, frozen=True):
    """What the model says to a question."""

    stocks: tuple[str, ...]
    first_year: int
    last_year: int
    figures: tuple[Metric, ...]
    benchmark: bool


_EXAMPLES = (
    ("What was the beta of Microsoft since 2004?", Choice(("MSFT",), 2004, 2010, ("beta",), benchmark=True)),
    (
        "Compare Amazon and Apple between 2002 and 2006: return",
        Choice(("AMZN", "AAPL"), 2002, 2006, ("return",), benchmark=False),
    ),
    ("AAPL in 2003: volatility", Choice(("AAPL",), 2003, 2003, ("volatility",), benchmark=False)),
    ("How did Google do from 2005 to 2007?", Choice(("GOOG",), 2005, 2007, ("return",), benchmark=False)),
    (
        "Compare MSFT and IBM between 2001 and 2005: return, drawdown, against the S&P 500",
        Choice(("MSFT", "IBM"), 2001, 2005, ("return", "drawdown"), benchmark=True),
    ),
)
"""Shown to the model before the question: small ones copy what they have seen."""


async def plan_by_model(name: str, question: str, catalog: Catalog, previous: Plan | None) -> Plan:
    """Turn a question into a plan; by the rules, with a note, where the model's does not fit.

    Args:
        name: The model's, on the board.

    Raises:
        AnalystError: The question cannot be planned by the rules either.
    """
    try:
        choice = await _ask(name, question, catalog, previous)
    except _FAILED as error:
        return _ruled(question, catalog, previous, f"{error}")
    try:
        ruled = plan_by_rules(question, catalog, previous)
    except NotUnderstoodError:
        ruled = None  # there is nothing to hold it against but the data
    problem = _wrong(choice, question, catalog, ruled)
    if problem:
        return _ruled(question, catalog, previous, problem)
    return _plan(name, question, catalog, choice, ruled)


async def _ask(name: str, question: str, catalog: Catalog, previous: Plan | None) -> Choice:
    first, last = _years(catalog)
    stocks = ", ".join(f"{ticker} ({cover.label})" for ticker, cover in catalog.stocks.items())
    system = _PLANNER.format(stocks=stocks, first=first, last=last, figures=", ".join(ALL_METRICS))
    messages: list[dict[str, Any]] = [{"role": "system", "content": system}]
    shown = list(_EXAMPLES)
    if previous is not None:
        before = Choice(
            previous.tickers, previous.start.year, previous.end.year, previous.metrics, previous.benchmark
        )
        shown.append((previous.question, before))
    for asked, answered in shown:
        content = json.dumps(msgspec.to_builtins(answered))
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": content}]
    messages.append({"role": "user", "content": question})
    answer = await model(name).chat(
        messages, schema=_schema(catalog), max_tokens=160, temperature=0.0, repairs=1
    )
    return msgspec.convert(answer.parsed, Choice)


def _schema(catalog: Catalog) -> dict[str, Any]:
    """What an answer may be: only stocks, years and figures that there are."""
    first, last = _years(catalog)
    year = {"type": "integer", "enum": list(range(first, last + 1))}
    stocks = {"type": "array", "items": {"enum": list(catalog.stocks)}, "minItems": 1, "maxItems": 5}
    fields = {
        "stocks": stocks,
        "first_year": year,
        "last_year": year,
        "figures": {"type": "array", "items": {"enum": list(ALL_METRICS)}, "maxItems": len(ALL_METRICS)},
        "benchmark": {"type": "boolean"},
    }
    return {
        "title": "plan",
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _years(catalog: Catalog) -> tuple[int, int]:
    covers = catalog.stocks.values()
    return min(cover.first for cover in covers).year, max(cover.last for cover in covers).year


def _wrong(choice: Choice, question: str, catalog: Catalog, ruled: Plan | None) -> str:
    """Why a choice is not used; empty if nothing is wrong with it."""
    if choice.first_year > choice.last_year:
        return f"it ends in {choice.last_year}, before it begins in {choice.first_year}"
    if ruled is None:
        return ""
    if set(choice.stocks) != set(ruled.tickers):
        return (
            f"it is about {_listed(choice.stocks)}, the question about {_listed(ruled.tickers) or 'no stock'}"
        )
    if read(question, catalog).period and (choice.first_year, choice.last_year) != _span(ruled):
        first, last = _span(ruled)
        return f"it is for {choice.first_year} to {choice.last_year}, the question for {first} to {last}"
    return ""


def _span(plan: Plan) -> tuple[int, int]:
    return plan.start.year, plan.end.year


def _plan(name: str, question: str, catalog: Catalog, choice: Choice, ruled: Plan | None) -> Plan:
    tickers = tuple(dict.fromkeys(choice.stocks))
    covers = [catalog.stocks[ticker] for ticker in tickers]
    start = max(date(choice.first_year, 1, 1), min(map(_begins, covers)))
    end = min(date(choice.last_year, 12, 31), max(cover.last for cover in covers))
    if ruled is not None:  # it has read the months, too, and what the data cover of them
        start, end = ruled.start, ruled.end
    metrics = ruled.metrics if ruled is not None and read(question, catalog).metrics else choice.figures
    benchmark = choice.benchmark or (ruled is not None and ruled.benchmark)
    kept = tuple(one for one in metrics or ALL_METRICS if benchmark or one not in {"beta", "correlation"})
    said = f"{_listed(choice.stocks)}; {choice.first_year} to {choice.last_year}; {_listed(choice.figures)}"
    return Plan(
        question=question,
        tickers=tickers,
        start=start,
        end=end,
        metrics=kept,
        benchmark=benchmark,
        sections=ruled.sections if ruled is not None else ALL_SECTIONS,
        planner=f"the model {name}, held against fixed rules",
        reasons=(f"The model said: {said}; S&P 500: {'yes' if choice.benchmark else 'no'}.",),
        notes=ruled.notes if ruled is not None else (),
    )


def _begins(cover: Coverage) -> date:
    """First day of the first month with a close before it."""
    return shift(cover.first, 1).replace(day=1)


def _ruled(question: str, catalog: Catalog, previous: Plan | None, problem: str) -> Plan:
    plan = plan_by_rules(question, catalog, previous)
    note = f"The model's plan was not used: {problem}. Fixed rules have planned instead."
    return msgspec.structs.replace(plan, notes=(note, *plan.notes))


async def summarise_by_model(name: str, plan: Plan, material: Material) -> Summary:
    """The first lines of the report; empty, with a note, where what the model writes cannot be used.

    Args:
        name: The model's, on the board.
    """
    facts = _THOUSANDS.sub("", " ".join(summarise(plan, material)).replace("**", "").replace("+", ""))
    messages = [
        {"role": "system", "content": _WRITER},
        {"role": "user", "content": f"Question: {plan.question}\nFacts: {facts}"},
    ]
    try:
        answer = await model(name).chat(messages, max_tokens=110, temperature=0.0)
    except _FAILED as error:
        return Summary("", name, _unused(f"{error}"))
    text = " ".join(answer.text.split())
    if answer.finish_reason == "length":  # its last sentence has no end
        whole = _SENTENCE.match(text)
        text = whole[1] if whole else ""
    problem = _unfounded(text, f"{plan.question} {facts}", plan)
    return Summary("", name, _unused(problem)) if problem else Summary(text, name, "")


def _unfounded(text: str, facts: str, plan: Plan) -> str:
    """Why a summary is not used; empty if nothing is wrong with it."""
    if len(text) < _SHORTEST:
        return "it has no whole sentence of some length"
    known = _NUMBER.findall(facts)
    invented = [number for number in _NUMBER.findall(_THOUSANDS.sub("", text)) if number not in known]
    if invented:
        return f"it says {invented[0]}, which is none of the figures"
    moved = [span for span in _BETWEEN.findall(text) if span not in _BETWEEN.findall(facts)]
    if moved:
        return f"it says from {moved[0][0]} to {moved[0][1]}, which is none of the spans"
    if plan.tickers and not any(ticker in text for ticker in plan.tickers):
        return "it names none of the stocks by its ticker"
    return ""


def _unused(problem: str) -> str:
    return f"The model's summary was not used: {problem}. Fixed rules have written instead."


def _listed(items: tuple[str, ...]) -> str:
    return ", ".join(items)
