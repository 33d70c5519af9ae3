"""Hearing what models say: pieces put together again, whatever was lost, came twice or is void."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from callboard.actors.speech import Line
from callboard.infra import subjects
from callboard.infra.connection import Connection
from callboard.infra.messages.control import Said, SaidQuery
from callboard.infra.messages.tokens import Tokens

LIMIT: Final = 1_000_000
"""Characters that may wait for a slow reader; what is said beyond them is fetched or left out."""
_ASK_EVERY: Final = 0.25

_decode = msgspec.msgpack.Decoder(Tokens).decode
_decode_said = msgspec.msgpack.Decoder(Said).decode


class Piece(msgspec.Struct, omit_defaults=True):
    """A piece of a model's answer.

    Attributes:
        text: what was said since the last piece.
        future: id of the call; attempt: which, from 1.
        reset: the answer begins anew with this piece: forget what came before.
        done: nothing follows.
        lost: a part of this answer was not heard; the call's result has all of it.
    """

    text: str = ""
    future: str = ""
    attempt: int = 1
    reset: bool = False
    done: bool = False
    lost: bool = False


class _Heard:
    """How much has been heard of one answer."""

    __slots__ = ("begun", "length")

    def __init__(self) -> None:
        self.begun = (0, 0)
        self.length = 0


class Listener:
    """Hears the answers given in a run, or one of them.

    Args:
        line: how pieces travel.
        run: whose; path: of one future; ``*`` for all.
        on_news: called when there is something to take.
    """

    def __init__(self, line: Line, run: str, path: str, on_news: Callable[[], None]) -> None:
        self._line = line
        self._run = run
        self._on_news = on_news
        self._heard: dict[str, _Heard] = {}
        self._unread: OrderedDict[str, Piece] = OrderedDict()
        self._waiting = 0
        self._asked = 0.0
        self._sids = [line.subscribe(subjects.tokens(run, path), self._on_tokens)]
        self._inbox = ""

    def stop(self) -> None:
        """Hear no more. Idempotent."""
        for sid in self._sids:
            self._line.unsubscribe(sid)
        self._sids.clear()

    def ask(self) -> None:
        """Ask the hosts what has been said so far; on no board there is nobody to ask."""
        now = time.monotonic()
        if not isinstance(self._line, Connection) or now - self._asked < _ASK_EVERY:
            return
        self._asked = now
        if not self._inbox:
            self._inbox = self._line.inbox()
            self._sids.append(self._line.subscribe(self._inbox, self._on_said))
        query = msgspec.msgpack.encode(SaidQuery(self._run))
        self._line.publish(subjects.control(), query, reply=self._inbox)

    def take(self) -> Piece | None:
        """What was heard of one answer since the last time, in one piece; None if nothing was."""
        if not self._unread:
            return None
        _, piece = self._unread.popitem(last=False)
        self._waiting -= len(piece.text)
        return piece

    def _on_tokens(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        try:
            said = _decode(data)
        except (msgspec.DecodeError, RecursionError):
            return  # anybody can publish here
        self.hear(said)

    def _on_said(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        try:
            said = _decode_said(data)
        except (msgspec.DecodeError, RecursionError):
            return  # as above
        for one in said.tokens:
            self.hear(one)

    def hear(self, said: Tokens) -> None:
        """Take up what is new of a piece."""
        heard = self._heard.setdefault(said.future, _Heard())
        begun = (said.attempt, said.begun)
        if begun < heard.begun:
            return  # a fenced one still speaks
        reset = heard.begun != (0, 0) and begun > heard.begun
        if begun > heard.begun:
            heard.begun, heard.length = begun, 0
        fresh = said.text[max(0, heard.length - said.at) :]
        missed = said.at > heard.length
        if missed or self._waiting + len(fresh) > LIMIT:
            if said.last:
                self._put(said, "", reset=reset, lost=True)
            elif missed:
                self.ask()
                if reset:
                    self._put(said, "", reset=True)
            return
        heard.length += len(fresh)
        if fresh or reset or said.last:
            self._put(said, fresh, reset=reset)

    def _put(self, said: Tokens, text: str, *, reset: bool, lost: bool = False) -> None:
        """Add to what waits for the reader, one piece for each answer."""
        piece = self._unread.get(said.future)
        if piece is None:
            piece = self._unread[said.future] = Piece(future=said.future)
        if reset:
            self._waiting -= len(piece.text)
            piece.text, piece.reset = "", True
        piece.text += text
        piece.attempt = said.attempt
        piece.done, piece.lost = said.last, lost
        self._waiting += len(text)
        self._on_news()
