"""What to expect of a call by the size of its arguments; what hosts and drivers know of the runtime table."""

from __future__ import annotations

import math
from bisect import bisect_right

import msgspec

from callboard.infra import subjects
from callboard.infra.direct import DirectReader
from callboard.infra.messages.runtimes import Curve, Line
from callboard.state.journal import read_entry

STEEPEST = 2.0
"""Slopes are taken between minus this and this: what takes more than the square of its size is rare."""
_BITS = 33
_LEVEL = 64.0
_decode = msgspec.msgpack.Decoder(Curve).decode


class Expected:
    """A curve, ready to be asked: one line for each number of bits.

    Below the sizes that were seen it takes as long as the smallest of them; above them the last line goes on,
    if it does not fall.

    Args:
        curve: as it was stored.

    Attributes:
        lines: those of it that can be used, the smallest size first; middle: seconds, of calls of all sizes.

    Raises:
        ValueError: it has no line that can be used.
    """

    __slots__ = ("_by_bits", "curve", "lines", "middle")

    def __init__(self, curve: Curve) -> None:
        lines = sorted((line for line in curve.lines if _usable(line)), key=lambda line: line.size)
        if not lines:
            raise ValueError("a curve has no line")
        self.curve = curve
        self.middle = curve.middle if math.isfinite(curve.middle) and curve.middle > 0 else 0.0
        sizes = [line.size for line in lines]
        self.lines = lines
        self._by_bits = [_line_of(lines, sizes, bits) for bits in range(_BITS)]

    def seconds(self, size: int) -> float:
        """How long a call takes whose arguments have so many bytes."""
        level, slope = self._by_bits[min(size.bit_length(), _BITS - 1)]
        return float(2.0 ** (level + slope * math.log2(size))) if size > 1 else float(2.0**level)

    def line(self, size: int) -> Line | None:
        """What was seen of arguments of as many bits; None: nothing."""
        bits = size.bit_length()
        return next((line for line in self.lines if line.size == bits), None)


def _usable(line: Line) -> bool:
    return 0 <= line.size < _BITS and abs(line.level) <= _LEVEL and abs(line.slope) <= STEEPEST


def _line_of(lines: list[Line], sizes: list[int], bits: int) -> tuple[float, float]:
    place = bisect_right(sizes, bits) - 1
    if place < 0:  # smaller than all: as the smallest of what was seen
        first = lines[0]
        return first.level + first.slope * max(0, first.size - 1), 0.0
    line = lines[place]
    if line.size == bits or line.slope >= 0:
        return line.level, line.slope
    return line.level + line.slope * line.size, 0.0


def read_curve(subject: str, body: bytes) -> Curve | None:
    """A stored curve; None for what is none, whoever has put it there."""
    curve = read_entry(_decode, body)
    if curve is None:
        return None
    actor, _, method = curve.call.rpartition(".")
    return curve if subject == subjects.runtime_curve(actor, method) else None


async def read_curves(reader: DirectReader) -> list[Curve]:
    """The curves that are stored, by their calls.

    Raises:
        CallboardError: the server does not answer.
    """
    pattern = subjects.runtime_curve("*", "*")
    stored = await reader.read(f"KV_{subjects.RUNTIMES_BUCKET}", pattern)
    found = [read_curve(entry.subject, entry.body) for entry in stored]
    return sorted((curve for curve in found if curve is not None), key=lambda curve: curve.call)
