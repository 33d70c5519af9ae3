"""What an engine streams: server-sent events, and the chunks in them, held against the API's types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from callboard.actors.models.types import Usage

_END: Final = b"[DONE]"


class FunctionPart(msgspec.Struct):
    """A part of a function that the model wants to have called."""

    name: str | None = None
    arguments: str | None = None


class CallPart(msgspec.Struct):
    """A part of a tool call; ``index`` says of which."""

    index: int = 0
    id: str | None = None
    function: FunctionPart | None = None


class Delta(msgspec.Struct):
    """What a chat's answer has more.

    Attributes:
        reasoning_content, reasoning: what the model thinks, by the names that vLLM and others give it.
    """

    content: str | None = None
    tool_calls: list[CallPart] | None = None
    reasoning_content: Any = None
    reasoning: Any = None


class Choice(msgspec.Struct):
    """What a chunk says: ``delta`` of a chat, ``text`` of a completion."""

    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class Used(msgspec.Struct):
    """Tokens, as the engine has counted them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None

    def usage(self) -> Usage:
        """As callers are told."""
        prompt, answer = self.prompt_tokens or 0, self.completion_tokens or 0
        return Usage(prompt, answer, self.total_tokens or prompt + answer)


class Chunk(msgspec.Struct):
    """One event of a stream.

    Attributes:
        error: in the place of a chunk: the engine has failed meanwhile.
    """

    id: str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Used | None = None
    error: Any = None


class Counted(msgspec.Struct):
    """What vLLM answers to ``/tokenize``, as far as it is read; others have other answers."""

    count: int | None = None


decode_counted: Final = msgspec.json.Decoder(Counted).decode
"""From the body of an answer. Raises msgspec.DecodeError: it is something else."""

decode: Final = msgspec.json.Decoder(Chunk).decode
"""A chunk from the data of an event. Raises msgspec.DecodeError: the API does not allow it."""


async def events(read: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event, up to the one that ends the stream (WHATWG HTML, "Server-sent events")."""
    rest = b""
    data: list[bytes] = []
    async for received in read:
        *lines, rest = (rest + received).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].strip())
            elif not line.strip() and data:
                event = b"\n".join(data)
                data.clear()
                if event == _END:
                    return
                yield event
    if rest.startswith(b"data:"):
        data.append(rest[5:].strip())
    if data and data != [_END]:
        yield b"\n".join(data)
