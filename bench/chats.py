"""A chat as its users write it: what is said in it, and how many bytes a board stores of it."""

import random
import string
from typing import Any

import msgspec
import nats

_LETTERS = string.ascii_letters + "     "
USER_BYTES = 200
_NO_PART = "TELEMETRY"
"""The stream that tells what hosts and drivers do: bounded in age and size, whatever is said."""


class Message(msgspec.Struct):
    """Who said what."""

    role: str
    content: str


def said(turn: int) -> str:
    """What the user says in a turn: 200 bytes."""
    return _text(2 * turn, USER_BYTES)


def answered(turn: int) -> str:
    """What the model answers in a turn: 1 to 3 KB."""
    return _text(2 * turn + 1, random.Random(turn).randint(1000, 3000))


def spoken(turns: int) -> int:
    """Bytes of all that is said in so many turns."""
    return sum(len(said(turn)) + len(answered(turn)) for turn in range(turns))


def _text(seed: int, size: int) -> str:
    return "".join(random.Random(seed).choices(_LETTERS, k=size))


async def stored(url: str) -> dict[str, int]:
    """Bytes in each stream and bucket that has a part of what is said."""
    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        found: dict[str, int] = {}
        for info in await jetstream.streams_info():
            assert info.config.name is not None
            if info.config.name != _NO_PART:
                found[info.config.name] = info.state.bytes
        return found
    finally:
        await connection.close()


def grown(before: dict[str, int], after: dict[str, int]) -> dict[str, Any]:
    """What has come in each stream, those left out where nothing has."""
    return {name: size - before.get(name, 0) for name, size in after.items() if size != before.get(name, 0)}
