"""What an engine's cache tells is applied to the prompts that it has read."""

from __future__ import annotations

from callboard import Message
from callboard.actors.models.cache import Cleared, Read, Removed, Stored
from callboard.actors.models.types import ChatRequest
from callboard.actors.prefixes.blocks import Blocks
from callboard.actors.prefixes.chain import of_chat

SIZE = 10
"""Tokens of a block; here a character is a token."""
TALK = [Message("user", "u" * 40), Message("assistant", "a" * 40), Message("user", "v" * 20)]
POINTS = of_chat(TALK).points


class Cache:
    """Blocks, and what they have told."""

    def __init__(self) -> None:
        self.dropped: list[int] = []
        self.cleared = 0
        self.blocks = Blocks(self.dropped.extend, self._clear)

    def _clear(self) -> None:
        self.cleared += 1

    def read(self, request: str, messages: list[Message]) -> None:
        """The engine has answered."""
        asked = ChatRequest(messages=messages)
        self.blocks.take(Read(request, asked, sum(len(message.text) for message in messages)))

    def store(self, request: str, first: int, last: int) -> None:
        """It keeps these blocks, of which each has the number before it as its parent."""
        parent = first - 1 or None
        self.blocks.take(Stored(request, list(range(first, last + 1)), parent, SIZE))

    def remove(self, *blocks: int) -> list[int]:
        """It keeps these no more; gives the points that are gone with them."""
        self.dropped.clear()
        self.blocks.take(Removed(list(blocks)))
        return list(self.dropped)


def test_points_go_with_the_block_they_end_in() -> None:
    """The end of a conversation first, as engines do it; what is left is still there."""
    cache = Cache()
    cache.store("one", 1, 10)
    cache.read("one", TALK)
    assert cache.remove(10) == [POINTS[2]]
    assert cache.remove(9) == []
    assert cache.remove(8, 7) == [POINTS[1]]
    assert cache.remove(4) == [POINTS[0]]
    assert len(cache.blocks) == 5


def test_events_may_come_after_the_answer() -> None:
    """And before it; it is the same."""
    cache = Cache()
    cache.store("one", 1, 5)
    cache.read("one", TALK)
    cache.store("one", 6, 10)
    assert cache.remove(8) == [POINTS[1]]
    assert cache.remove(10) == [POINTS[2]]


def test_a_conversation_that_goes_on() -> None:
    """Its later requests store only what is new; the blocks before that are found by their parents."""
    cache = Cache()
    cache.store("one", 1, 4)
    cache.read("one", TALK[:1])
    cache.store("two", 5, 10)
    cache.read("two", TALK)
    assert cache.remove(10, 8) == [POINTS[2], POINTS[1]]
    assert cache.remove(4) == [POINTS[0]]


def test_what_stores_nothing_new_ends_where_the_point_before_it_does() -> None:
    """A few more tokens, that fill no block."""
    cache = Cache()
    cache.store("one", 1, 4)
    cache.read("one", TALK[:1])
    longer = [TALK[0], Message("assistant", "b")]
    cache.read("two", longer)
    assert set(cache.remove(4)) == set(of_chat(longer).points)


def test_unknown_blocks() -> None:
    """Of a cache that was there before: nothing is known of where its prompts end, and nothing fails."""
    cache = Cache()
    cache.store("one", 7, 10)
    cache.read("one", TALK)
    assert cache.remove(10, 99) == []


def test_cleared() -> None:
    """All points are gone, at once."""
    cache = Cache()
    cache.store("one", 1, 10)
    cache.read("one", TALK)
    cache.blocks.take(Cleared())
    assert cache.cleared == 1
    assert len(cache.blocks) == 0
    assert cache.remove(10) == []
