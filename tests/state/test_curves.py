"""What is expected of a call by the size of its arguments."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from callboard.infra.messages.runtimes import Curve, Line, Runtime
from callboard.state.curves import Expected
from callboard.state.runtimes import JUDGED, Runtimes

LAWS = [
    pytest.param(lambda size: 2e-4 + 2e-9 * size, id="hash"),
    pytest.param(lambda size: 1e-8 * size * np.log2(size), id="sort"),
    pytest.param(lambda size: 1e-12 * size**1.7, id="steep"),
    pytest.param(lambda size: 0.02 + 0 * size, id="any_size"),
]
"""Seconds by bytes."""
Law = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def drawn(law: Law, count: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
    """Calls with 1 KB to 1 MB of arguments; their times spread by a tenth, and one in ten takes five times as long."""
    random = np.random.default_rng(seed)
    sizes = np.exp2(random.uniform(10, 20, count))
    took = law(sizes) * random.lognormal(0, 0.1, count)
    took[::10] *= 5
    return sizes.astype(np.uint32), took


def learnt(law: Law, count: int) -> Runtimes:
    """A table that has seen so many calls, one after the other."""
    table = Runtimes()
    for size, took in zip(*drawn(law, count, 3), strict=True):
        table.learn(["a.b"], np.array([size], np.uint32), np.array([took]))
    return table


@pytest.mark.parametrize("law", LAWS)
def test_a_hundred_calls_tell_what_others_take(law: Law) -> None:
    """Of calls that it has not seen the median error is below 20 %, and it says so itself."""
    table = learnt(law, 100)
    sizes, took = drawn(law, 500, 4)
    expected = np.array([table.expect("a", "b", size) for size in sizes.tolist()])
    assert np.median(np.abs(expected - took) / took) < 0.2
    reported = table.error("a", "b")
    assert reported is not None
    assert reported < 0.25  # the first of them were expected after very few


def test_it_goes_by_size_within_an_octave() -> None:
    """Twice as much of what grows with its size takes twice as long."""
    table = learnt(lambda size: 1e-8 * size, 200)
    for size in (2_000, 30_000, 300_000):
        half = table.expect("a", "b", size // 2)
        assert table.expect("a", "b", size) == pytest.approx(2 * half, rel=0.25)


def test_sizes_that_were_not_seen() -> None:
    """What is smaller takes as the smallest; what is larger goes on as it grew; of none, nothing is known."""
    table = learnt(lambda size: 1e-8 * size, 200)
    least = table.expect("a", "b", 512)
    assert table.expect("a", "b", 1) == pytest.approx(table.expect("a", "b", 0))
    assert table.expect("a", "b", 100) == pytest.approx(least, rel=0.5)
    assert table.expect("a", "b", 4 << 20) == pytest.approx(1e-8 * (4 << 20), rel=0.3)
    assert table.expect("a", "unknown", 100) == 0
    assert table.error("a", "unknown") is None


def test_few_calls_and_odd_times() -> None:
    """One call is enough for an answer; no time at all, and times without end, do no harm."""
    table = Runtimes()
    table.learn(["a.b"], np.array([1000], np.uint32), np.array([0.25]))
    assert table.expect("a", "b", 1000) == pytest.approx(0.25, rel=0.01)
    table.learn(["a.c"] * 2, np.array([0, 2**32 - 1], np.uint32), np.array([0.0, 1e300]))
    assert 0 <= table.expect("a", "c", 5) < math.inf
    table.learn(["a.b"] * 50, np.full(50, 1000, np.uint32), np.full(50, 0.25))
    assert table.error("a", "b") == pytest.approx(0, abs=0.01)


def test_errors_are_of_the_latest_calls() -> None:
    """What it did not know once is forgotten when it is known."""
    table = Runtimes()
    for took in (1.0, 0.001):
        table.learn(["a.b"] * 20, np.full(20, 1000, np.uint32), np.full(20, took))
    wrong = table.error("a", "b")
    assert wrong is not None
    assert wrong > 100
    for _ in range(2 * JUDGED):
        table.learn(["a.b"], np.full(1, 1000, np.uint32), np.full(1, 0.001))
    assert table.error("a", "b") == pytest.approx(0, abs=0.01)


def test_it_survives_as_messages() -> None:
    """A table that goes on from what was stored expects the same, and knows how far off that was."""
    table = learnt(lambda size: 2e-4 + 2e-9 * size, 150)
    rows, curves = table.changed(), list(table.curves())
    assert list(table.curves()) == []
    again = Runtimes()
    again.load(rows, curves)
    for size in (1_500, 40_000, 900_000):
        known = table.expect("a", "b", size)
        assert again.expect("a", "b", size) == pytest.approx(known, rel=0.02)
        assert Expected(curves[0]).seconds(size) == pytest.approx(known)
    before, after = table.error("a", "b"), again.error("a", "b")
    assert before is not None
    assert after == pytest.approx(before, rel=0.01)
    assert table.expect("a", "b") == pytest.approx(curves[0].middle)
    assert len(curves[0].errors) == 4 * JUDGED


def test_what_anybody_writes() -> None:
    """Rows and curves that cannot be are passed over, and lines that cannot."""
    table = Runtimes()
    good = learnt(lambda size: 1e-8 * size, 20).changed()[0]
    odd = [
        Runtime("a.c", 10**9, digests=good.digests, sizes=good.sizes, took=good.took),
        Runtime("a.d", 7, digests=good.digests, sizes=good.sizes, took=good.took + b"1"),
        Runtime("a.e", 7, digests=good.digests, sizes=good.sizes[:4], took=good.took),
        Runtime("a.f", 7, digests=good.digests, sizes=good.sizes, took=b"\xff" * len(good.took)),
    ]
    table.load([*odd, good], [Curve("a.b", errors=b"123"), Curve("a.z", errors=b"1234")])
    assert len(table) == 1
    with pytest.raises(ValueError, match="no line"):
        Expected(Curve("a.b", lines=[Line(-1, 0, 0), Line(7, math.nan, 0), Line(8, 1e9, 0), Line(9, 0, 3)]))
    assert Expected(Curve("a.b", lines=[Line(99, 0, 0), Line(8, -2.0, 0.0)])).seconds(5) == 0.25
