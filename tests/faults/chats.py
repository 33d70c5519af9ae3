"""What the scenario of long chats runs: every answer follows from the whole history that was asked with."""

from __future__ import annotations

import hashlib
import random
import string

import msgspec

import callboard
from callboard import ManagedList


class Line(msgspec.Struct):
    """Who said what."""

    role: str
    content: str


def mark(lines: list[Line]) -> str:
    """Of a whole history."""
    return hashlib.sha256(msgspec.msgpack.encode(lines)).hexdigest()


def answer(lines: list[Line]) -> str:
    """The only right answer to a history, 1 to 3 KB."""
    seen = mark(lines)
    chance = random.Random(seen)
    return seen + "".join(chance.choices(string.ascii_letters, k=chance.randint(1000, 3000)))


def expected(name: str, turns: int) -> str:
    """What a chat comes to."""
    lines: list[Line] = []
    for turn in range(turns):
        lines.append(Line("user", question(name, turn)))
        lines.append(Line("model", answer(lines)))
    return mark(lines)


def question(name: str, turn: int) -> str:
    """What is asked in a turn."""
    return f"{name} {turn} " * 20


@callboard.tool
async def reply(lines: list[Line]) -> str:
    """Answer a history."""
    return answer(lines)


@callboard.agent
class Chatterer:
    """Keeps a history."""

    lines: ManagedList[Line]

    @callboard.method
    async def say(self, text: str) -> str:
        """Ask with the whole history."""
        await self.lines.load()
        self.lines.append(Line("user", text))
        answered = await reply(list(self.lines))
        self.lines.append(Line("model", answered))
        return answered


@callboard.workflow
async def chatting(name: str, turns: int, kept: bool) -> str:  # noqa: FBT001 - a request's argument
    """A chat, its history in a list or kept by the agent."""
    lines: list[Line] = []
    for turn in range(turns):
        text = question(name, turn)
        lines.append(Line("user", text))
        answered = await (Chatterer.say(text) if kept else reply(lines))
        lines.append(Line("model", answered))
    return mark(lines)
