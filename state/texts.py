"""Where the long texts of a msgpack value lie, without decoding it."""

from __future__ import annotations

from typing import NamedTuple

LEAST = 128
"""Bytes from which a text or byte string is long."""
_LOOKED_AT = 1024
SPARSE = 64
"""Bytes for each token; where they are fewer, long texts are not what a value is made of."""


class _Kind(NamedTuple):
    """What follows the first byte of a token.

    Attributes:
        width: bytes of its length; more: bytes between that and the content.
        text: whether it is a text or a byte string.
    """

    width: int
    more: int
    text: bool


def _sizes() -> list[int]:
    sizes = [1] * 256
    for kind in range(0xA0, 0xC0):  # short texts
        sizes[kind] = 1 + kind - 0xA0
    fixed = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
    fixed |= {0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18, 0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5}
    for kind, size in fixed.items():
        sizes[kind] = size
    for kind in (0xC1, *_SIZED):
        sizes[kind] = 0
    return sizes


_SIZED = {
    0xC4: _Kind(1, 0, text=True),
    0xC5: _Kind(2, 0, text=True),
    0xC6: _Kind(4, 0, text=True),
    0xD9: _Kind(1, 0, text=True),
    0xDA: _Kind(2, 0, text=True),
    0xDB: _Kind(4, 0, text=True),
    0xC7: _Kind(1, 1, text=False),
    0xC8: _Kind(2, 1, text=False),
    0xC9: _Kind(4, 1, text=False),
}
_SIZES = _sizes()


def long_texts(body: bytes, sparse: int = SPARSE) -> list[tuple[int, int]]:
    """Start and end of the content of each long text and byte string, in order.

    None are found where there are few of them among many small things (numbers, short texts), so that looking
    costs little there; nor in what is no msgpack.

    Args:
        sparse: bytes for each token, from which it is worth looking on.
    """
    found: list[tuple[int, int]] = []
    at, end, tokens = 0, len(body), 0
    while at < end:
        size = _SIZES[body[at]]
        if size:
            at += size
        else:
            kind = _SIZED.get(body[at])
            if kind is None:
                return []
            start = at + 1 + kind.width + kind.more
            at = start + int.from_bytes(body[at + 1 : at + 1 + kind.width])
            if kind.text and at - start >= LEAST:
                found.append((start, at))
        tokens += 1
        if tokens % _LOOKED_AT == 0 and at < tokens * sparse:
            return []
    return found if at == end else []
