"""What an engine tells of its prefix cache, if it does: which blocks it keeps, and of which prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import msgspec

from callboard.actors.models.types import ChatRequest, CompletionRequest

BlockId = int | bytes


class Read(msgspec.Struct, frozen=True):
    """It has read a prompt.

    Attributes:
        id: of the request; tokens: of the prompt, as it has counted them.
    """

    id: str
    request: ChatRequest | CompletionRequest
    tokens: int


class Stored(msgspec.Struct, frozen=True):
    """It keeps blocks, one after the other.

    Attributes:
        id: of the request for which they were computed.
        blocks: their ids; parent: the block before them, None: they are the first; size: tokens of each.
    """

    id: str
    blocks: list[BlockId]
    parent: BlockId | None
    size: int


class Removed(msgspec.Struct, frozen=True):
    """It keeps these blocks no more."""

    blocks: list[BlockId]


class Cleared(msgspec.Struct, frozen=True):
    """It keeps nothing, or what it keeps is not known any more."""


CacheEvent = Read | Stored | Removed | Cleared
Tell = Callable[[CacheEvent], None]


@runtime_checkable
class TellsCache(Protocol):
    """An engine that tells of its prefix cache; not all do, so this is no part of the port."""

    def follow(self, tell: Tell) -> None:
        """Have somebody told from now on, on the event loop."""
        ...
