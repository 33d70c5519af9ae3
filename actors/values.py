"""Values on their way: encoding, futures among arguments, and large values by reference.

msgpack writes no byte lengths for arrays and maps, so an encoded value can be put into an encoded
body without touching the rest. That is how a dependency's value goes into a waiting call: the body is
encoded once with a random token where the future stood, and joined with the value later, unread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from callboard.infra.settings import Settings

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.state.blobs import Blobs

_BLOB_EXT = 1
_EXT32 = b"\xc7\x20\x01"


FindFuture = Callable[[Any], "Future[Any] | None"]
"""Tells the future that a value stands for, if it stands for one."""


class Encoded:
    """An encoded value and what is still missing in it.

    Attributes:
        body: msgpack; holds a token for each future.
        futures: the futures among the value, each once.
        tokens: their tokens, in the same order.
        blobs: digests of the parts that are references.
        called_at: file and line of the call whose arguments they are, if there are futures among them.
        woven: where its woven form is, see `weaving`; empty: the body is no such form.
        size: bytes that the body had before it became references; 0: it has not, or nobody knows.
    """

    __slots__ = ("blobs", "body", "called_at", "futures", "size", "tokens", "woven")

    def __init__(self, body: bytes, futures: Sequence[Future[Any]], tokens: Sequence[bytes]) -> None:
        self.body = body
        self.futures = futures
        self.tokens = tokens
        self.blobs: list[str] = []
        self.called_at: tuple[str, int] | None = None
        self.woven = ""
        self.size = 0

    def join(self) -> None:
        """Put the values of the futures, which are all there now, where their tokens stand."""
        for future, token in zip(self.futures, self.tokens, strict=True):
            self.body = self.body.replace(token, bytes(future.raw))
            self.blobs += [digest for digest in future.blobs if digest not in self.blobs]
        self.futures = self.tokens = ()


class _Found(threading.local):
    """The futures met while one value is being encoded in this thread."""

    find: ClassVar[FindFuture]

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.tokens: list[bytes] = []


_found = _Found()


def recognise(find: FindFuture) -> None:
    """Set how futures are told from other values; ``actors/future.py`` does, which knows them."""
    _Found.find = find


def _encode_other(value: Any) -> Any:
    future = _Found.find(value)
    if future is None:
        plain = getattr(type(value), "__travelling__", None)  # of managed state
        if plain is not None:
            return plain(value)
        raise TypeError(
            f"a {type(value).__module__}.{type(value).__qualname__} cannot travel: pass msgspec structs, "
            "dataclasses or standard types"
        )
    for known, token in zip(_found.futures, _found.tokens, strict=True):
        if known is future:
            return msgspec.Raw(token)
    token = b"\xc1" + os.urandom(16)
    _found.futures.append(future)
    _found.tokens.append(token)
    return msgspec.Raw(token)


_encode = msgspec.msgpack.Encoder(enc_hook=_encode_other).encode


def encode(value: Any) -> Encoded:
    """Encode a value in which futures may stand anywhere.

    Raises:
        TypeError: a part of it cannot travel.
    """
    try:
        body = _encode(value)
        if not _found.futures:
            return Encoded(body, (), ())
        return Encoded(body, tuple(_found.futures), tuple(_found.tokens))
    finally:
        if _found.futures:
            _found.futures = []
            _found.tokens = []


async def shrink(encoded: Encoded, blobs: Blobs, settings: Settings) -> None:
    """Replace a body above the inline limit by a reference.

    Raises:
        ValueTooLarge: above the largest permitted size.
    """
    settings.check_value_size(len(encoded.body))
    if len(encoded.body) <= settings.inline_limit:
        return
    digest = await blobs.put(await expand(encoded.body, encoded.blobs, blobs))
    encoded.body = reference(digest)
    encoded.blobs = [digest]


async def expand(body: bytes, digests: Sequence[str], blobs: Blobs) -> bytes:
    """Put the content of every reference where it stands.

    Raises:
        ValueMissing: a blob is not there any more.
    """
    for digest in digests:
        content = await blobs.get(digest)  # which fails for a digest that is none
        body = body.replace(reference(digest), content)
    return body


def reference(digest: str) -> bytes:
    """How a blob is referred to inside a msgpack value: extension type 1 with the 32 digest bytes."""
    return _EXT32 + bytes.fromhex(digest)
