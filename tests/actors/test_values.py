"""Values on their way: futures put in where they stood, large parts by reference."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard.actors import values
from callboard.actors.declare import tool
from callboard.actors.future import Future, LazyValue
from callboard.infra.errors import ValueMissing, ValueTooLarge
from callboard.infra.settings import Settings


@tool
async def echo(value: Any) -> Any:
    """Somebody to whom futures belong."""
    return value


class Point(msgspec.Struct):
    """A struct that holds anything."""

    x: Any
    y: Any = None


@dataclasses.dataclass
class Pair:
    """A dataclass that holds anything."""

    one: Any
    two: Any = None


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop for futures to belong to; it does not run."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


class Hole:
    """A place in a template where a future will stand."""

    def __init__(self, number: int) -> None:
        self.number = number


def templates(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nested values of all kinds of containers over these leaves."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.tuples(inner, inner),
            st.dictionaries(st.text(max_size=4), inner, max_size=3),
            st.builds(Point, inner, inner),
            st.builds(Pair, inner, inner),
        ),
        max_leaves=12,
    )


TEMPLATES = templates(st.one_of(PLAIN, st.integers(0, 3).map(Hole)))


def fill(template: Any, parts: list[Any]) -> Any:
    """The template with the parts in its holes."""
    if isinstance(template, Hole):
        return parts[template.number]
    if isinstance(template, list | tuple):
        return type(template)(fill(item, parts) for item in template)
    if isinstance(template, dict):
        return {key: fill(item, parts) for key, item in template.items()}
    if isinstance(template, Point):
        return Point(fill(template.x, parts), fill(template.y, parts))
    if isinstance(template, Pair):
        return Pair(fill(template.one, parts), fill(template.two, parts))
    return template


@given(TEMPLATES, st.lists(PLAIN, min_size=4, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_joining_gives_what_encoding_the_values_would_have_given(
    loop: asyncio.AbstractEventLoop, template: Any, parts: list[Any], lazy: list[bool]
) -> None:
    """Wherever futures stand, however often, as futures or as lazy values: the same bytes in the end."""
    futures = [Future[Any](loop, f"run:{number}", echo.method, None) for number in range(4)]  # type: ignore[arg-type]
    stand_ins = [LazyValue(f) if is_lazy else f for f, is_lazy in zip(futures, lazy, strict=True)]
    encoded = values.encode(fill(template, stand_ins))
    assert len(set(encoded.futures)) == len(encoded.futures), "each once, however often it stands there"
    for future, value in zip(futures, parts, strict=True):
        future.raw = msgspec.msgpack.encode(value)
    encoded.join()
    assert encoded.body == msgspec.msgpack.encode(fill(template, parts))
    assert not encoded.futures


def test_encoding_an_unresolved_lazy_value_does_not_wait_for_it(loop: asyncio.AbstractEventLoop) -> None:
    """It is passed on as the future that it stands for: the loop does not run, so waiting would hang."""
    future = Future[Any](loop, "run:1", echo.method, None)  # type: ignore[arg-type]
    lazy = LazyValue(future)
    done: list[values.Encoded] = []
    thread = threading.Thread(
        target=lambda: done.append(values.encode([lazy, {"a": lazy}, (lazy,)])), daemon=True
    )
    thread.start()
    thread.join(timeout=30)
    assert done
    assert done[0].futures == (future,)


def test_threads_do_not_see_each_others_futures(loop: asyncio.AbstractEventLoop) -> None:
    """Encoding in many threads at once finds in each the futures of its own value."""
    wrong: list[int] = []

    def encode(number: int) -> None:
        mine = [Future[Any](loop, f"run:{number}.{n}", echo.method, None) for n in range(3)]  # type: ignore[arg-type]
        found = [values.encode({"a": mine, "b": [mine[0]]}).futures for _ in range(200)]
        wrong.extend(number for futures in found if futures != tuple(mine))

    threads = [threading.Thread(target=encode, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    "value", [object(), {"a": [object()]}, lambda: None, Exception("x"), {1: {object()}}]
)
def test_what_cannot_travel_is_named(value: Any) -> None:
    """And leaves nothing behind for the next value that is encoded."""
    with pytest.raises(TypeError, match=r"a \w+\.\w+ cannot travel"):
        values.encode(value)
    assert values.encode([1]).futures == ()


def test_a_failed_encoding_leaves_no_future_behind(loop: asyncio.AbstractEventLoop) -> None:
    """A value with a future and something that cannot travel: the next value has no futures."""
    future = Future[Any](loop, "run:1", echo.method, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        values.encode([future, object()])
    assert values.encode([1]).futures == ()


# -- by reference ------------------------------------------------------------------------------------------


class FakeBlobs:
    """A blob store in memory; the real one is tested by itself and in use."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    async def put(self, content: bytes) -> str:
        """Keep it under its hash."""
        digest = hashlib.sha256(content).hexdigest()
        self.held[digest] = content
        return digest

    async def get(self, digest: str) -> bytes:
        """Give it back."""
        if digest not in self.held:
            raise ValueMissing("not there", digest=digest)
        return self.held[digest]


