"""Server-sent events as engines send them, however the network cuts them."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors.models.chunks import decode, events

TEXTS = st.lists(st.text(max_size=8), max_size=6)


async def cut(stream: bytes, places: Sequence[int]) -> AsyncIterator[bytes]:
    """The same bytes in pieces."""
    marks = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    for begin, end in itertools.pairwise(marks):
        yield stream[begin:end]


async def heard(stream: bytes, places: Sequence[int] = ()) -> list[str]:
    """The texts of the chunks in it."""
    found = [decode(event) async for event in events(cut(stream, places))]
    return [choice.text or "" for chunk in found for choice in chunk.choices or ()]


@given(
    texts=TEXTS, places=st.lists(st.integers(min_value=0), max_size=12), end=st.sampled_from(["\n", "\r\n"])
)
async def test_cut_anywhere(texts: list[str], places: list[int], end: str) -> None:
    """Between any two bytes, within a character too; a text may hold what other readers take for line ends."""
    said = [json.dumps({"choices": [{"text": text}]}, ensure_ascii=False) for text in [*texts, "\u2028\x85"]]
    stream = "".join(f"data: {one}{end}{end}" for one in said).encode()
    assert await heard(stream + b"data: [DONE]\n\n", places) == [*texts, "\u2028\x85"]


@pytest.mark.parametrize(
    "stream",
    [
        b': hello\n\nevent: x\nid: 3\ndata: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n',
        b'data:{"choices": [{"text": "a"}]}\n\ndata:[DONE]\n\n',
        b'data: {"choices":\ndata: [{"text": "a"}]}\n\n',
        b'data: {"choices": [{"text": "a"}]}',
        b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\ndata: what follows is none of it\n\n',
    ],
    ids=["other fields", "no space", "two lines", "no end", "after the end"],
)
async def test_written_otherwise(stream: bytes) -> None:
    """As the standard allows, or as servers do."""
    assert await heard(stream) == ["a"]
