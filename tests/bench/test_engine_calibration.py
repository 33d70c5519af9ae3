"""The constants of an emulated engine, fitted to what a real one took."""

import pytest

from bench.engine_calibration import _fitted

ROWS = [[1.0, tokens, tokens**2 / 2] for tokens in (64.0, 256.0, 512.0, 1024.0, 1536.0)]


def test_costs_are_found_again() -> None:
    """Of times that follow them exactly."""
    costs = [0.03, 1.3e-3, 8e-7]
    took = [sum(cost * part for cost, part in zip(costs, row, strict=True)) for row in ROWS]
    assert _fitted(ROWS, took) == pytest.approx(costs)


def test_no_cost_is_below_nothing() -> None:
    """Where the best fit has such a cost, the others are fitted without it: the times are still met."""
    took = [0.1 + 8e-7 * row[2] - 2e-5 * row[1] for row in ROWS]
    costs = _fitted(ROWS, took)
    assert min(costs) == 0.0
    for row, seconds in zip(ROWS, took, strict=True):
        assert sum(cost * part for cost, part in zip(costs, row, strict=True)) == pytest.approx(
            seconds, rel=0.1
        )


def test_short_times_count_as_much_as_long_ones() -> None:
    """A long prompt that is off does not spoil the short ones."""
    took = [0.03 + 1e-3 * row[1] for row in ROWS]
    took[-1] *= 1.2
    costs = _fitted(ROWS, took)
    for row, seconds in list(zip(ROWS, took, strict=True))[:-1]:
        assert sum(cost * part for cost, part in zip(costs, row, strict=True)) == pytest.approx(
            seconds, rel=0.1
        )
