"""The workflow over NATS, on a real server: the answers are those of the same code in one process."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any

import app
import finance.chart
import matplotlib.image
import msgspec
import psutil
import pytest
from demo_hosts import ROLES
from finance.errors import AnalystError, OutsideDataError, UnknownTickerError
from finance.model import Plan, Report
from tests.examples.financial_analyst.own import EXAMPLE
from tests.support.waiting import until

from callboard import Client, connect
from callboard.actors.declared import Declaration, declaration
from callboard.actors.host import Host
from callboard.infra import headers as H
from callboard.infra.errors import DependencyFailed, RunFailed

ENDS_WITHIN = 60.0  # s; drawing needs a new process, which loads matplotlib first


def declared(names: str) -> list[Declaration]:
    """What the application declares under these names."""
    found = [declaration(getattr(app, name)) for name in names.split(",")]
    return [one for one in found if one is not None]


def children() -> set[psutil.Process]:
    """Processes that multiprocessing has started for this one, at work or waiting."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if any("spawn_main" in word for word in child.cmdline()):
                found.add(child)
    return found


@contextlib.asynccontextmanager
async def serving(url: str) -> AsyncIterator[Client]:
    """A client, and two hosts: one for agents and tools, one that drives."""
    hosts = [Host(declared(names), url) for names in ROLES.values()]
    try:
        for host in hosts:
            await host.start()
        async with connect(url) as client:
            yield client
    finally:
        await asyncio.gather(*(host.stop(grace=1.0) for host in hosts))


@pytest.fixture
async def client(nats_url: str) -> AsyncIterator[Client]:
    """A client of a server of the test's own, with hosts."""
    async with serving(nats_url) as client:
        yield client


async def ask(client: Client, question: str, previous: Plan | None = None) -> Report:
    """Submit a question and wait for the answer."""
    run = await client.submit("research", {"question": question, "previous": previous}, session="test")
    report: Report = await client.result(run, ENDS_WITHIN, Report)
    return report


async def test_a_session_over_nats_gives_what_one_process_gives(client: Client) -> None:
    """The reports, their plans and the pictures, to the last bit."""
    previous = None
    for question in (EXAMPLE, "And what about IBM?", "Same for 2008 only, and add Amazon"):
        remote = await ask(client, question, previous)
        assert remote == await app.research(question, previous)
        previous = remote.plan


async def test_two_questions_at_once_do_not_mix(client: Client) -> None:
    """Each gets its own answer from the same hosts."""
    questions = [f"{name} in {year}, no chart" for name in ("IBM", "Apple") for year in (2003, 2005, 2008)]
    reports = await asyncio.gather(*(ask(client, question) for question in questions))
    for question, report in zip(questions, reports, strict=True):
        assert report == await app.research(question)


@pytest.mark.parametrize(
    ("question", "kind"), [("How did TSLA do?", UnknownTickerError), ("AAPL in 2015", OutsideDataError)]
)
async def test_a_refusal_arrives_as_itself(client: Client, question: str, kind: type[AnalystError]) -> None:
    """As the cause of the run's failure."""
    with pytest.raises(RunFailed) as failed:
        await ask(client, question)
    assert type(failed.value.__cause__) is kind


async def test_the_chart_is_drawn_in_a_process_of_its_own(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process cannot draw; the picture comes nevertheless, from a child that the host ends."""
    before = children()
    expected = await app.research(EXAMPLE)

    def draw(*_: Any) -> None:
        raise AssertionError("drawn in the host")

    monkeypatch.setattr(finance.chart, "draw", draw)
    with pytest.raises(DependencyFailed, match="drawn in the host"):
        await app.research(EXAMPLE)
    report = await ask(client, EXAMPLE)
    assert report.chart is not None
    assert report.chart == expected.chart
    picture = matplotlib.image.imread(io.BytesIO(report.chart.png))
    assert picture.shape[:2] == (report.chart.height, report.chart.width)
    assert children() - before


async def test_the_processes_for_drawing_end_with_their_host(nats_url: str) -> None:
    """Nothing is left of a host that has stopped."""
    before = children()
    async with serving(nats_url) as client:
        await ask(client, "IBM in 2008")
        assert children() - before
    await until(lambda: not children() - before)


async def test_the_futures_wait_for_each_other_as_written(client: Client) -> None:
    """What the journal tells of the calls is the graph of the workflow's text."""
    run = await client.submit("research", {"question": EXAMPLE})
    await client.result(run, ENDS_WITHIN)
    names: dict[str, str] = {}
    needs: dict[str, list[str]] = {}
    async for event in client.events(run, follow=False):
        if event.kind == "result":
            names[event.data["future"]] = event.data["call"]
        for future in event.data.get("futures", ()):
            needs[future["future"]] = future["deps"]
    graph = sorted((names[one], sorted(names[dep] for dep in deps)) for one, deps in needs.items())
    series = ["benchmark.call", "prices.call", "prices.call"]
    findings = [
        *(("NewsAgent.about", [one]) for one in series),
        ("NewsAgent.economy", ["macro.call"]),
        *(("StockAnalyst.study", [one, "rates.call"]) for one in series),
        *[("MarketResearcher.relate", ["benchmark.call", "prices.call"])] * 2,
        ("RatesAnalyst.study", ["rates.call"]),
        ("MarketResearcher.economy", ["macro.call"]),
        ("chart.call", series),
    ]
    report = ("Analyst.report", sorted(name for name, _ in findings))
    assert graph == sorted([("Analyst.plan", ["catalog.call"]), *findings, report])


@pytest.mark.parametrize("more", [", no chart", ""])
async def test_a_question_in_plain_json_is_answered(client: Client, more: str) -> None:
    """As any NATS client publishes it, with a message id in order to find the run."""
    question = f"Compare Apple and IBM since 2005{more}"
    body = msgspec.json.encode({"question": question})
    client.node.connection.publish("cb.request.research", body, H.encode([(H.MESSAGE_ID, "mine")]))
    answer = await client.result("mine", ENDS_WITHIN)
    assert answer["markdown"] == (await app.research(question)).markdown
