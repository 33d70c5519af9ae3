"""The workflow as a whole, run in this process without a server."""

import subprocess
import sys
from pathlib import Path

import app
import msgspec
import pytest
from finance.data import catalog
from finance.errors import AnalystError, NotUnderstoodError, OutsideDataError, UnknownTickerError
from finance.model import Catalog, Plan, Report
from finance.planner import Planner, RulePlanner, plan_by_rules
from finance.save import save

EXAMPLE = "Compare AAPL and MSFT between 2004 and 2009: return against the S&P 500"


async def test_a_question_and_its_follow_ups_form_a_session() -> None:
    """The client passes the plan of each answer with the next question."""
    first = await app.research(EXAMPLE)
    second = await app.research("And what about IBM?", first.plan)
    third = await app.research("Same for 2008 only, and add Amazon", second.plan)
    assert [report.plan.tickers for report in (first, second, third)] == [
        ("AAPL", "MSFT"),
        ("IBM",),
        ("IBM", "AMZN"),
    ]
    assert "## Figures, Jan 2004 to Dec 2009" in second.markdown
    assert "| IBM |" in second.markdown
    assert "AAPL (Apple)" not in second.markdown
    assert "## Figures, Jan 2008 to Dec 2008" in third.markdown


async def test_the_same_question_gives_the_same_report() -> None:
    """Whatever order the calls finish in; the picture too, bit by bit."""
    assert await app.research(EXAMPLE) == await app.research(EXAMPLE)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("How did TSLA do?", UnknownTickerError),
        ("AAPL in 2015", OutsideDataError),
        ("hello", NotUnderstoodError),
    ],
)
async def test_what_cannot_be_answered_is_a_typed_error(question: str, kind: type[AnalystError]) -> None:
    """As itself, from the agent that refused to the caller of the workflow."""
    with pytest.raises(kind):
        await app.research(question)


class _Fixed:
    """A planner in the place of the rules, as a model would be."""

    def __init__(self, plan: Plan) -> None:
        self.given = plan
        self.seen: list[tuple[str, Catalog, Plan | None]] = []

    async def plan(self, question: str, catalog: Catalog, previous: Plan | None) -> Plan:
        self.seen.append((question, catalog, previous))
        return self.given


def _plan(tickers: tuple[str, ...]) -> Plan:
    plan = plan_by_rules("return of IBM in 2008, no chart", catalog())
    return msgspec.structs.replace(plan, tickers=tickers, planner="a model", reasons=("I felt so.",))


async def test_another_planner_plugs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the question, the catalogue and the plan before; the report says who planned."""
    planner: Planner = _Fixed(_plan(("IBM", "GOOG")))
    monkeypatch.setattr(app.Analyst, "planner", planner)
    before = _plan(("AAPL",))
    report = await app.research("anything", before)
    assert isinstance(planner, _Fixed)
    assert planner.seen == [("anything", catalog(), before)]
    assert report.plan.tickers == ("IBM", "GOOG")
    assert "By a model. It read the question as:\n\n- I felt so." in report.markdown


async def test_a_planner_that_makes_up_a_ticker_fails_where_the_prices_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The tool's error reaches the caller through the calls that depend on it."""
    monkeypatch.setattr(app.Analyst, "planner", _Fixed(_plan(("IBM", "ENRON"))))
    with pytest.raises(Exception, match="ENRON") as caught:
        await app.research("anything")
    chain: list[BaseException] = [caught.value]
    while chain[-1].__cause__:
        chain.append(chain[-1].__cause__)
    assert any(isinstance(error, UnknownTickerError) for error in chain)


def test_the_rules_are_the_planner_until_a_model_comes() -> None:
    """And they fit the protocol."""
    planner: Planner = app.Analyst.planner
    assert isinstance(planner, RulePlanner)


@pytest.mark.parametrize("chart", [True, False])
def test_the_report_is_written_to_a_folder(tmp_path: Path, *, chart: bool) -> None:
    """The picture beside it, under the name the report refers to."""
    report: Report = app.research.run_local("IBM in 2008" + ("" if chart else ", no chart"))
    written = save(report, tmp_path / "new" / "folder")
    assert [path.name for path in written] == ["report.md", "chart.png"][: 1 + chart]
    assert written[0].read_text(encoding="utf-8") == report.markdown
    assert ("](chart.png)" in report.markdown) is chart
    if report.chart:
        assert written[1].read_bytes() == report.chart.png


def test_a_report_travels() -> None:
    """As msgpack, with its plan and the bytes of its picture."""
    report = app.research.run_local(EXAMPLE)
    packed = msgspec.msgpack.encode(report)
    assert msgspec.msgpack.decode(packed, type=Report) == report


def test_importing_the_app_loads_nothing_heavy() -> None:
    """A driver that only runs the workflow needs neither pandas nor matplotlib."""
    heavy = {"numpy", "pandas", "scipy", "matplotlib", "empyrical", "statsmodels", "arch"}
    code = f"import app, sys; print(sorted({heavy!r} & set(sys.modules)))"
    folder = Path(app.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
