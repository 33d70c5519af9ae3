"""What the handlers of a test wait for and note down; begun anew with each test of actors."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, MutableSequence, MutableSet
from typing import Any, ClassVar, TypeVar

Notes = MutableSequence[Any] | MutableMapping[Any, Any] | MutableSet[Any]
N = TypeVar("N", bound=Notes)


class Gate:
    """Lets handlers wait until a test opens it. An event belongs to one loop, this to all of them in turn."""

    every: ClassVar[list[Gate]] = []

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.every.append(self)

    async def wait(self) -> None:
        """Wait until it is open."""
        await self.event.wait()

    def set(self) -> None:
        """Open it."""
        self.event.set()

    def clear(self) -> None:
        """Shut it."""
        self.event.clear()

    def is_set(self) -> bool:
        """Whether it is open."""
        return self.event.is_set()


_notes: list[Notes] = []


def anew(notes: N) -> N:
    """Notes that are emptied before each test."""
    _notes.append(notes)
    return notes


def begin_anew() -> None:
    """Shut all gates, and forget all notes."""
    for gate in Gate.every:
        gate.event = asyncio.Event()
    for notes in _notes:
        notes.clear()
