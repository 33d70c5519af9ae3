"""A model plans and writes: what it says is used where it fits what is known, and else the rules stand in."""

import json
from typing import Any

import pytest
from app import research
from finance.model import Report

from callboard import ChatRequest, model_function
from callboard.infra.errors import EngineDown

QUESTION = "Compare AAPL and MSFT between 2004 and 2006: return"
PLAN: dict[str, Any] = {
    "stocks": ["AAPL", "MSFT"],
    "first_year": 2004,
    "last_year": 2006,
    "figures": ["return"],
    "benchmark": False,
}
WRITTEN = "AAPL did far better than MSFT between 2004 and 2006, by any measure."


def answered(plan: Any = PLAN, written: str = WRITTEN, question: str = QUESTION) -> Report:
    """The report, with a model that says this."""

    @model_function(name="thinker")
    def thinker(request: ChatRequest) -> str:
        if isinstance(plan, Exception):
            raise plan
        said = plan if isinstance(plan, str) else json.dumps(plan)
        return said if request.schema is not None else written

    assert thinker.name == "thinker"
    report = research.run_local(question, model="thinker")
    assert isinstance(report, Report)
    return report


def test_what_fits_is_used() -> None:
    """The report says who has planned and written."""
    report = answered()
    assert report.plan.planner == "the model thinker, held against fixed rules"
    assert f"**Jan 2004 to Dec 2006.** {WRITTEN}" in report.markdown
    assert "Written by the model thinker" in report.markdown
    assert "> **Note.**" not in report.markdown


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (PLAN | {"stocks": ["IBM"]}, "it is about IBM, the question about AAPL, MSFT"),
        (PLAN | {"first_year": 2005}, "it is for 2005 to 2006, the question for 2004 to 2006"),
        (PLAN | {"first_year": 2007}, "it ends in 2006, before it begins in 2007"),
        (PLAN | {"stocks": ["TSLA"]}, "does not fit the schema"),
        ("I would buy both.", "it is no JSON"),
        (EngineDown("the engine has gone", engine="x", status=0), "the engine has gone"),
    ],
)
def test_a_plan_that_does_not_fit(plan: Any, told: str) -> None:
    """The rules plan, and the report says why."""
    report = answered(plan)
    assert report.plan.planner.startswith("fixed rules")
    assert report.plan.tickers == ("AAPL", "MSFT")
    (note,) = (line for line in report.markdown.splitlines() if "model's plan was not used" in line)
    assert told in note


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("AAPL returned 77.7% and MSFT less, which is a good deal for anybody.", "it says 77.7"),
        (
            "AAPL and MSFT rose from Jan 2004 to May 2006 by quite a lot, it seems.",
            "from Jan 2004 to May 2006",
        ),
        ("Everything went up between 2004 and 2006, and nobody knows why.", "names none of the stocks"),
        ("AAPL rose.", "no whole sentence of some length"),
    ],
)
def test_a_summary_that_does_not_fit(written: str, told: str) -> None:
    """The rules write, and the report says why."""
    report = answered(written=written)
    assert "AAPL returned" in report.markdown.splitlines()[2]
    (note,) = (line for line in report.markdown.splitlines() if "model's summary was not used" in line)
    assert told in note


def test_where_the_rules_understand_nothing() -> None:
    """The model's plan stands alone, within what there are data for."""
    report = answered(
        PLAN | {"first_year": 2000}, question="Was the fruit company a better buy than the software maker?"
    )
    plan = report.plan
    assert (plan.tickers, str(plan.start), str(plan.end)) == (("AAPL", "MSFT"), "2000-02-01", "2006-12-31")
