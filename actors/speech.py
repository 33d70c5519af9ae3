"""What models say while they say it: pieces of answers, on core NATS or within this process.

Nothing here is durable: a piece may be lost, and the call's result is complete. See
``docs/decisions/0023-models.md``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, Self

import msgspec

from callboard.actors.resuming import heard_of
from callboard.infra import subjects
from callboard.infra.messages.tokens import TakeUp, Tokens

if TYPE_CHECKING:
    from callboard.infra.connection import Connection, Lane

EVERY: Final = 0.03
"""Seconds: what is said within them travels as one message."""
_PIECE: Final = 100_000
"""Characters of a message at most; each has up to 4 bytes."""
_ANSWER: Final = 500_000
"""Bytes of what is told to somebody who comes late."""

_encode = msgspec.msgpack.Encoder().encode


class Line(Protocol):
    """How pieces travel; a connection to NATS is one."""

    def publish(self, subject: str, body: bytes) -> None:
        """Send a message to whoever listens now."""
        ...

    def subscribe(self, subject: str, lane: Lane) -> int:
        """Listen; gives a number to end it with."""
        ...

    def unsubscribe(self, sid: int) -> None:
        """Listen no more."""
        ...


class LocalLine:
    """The same within one process and thread: whoever listens hears at once."""

    def __init__(self) -> None:
        self._lanes: dict[int, tuple[str, Lane]] = {}
        self._count = 0

    def publish(self, subject: str, body: bytes) -> None:
        """Tell all who listen to this very subject."""
        for wanted, lane in list(self._lanes.values()):
            if wanted == subject:
                lane(subject.encode(), b"", body, None)

    def subscribe(self, subject: str, lane: Lane) -> int:
        """Listen to one subject, without wildcards."""
        self._count += 1
        self._lanes[self._count] = subject, lane
        return self._count

    def unsubscribe(self, sid: int) -> None:
        """Listen no more; unknown numbers are ignored."""
        self._lanes.pop(sid, None)


class Speech:
    """All answers that are being given in one process.

    Args:
        publish: how a piece is sent; board: where listeners are asked; None: nowhere, since no call is tried
            again there.
    """

    def __init__(self, publish: Callable[[str, bytes], None], board: Connection | None = None) -> None:
        self.publish = publish
        self.board = board
        self._speaking: dict[tuple[str, int], Speaker] = {}

    @classmethod
    def on(cls, connection: Connection) -> Speech:
        """On a board. While the server is away pieces are dropped, not kept: who misses one asks for it."""

        def publish(subject: str, body: bytes) -> None:
            if connection.connected.is_set():
                connection.publish(subject, body)

        return cls(publish, connection)

    def speaker(self, path: str, *, again: bool = False) -> Speaker:
        """One who answers a call.

        Args:
            path: the future's id, and after a ``~`` the attempt if it is not the first.
            again: this attempt may have begun before.
        """
        last = max(path.rfind("."), path.rfind("/"), path.rfind(":")) + 1
        number, _, attempt = path[last:].partition("~")
        speaker = Speaker(self, path[:last] + number, int(attempt or 1), again=again)
        self._speaking[speaker.key] = speaker
        return speaker

    def over(self, speaker: Speaker) -> None:
        """It says nothing more."""
        if self._speaking.get(speaker.key) is speaker:
            del self._speaking[speaker.key]

    def said(self, run: str) -> list[Tokens]:
        """What was said so far in a run's answers that are not complete, as far as a message has room.

        Of one that says nothing yet nothing is told: whether it begins anew may not be known.
        """
        told: list[Tokens] = []
        room = _ANSWER
        for speaker in list(self._speaking.values()):
            if speaker.key[0].partition(":")[0] != run:
                continue
            so_far = speaker.so_far()
            room -= len(_encode(so_far))
            if room >= 0 and so_far.text:
                told.append(so_far)
        return told


class Speaker:
    """Tells what a model answers to one call. Use as a context manager, within the handler's event loop.

    Attributes:
        tokens: that the model has made for it, as far as its engine counts them.
        repeats: id of the call whose answer it says again; empty: it is its own.
    """

    def __init__(self, speech: Speech, future: str, attempt: int, *, again: bool = False) -> None:
        self.key = future, attempt
        self._again = again or attempt > 1
        self.tokens = 0
        self.repeats = ""
        self._speech = speech
        run, _, path = future.partition(":")
        self._subject = subjects.tokens(run, path)
        self._timer: asyncio.TimerHandle | None = None
        self._since = 0
        self._flushed = 0.0
        self.begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._send(last=kind is None)
        self._speech.over(self)

    @property
    def begun(self) -> bool:
        """Whether anything was said of the answer."""
        return bool(self._said)

    def begin(self) -> None:
        """Answer anew: what was said before is void for all who hear what follows."""
        self._since = max(time.time_ns() // 1000, self._since + 1)
        self._said: list[str] = []
        self._unsent: list[str] = []
        self._sent = self._index = 0
        self._after = self._kept = 0

    async def heard(self) -> Tokens | None:
        """What listeners have heard of the answer that another attempt began; None: nobody has heard any."""
        if not self._again or self._speech.board is None:
            return None
        asked = TakeUp(*self.key, begun=self._since)
        found = await heard_of(self._speech.board, asked)
        if found is None:
            return None
        self._since = max(self._since, found.begun + 1)  # its host's clock may be ahead of this one's
        return found if found.text else None

    def go_on(self, heard: Tokens) -> None:
        """What follows comes behind what listeners have heard."""
        self._after, self._kept = heard.begun, len(heard.text)
        self._said, self._sent = [heard.text], len(heard.text)

    def say(self, text: str) -> None:
        """Say a piece. The first one leaves at once, what follows it soon leaves with others."""
        if not text:
            return
        self._said.append(text)
        self._unsent.append(text)
        if self._timer is not None:
            return
        wait = self._flushed + EVERY - time.monotonic()
        if wait <= 0:
            self._send()
        else:
            self._timer = asyncio.get_running_loop().call_later(wait, self._send)

    def so_far(self) -> Tokens:
        """All that was said since it began."""
        self._said = ["".join(self._said)]
        return self._tokens(0, self._said[0])

    def _tokens(self, at: int, text: str, *, last: bool = False) -> Tokens:
        return Tokens(
            *self.key,
            begun=self._since,
            index=self._index,
            at=at,
            text=text,
            last=last,
            after=self._after,
            kept=self._kept,
            repeats=self.repeats,
        )

    def _send(self, *, last: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._flushed = time.monotonic()
        text = "".join(self._unsent)
        self._unsent.clear()
        while text or last:
            piece, text = text[:_PIECE], text[_PIECE:]
            ends = last and not text
            message = self._tokens(self._sent, piece, last=ends)
            self._index += 1
            self._sent += len(piece)
            self._speech.publish(self._subject, _encode(message))
            if ends:
                return
