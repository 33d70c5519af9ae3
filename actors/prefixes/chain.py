"""A prompt as a chain of hashes: two prompts begin alike as far as their chains do.

Source: vLLM's design document "Automatic Prefix Caching", which chains blocks of tokens. Here a link is a
message, or a piece of a long one, since whoever makes a call has no tokenizer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from callboard.actors.models.types import ChatRequest, CompletionRequest, Message

PIECE: Final = 1024
"""Characters of a message after which a link ends."""
MOST: Final = 256
"""Links of a chain; what comes after them decides nothing."""
_SHARED: Final = frozenset({"system", "developer"})
_encode = msgspec.msgpack.Encoder().encode


class _Chat(msgspec.Struct):
    messages: list[Message]
    tools: list[dict[str, Any]] = []


class _Completion(msgspec.Struct):
    prompt: str


_decode_chat = msgspec.msgpack.Decoder(_Chat).decode
_decode_completion = msgspec.msgpack.Decoder(_Completion).decode


class Chain:
    """A prompt. Link by link, each hash is of all that the prompt has up to there.

    Attributes:
        points: the hashes, 64 bits each; sizes: characters up to each of them.
        whole: characters of all of it, what comes after the last link included.
        head: how many of them an agent's conversations have in common: tools and first instructions.
    """

    __slots__ = ("_last", "head", "points", "sizes", "whole")

    def __init__(self) -> None:
        self.points: list[int] = []
        self.sizes: list[int] = []
        self.head = self.whole = 0
        self._last = b""

    @property
    def size(self) -> int:
        """Characters of the whole, as far as it is looked at."""
        return self.sizes[-1] if self.sizes else 0

    def held(self, depth: int) -> int:
        """Characters of the first so many links."""
        return self.sizes[depth - 1] if depth else 0

    def add(self, data: bytes, size: int) -> None:
        """One link more, if there is room."""
        self.whole += size
        if len(self.points) < MOST:
            self._last = hashlib.blake2b(self._last + data, digest_size=8).digest()
            self.points.append(int.from_bytes(self._last, "little"))
            self.sizes.append(self.size + size)

    def add_text(self, text: str, begin: bytes = b"", end: bytes = b"") -> None:
        """The links of a text; begin: what stands before it, end: what after it."""
        for at in range(0, max(1, len(text)), PIECE):
            piece = text[at : at + PIECE]
            after = end if at + PIECE >= len(text) else b""
            self.add((b"" if at else begin) + piece.encode() + after, len(piece) + max(0, len(after) - 1))


def of_chat(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Chain:
    """The chain of a chat."""
    chain = Chain()
    if tools:
        told = _encode(list(tools))
        chain.add(told, len(told))
    opening = True
    for message in messages:
        opening = opening and message.role in _SHARED
        text, parts = (message.content, None) if isinstance(message.content, str) else ("", message.content)
        begin = f"\0{message.role}\0{message.name or ''}\0".encode()
        rest = (parts, message.tool_calls, message.tool_call_id)
        chain.add_text(text, begin, b"\0" + _encode(rest) if any(rest) else b"\0")
        if opening:
            chain.head = len(chain.points)
    return chain


def of_prompt(prompt: str) -> Chain:
    """The chain of a prompt that is to be continued."""
    chain = Chain()
    chain.add_text(prompt)
    return chain


def of_request(request: ChatRequest | CompletionRequest) -> Chain:
    """The chain of what an engine is asked; the same as that of the call."""
    if isinstance(request, ChatRequest):
        return of_chat(request.messages, request.tools)
    return of_prompt(request.prompt)


def of_call(method: str, body: bytes) -> Chain | None:
    """The chain of a call of a model, from its encoded arguments; None: they have none that can be read."""
    try:
        if method == "chat":
            asked = _decode_chat(body)
            return of_chat(asked.messages, asked.tools)
        if method == "complete":
            return of_prompt(_decode_completion(body).prompt)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # a part travels by reference; or it is no such call, which its host will say
    return None
