"""Long texts in msgpack: found where they are, and nowhere else."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from callboard.state.texts import LEAST, long_texts

TEXT = st.text("abcäß", max_size=3 * LEAST) | st.binary(max_size=3 * LEAST)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.datetimes(timezones=st.just(UTC))
    | st.binary(max_size=300).map(lambda data: msgspec.msgpack.Ext(1, data))
    | TEXT,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=4), inner, max_size=20),
    max_leaves=60,
)


def texts_in(value: Any) -> list[bytes]:
    """The same by decoding, in order."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return [value] if len(value) >= LEAST else []
    if isinstance(value, dict):
        return [text for pair in value.items() for one in pair for text in texts_in(one)]
    return [text for one in value for text in texts_in(one)] if isinstance(value, list) else []


@given(VALUES)
def test_all_that_are_there_are_found(value: Any) -> None:
    """Whatever stands around them."""
    body = msgspec.msgpack.encode(value)
    assert [body[start:end] for start, end in long_texts(body)] == texts_in(value)


@given(st.binary(max_size=2000))
def test_what_is_no_msgpack_is_no_error(body: bytes) -> None:
    """Whatever is found lies in it."""
    for start, end in long_texts(body):
        assert 0 < start < end <= len(body)


def test_long_lengths_are_understood() -> None:
    """With one, two and four bytes."""
    sizes = [LEAST, 255, 256, 65_535, 65_536, 200_000]
    body = msgspec.msgpack.encode([["x" * size, b"y" * size] for size in sizes])
    assert [end - start for start, end in long_texts(body)] == [size for size in sizes for _ in range(2)]


def test_many_small_things_are_not_looked_through() -> None:
    """A long text after a million numbers is not worth finding."""
    numbers = msgspec.msgpack.encode([[1.5] * 1_000_000, "x" * LEAST])
    assert long_texts(numbers) == []
    assert len(long_texts(msgspec.msgpack.encode([[1.5] * 100, "x" * LEAST]))) == 1
