"""Rows as the columns of telemetry: numbers side by side, names once for a report."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable
from typing import TypeVar

K = TypeVar("K")

_LITTLE = sys.byteorder == "little"


class Places(dict[K, int]):
    """Things of one report that many rows have in common, each with its place."""

    def __missing__(self, thing: K) -> int:
        place = self[thing] = len(self)
        return place


class Names(Places[str]):
    """The names of one report."""

    def column(self, names: Iterable[str]) -> bytes:
        """A column of names."""
        return pack("I", map(self.__getitem__, names))


def pack(kind: str, numbers: Iterable[float]) -> bytes:
    """A column of numbers, little-endian.

    Args:
        kind: type code of :mod:`array`: ``B`` u1, ``h`` i2, ``H`` u2, ``I`` u4, ``Q`` u8, ``f`` f4.
    """
    column = array(kind, numbers)
    if not _LITTLE:
        column.byteswap()
    return column.tobytes()


def within(numbers: Iterable[int], least: int, most: int) -> Iterable[int]:
    """Numbers that anybody may have put into a header, as a column can hold them."""
    return (min(most, max(least, number)) for number in numbers)
