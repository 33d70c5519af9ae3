"""How long calls take: the entries of bucket ``cb_runtimes``."""

from __future__ import annotations

import msgspec


class Digest(msgspec.Struct):
    """A t-digest: values near each other as their mean and their number.

    Attributes:
        least, most: of all values.
        means, counts: columns of f8, little-endian.
    """

    least: float
    most: float
    means: bytes
    counts: bytes


class Runtime(msgspec.Struct, omit_defaults=True):
    """Run times of a method with arguments of a size: key ``<actor>.<method>.<size>``.

    Attributes:
        call: ``actor.method``; size: bits that the arguments' number of bytes has.
        count: of the calls that these figures are of, the latest ones.
        p50, p90, p99: seconds.
        digests: of those calls, the older ones first.
        sizes, took: columns of f4, little-endian: bytes of the arguments and seconds of a few of the latest
            calls.
    """

    call: str
    size: int
    count: int = 0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    digests: list[Digest] = []
    sizes: bytes = b""
    took: bytes = b""


class Line(msgspec.Struct, array_like=True):
    """What to expect of arguments of one size: ``2 ** (level + slope * log2(bytes))`` seconds.

    Attributes:
        size: bits that the arguments' number of bytes has.
        count: calls that were seen; p99: seconds that one in a hundred of them took longer than.
    """

    size: int
    level: float
    slope: float
    count: int = 0
    p99: float = 0.0


class Curve(msgspec.Struct, omit_defaults=True):
    """How long to expect the calls of a method to take: key ``<actor>.<method>.curve``.

    Attributes:
        call: ``actor.method``; middle: seconds, the median of calls of all sizes.
        lines: by size, the smallest first.
        errors: column of f4, little-endian: of the latest calls, by what share of the time that they took the
            time was off that was expected before they were known.
    """

    call: str
    middle: float = 0.0
    lines: list[Line] = []
    errors: bytes = b""
