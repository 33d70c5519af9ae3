"""What an LlmAgent remembers: the messages of the session, as managed state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from callboard.actors.models.types import Message
from callboard.state.lists import ManagedList


class Remembering:
    """The instance of an agent with a history: kept with the outcome of each call, or not at all."""

    most: ClassVar[int]
    history: ManagedList[Message]

    async def recall(self) -> list[Message]:
        """What was said before."""
        await self.history.load()
        return list(self.history)

    def keep(self, said: Sequence[Message]) -> None:
        """Keep what was said in this call, and drop what is too old."""
        self.history.extend(said)
        surplus = begin(self.history, self.most)
        if surplus:
            del self.history[:surplus]


class Forgetful:
    """The instance of an agent without one."""

    most: ClassVar[int]

    async def recall(self) -> list[Message]:
        """Nothing."""
        return []

    def keep(self, said: Sequence[Message]) -> None:
        """Nothing is kept."""


def begin(messages: Sequence[Message], most: int) -> int:
    """Where the last messages begin, ``most`` of them at most.

    It is where a user speaks, so that no result of a tool stands there without its call; what follows the
    last time that a user has spoken is kept whole.
    """
    users = [place for place, message in enumerate(messages) if message.role == "user"]
    if len(messages) <= most or not users:
        return 0
    return next((place for place in users if place >= len(messages) - most), users[-1])
