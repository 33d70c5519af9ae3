"""The runtime table: quantiles that are where they are said to be, and that follow what changes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from callboard.infra.messages.runtimes import Digest, Runtime
from callboard.state.runtimes import ANY_SIZE, KEPT, Runtimes, size_of

Inverse = Callable[[float], float]
"""A distribution, by its quantiles."""
DRAWS = 100
NORMAL = statistics.NormalDist()


def learnt(values: NDArray[np.float64], size: int = 100, call: str = "Analyst.plan") -> Runtimes:
    """A table that has seen these run times."""
    table = Runtimes()
    for part in np.array_split(values, max(1, len(values) // 500)):
        table.learn([call] * len(part), np.full(len(part), size, np.uint32), part)
    return table


@pytest.mark.parametrize("rank", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("count", [20, 200, 2000])
@pytest.mark.parametrize(
    "inverse",
    [
        pytest.param(lambda share: math.exp(NORMAL.inv_cdf(share)), id="lognormal"),
        pytest.param(lambda share: -0.2 * math.log(1 - share), id="exponential"),
        pytest.param(lambda share: 0.1 * (1 - share) ** -0.7, id="pareto"),
        pytest.param(lambda share: 1 + 0.1 * share, id="uniform"),
        pytest.param(lambda share: 0.01 + share if share < 0.6 else 100 + share, id="two_kinds"),
    ],
)
def test_the_stated_error_holds(inverse: Inverse, count: int, rank: float) -> None:
    """The true quantile lies between the bounds in 99 of 100 tables, whatever the distribution."""
    random = np.random.default_rng(7)
    truth = inverse(rank)
    missed = 0
    for _ in range(DRAWS):
        values = np.array([inverse(share) for share in random.random(count)])
        found = learnt(values).predict("Analyst", "plan", 100, rank)
        assert found is not None
        assert found.seen == count
        missed += not found.low <= truth <= found.high
    assert missed <= 5  # more comes once in 2,000 such tests


def test_bounds_narrow_with_what_was_seen() -> None:
    """They say something: with 10,000 calls the median of an exponential is known to a twelfth."""
    random = np.random.default_rng(1)
    found = learnt(random.exponential(1.0, KEPT)).predict("Analyst", "plan", 100)
    assert found is not None
    assert found.high - found.low < 2 * math.log(2) / 12
    few = learnt(random.exponential(1.0, 3)).predict("Analyst", "plan", 100)
    assert few is not None
    assert (few.low, few.high) == (0.0, math.inf)


def test_sizes_are_kept_apart() -> None:
    """Arguments of as many bits are alike; of a size that nobody has seen, all that were seen tell."""
    table = Runtimes()
    table.learn(["a.b"] * 2, np.array([100, 10_000], np.uint32), np.array([0.25, 4.0], np.float64))
    small, large, whole = (table.predict("a", "b", size) for size in (127, 8_200, ANY_SIZE))
    assert small is not None
    assert large is not None
    assert whole is not None
    assert (small.seconds, large.seconds, whole.seen) == (0.25, 4.0, 2)
    unseen = table.predict("a", "b", 1_000_000)
    assert unseen == whole
    assert table.predict("a", "c", 100) is None
    assert size_of(127) == size_of(64) != size_of(128)


def test_what_is_old_is_forgotten() -> None:
    """When a method has become slower, so have its predictions, after some ten thousand calls."""
    table = learnt(np.full(3 * KEPT, 0.125))
    table.learn(["Analyst.plan"] * KEPT, np.full(KEPT, 100, np.uint32), np.full(KEPT, 2.0, np.float64))
    table.learn(["Analyst.plan"] * KEPT, np.full(KEPT, 100, np.uint32), np.full(KEPT, 2.0, np.float64))
    found = table.predict("Analyst", "plan", 100, 0.01)
    assert found is not None
    assert found.seconds == 2.0


def test_it_survives_as_messages() -> None:
    """What is stored is what was learnt, figures included; only what has changed is stored again."""
    table = learnt(np.random.default_rng(2).lognormal(0, 1, 25_000))
    rows = [msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=Runtime) for row in table.changed()]
    assert table.changed() == []
    again = Runtimes()
    again.load(rows)
    for rank in (0.5, 0.9, 0.99):
        here, there = (one.predict("Analyst", "plan", 100, rank) for one in (table, again))
        assert here is not None
        assert there is not None
        assert there == pytest.approx(here)
    assert [(row.call, row.size) for row in rows] == [("Analyst.plan", 7)]
    middle = table.predict("Analyst", "plan", 100)
    assert middle is not None
    assert rows[0].p50 == pytest.approx(middle.seconds)
    assert len(msgspec.msgpack.encode(rows[0])) < 10_000


def test_rows_that_cannot_be_read_are_passed_over() -> None:
    """Anybody may write there."""
    table = Runtimes()
    torn = Digest(0.0, 1.0, b"\x00" * 7, b"")
    uneven = Digest(0.0, 1.0, b"\x00" * 16, b"\x00" * 8)
    table.load([Runtime("a.b", 7, digests=[torn]), Runtime("a.b", 7, digests=[uneven]), Runtime("a.b", 7)])
    assert len(table) == 0