LIMITS = Settings(inline_limit=40, value_limit=2000)


@given(st.one_of(PLAIN, st.binary(max_size=200)))
def test_a_value_above_the_inline_limit_travels_as_a_reference(value: Any) -> None:
    """A value within it stays as it is; either way it is the same value at the other end."""
    blobs = FakeBlobs()
    plain = msgspec.msgpack.encode(value)
    encoded = values.encode(value)
    asyncio.run(values.shrink(encoded, blobs, LIMITS))  # type: ignore[arg-type]
    assert (len(plain) > 40) == bool(encoded.blobs)
    assert len(encoded.body) <= 40
    assert msgspec.msgpack.decode(encoded.body) is not None or value is None, "itself valid msgpack"
    assert asyncio.run(values.expand(encoded.body, encoded.blobs, blobs)) == plain  # type: ignore[arg-type]


@given(TEMPLATES, st.lists(st.one_of(PLAIN, st.binary(min_size=41, max_size=90)), min_size=4, max_size=4))
def test_references_inside_a_value_are_expanded_where_they_stand(
    loop: asyncio.AbstractEventLoop, template: Any, parts: list[Any]
) -> None:
    """Results that travelled by reference, passed on in other values, shrunk again or not."""
    blobs = FakeBlobs()
    futures = [Future[Any](loop, f"run:{number}", echo.method, None) for number in range(4)]  # type: ignore[arg-type]
    for future, value in zip(futures, parts, strict=True):
        part = values.encode(value)
        asyncio.run(values.shrink(part, blobs, LIMITS))  # type: ignore[arg-type]
        future.raw, future.blobs = part.body, part.blobs
    plain = msgspec.msgpack.encode(fill(template, parts))
    encoded = values.encode(fill(template, futures))
    encoded.join()
    assert asyncio.run(values.expand(encoded.body, encoded.blobs, blobs)) == plain  # type: ignore[arg-type]
    asyncio.run(values.shrink(encoded, blobs, LIMITS))  # type: ignore[arg-type]
    assert len(encoded.body) <= 40 or len(encoded.body) <= len(plain)
    assert asyncio.run(values.expand(encoded.body, encoded.blobs, blobs)) == plain  # type: ignore[arg-type]


def test_a_value_above_the_largest_size_is_refused() -> None:
    """Before anything is stored."""
    blobs = FakeBlobs()
    with pytest.raises(ValueTooLarge):
        asyncio.run(values.shrink(values.encode(b"x" * 2000), blobs, LIMITS))  # type: ignore[arg-type]
    assert blobs.held == {}


@pytest.mark.parametrize("digest", ["zz", "", "ab", "x" * 64, "é" * 32])
def test_a_digest_that_is_none(digest: str) -> None:
    """A header is somebody else's text: a typed error, not one of parsing."""
    with pytest.raises(ValueMissing):
        asyncio.run(values.expand(b"\xc0", [digest], FakeBlobs()))  # type: ignore[arg-type]
