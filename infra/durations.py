"""Durations as people read them."""

from __future__ import annotations


def seconds(value: float) -> str:
    """A duration in words.

    Args:
        value: seconds.
    """
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1.0:
        return f"{value * 1e3:.1f} ms"
    return f"{value:.2f} s" if value < 60 else f"{int(value // 60)} min {value % 60:.0f} s"
