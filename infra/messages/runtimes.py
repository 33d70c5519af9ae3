"""How long calls take: one row of the table in bucket ``cb_runtimes``."""

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
    """

    call: str
    size: int
    count: int = 0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    digests: list[Digest] = []
