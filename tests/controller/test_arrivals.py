"""Plans of arrivals: as often, as uneven and as repeatable as was asked for."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from pathlib import Path

import pytest

from callboard.controller.arrivals import Arrival, Skew, poisson, read_trace, write_trace
from callboard.infra.errors import LoadInvalid


def test_arrivals_are_poisson() -> None:
    """As many as the rate says, and the times between them are as spread as they are long."""
    plan = poisson(200.0, 100.0, seed=1)
    assert len(plan) == pytest.approx(20_000, rel=0.03)
    gaps = [later.at - sooner.at for sooner, later in itertools.pairwise(plan)]
    assert statistics.mean(gaps) == pytest.approx(1 / 200, rel=0.03)
    assert statistics.stdev(gaps) == pytest.approx(1 / 200, rel=0.03)
    assert all(0 < arrival.at < 100 for arrival in plan)


def test_a_seed_repeats_the_plan() -> None:
    """Sessions and values, too; another seed gives another plan."""
    options = {"sessions": 10, "vary": {"ticker": ["A", "B"]}, "skew": Skew("zipf:1", 1.0)}
    first = poisson(50.0, 10.0, seed=3, **options)  # type: ignore[arg-type]
    assert poisson(50.0, 10.0, seed=3, **options) == first  # type: ignore[arg-type]
    assert poisson(50.0, 10.0, seed=4, **options) != first  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("even", [0.25, 0.25, 0.25, 0.25]),
        ("zipf:1", [0.48, 0.24, 0.16, 0.12]),
        ("hot:0.7", [0.7, 0.1, 0.1, 0.1]),
    ],
)
def test_skew(text: str, shares: list[float]) -> None:
    """Each session has its share."""
    assert Skew(text).shares(4) == pytest.approx(shares)
    counts = Counter(arrival.session for arrival in poisson(1000.0, 20.0, 5, sessions=4, skew=Skew(text)))
    for place, share in enumerate(shares):
        assert counts[f"s{place}"] / counts.total() == pytest.approx(share, abs=0.02)


def test_skew_shifts() -> None:
    """After each shift the next value is the frequent one, and at last the first one again."""
    plan = poisson(500.0, 15.0, 5, vary={"to": ["a", "b"]}, skew=Skew("hot:0.9", shift=5.0))
    for begins, hot in ((0, "a"), (5, "b"), (10, "a")):
        values = [one.arguments["to"] for one in plan if begins <= one.at < begins + 5]
        assert values.count(hot) / len(values) == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    "text", ["", "odd", "zipf:x", "zipf:-1", "zipf", "hot", "hot:1.5", "hot:nan", "even:1"]
)
def test_a_skew_that_is_none(text: str) -> None:
    """It is refused with what there is."""
    with pytest.raises(LoadInvalid, match="zipf"):
        Skew(text)


@pytest.mark.parametrize(
    ("rate", "seconds"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (float("inf"), 1.0), (1e6, 9.0)]
)
def test_a_load_that_is_none(rate: float, seconds: float) -> None:
    """Nothing, too much, or for ever."""
    with pytest.raises(LoadInvalid):
        poisson(rate, seconds, 1)


def test_fewer_sessions_than_none() -> None:
    """There are none such."""
    with pytest.raises(LoadInvalid, match="--sessions"):
        poisson(1.0, 5.0, 1, sessions=-3)


def test_a_trace_is_the_plan(tmp_path: Path) -> None:
    """What is written is read again, in order of time, and cut where asked."""
    plan = [Arrival(0.5, "s1", {"a": 1}), Arrival(0.1), Arrival(2.0)]
    write_trace(tmp_path / "trace", plan)
    assert read_trace(tmp_path / "trace") == [plan[1], plan[0], plan[2]]
    assert read_trace(tmp_path / "trace", 1.0) == [plan[1], plan[0]]


@pytest.mark.parametrize("text", ["rubbish", '{"at": -1}', '{"session": "a"}', '{"at": 1, "with": 2}', None])
def test_what_is_no_trace(text: str | None, tmp_path: Path) -> None:
    """It is refused with what a line looks like."""
    if text is not None:
        (tmp_path / "trace").write_text(text, "utf-8")
    with pytest.raises(LoadInvalid, match="no trace"):
        read_trace(tmp_path / "trace")
