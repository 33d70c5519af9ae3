"""How run times depend on the size of arguments, by local regression of their logarithms.

Source: Cleveland, "Robust Locally Weighted Regression and Smoothing Scatterplots" (JASA, 1979): a line
through what is near, where what is far off counts less and less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from callboard.state.curves import STEEPEST

_NEAR = 1.6
"""Octaves around a size whose calls count at first; twice as many until there are enough."""
_ENOUGH = 12
_WIDEST = 32.0
_ROUNDS = 3
_SHORTEST = 1e-6
_SPREAD = 0.05
"""Octaves: sizes that differ by less tell nothing of a slope."""

Sample: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Bytes of arguments, and seconds."""


def logarithms(samples: Mapping[int, Sample]) -> dict[int, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Samples by size, as logarithms to base 2."""
    return {
        bits: (np.log2(np.maximum(sizes, 1.0), dtype=np.float64), np.log2(np.maximum(took, _SHORTEST)))
        for bits, (sizes, took) in samples.items()
        if len(sizes)
    }


def fit(
    logs: Mapping[int, tuple[NDArray[np.float64], NDArray[np.float64]]], bits: int
) -> tuple[float, float]:
    """Level and slope of the line that tells what to expect of a size.

    Args:
        logs: see :func:`logarithms`; bits: one of its sizes.
    """
    middle = float(np.mean(logs[bits][0]))
    x = np.concatenate([one[0] for one in logs.values()])
    y = np.concatenate([one[1] for one in logs.values()])
    near, width = np.abs(x - middle), _NEAR
    while np.count_nonzero(near < width) < min(_ENOUGH, len(x)) and width < _WIDEST:
        width *= 2
    inside = near < width
    x, y = x[inside] - middle, y[inside]
    weights = (1 - (near[inside] / width) ** 3) ** 3
    level, slope = _line(x, y, weights)
    for _ in range(_ROUNDS):
        off = np.abs(y - level - slope * x)
        scale = 6 * float(np.median(off))
        if scale <= 0:
            break
        level, slope = _line(x, y, weights * np.maximum(1 - (off / scale) ** 2, 0) ** 2)
    return level - slope * middle, slope


def _line(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """A line by least squares."""
    whole = float(weights.sum())
    if whole <= 0:
        return float(np.median(y)), 0.0
    at, height = float(weights @ x) / whole, float(weights @ y) / whole
    spread = float(weights @ (x - at) ** 2) / whole
    if spread < _SPREAD**2:
        return height, 0.0
    slope = float(weights @ ((x - at) * (y - height))) / whole / spread
    slope = min(STEEPEST, max(-STEEPEST, slope))
    return height - slope * at, slope
