"""Hearing what models say: pieces put together again, whatever was lost, came twice or is void."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

import msgspec

from callboard.actors.speech import Line
from callboard.infra import subjects
from callboard.infra.connection import Connection
from callboard.infra.messages.control import Said, SaidQuery
from callboard.infra.messages.tokens import TakeUp, Tokens

LIMIT: Final = 1_000_000
"""Characters that may wait for a slow reader; what is said beyond them is fetched or left out."""
_ASK_EVERY: Final = 0.25
_KEPT: Final = 125_000
"""Characters of an answer that are kept for whoever goes on with it; each has up to 4 bytes."""
_ENDED: Final = 32
"""Answers that are kept though all was said: their hosts may die before the outcome is stored."""

_decode = msgspec.msgpack.Decoder(Tokens).decode
_decode_take_up = msgspec.msgpack.Decoder(TakeUp).decode
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
    """What has been heard of one answer, without a gap.

    Attributes:
        fence: attempt and beginning before which nothing counts any more.
        begun: attempt and beginning of what was heard; length: of that, in characters.
        repeats: it is another call's answer, said again.
    """

    __slots__ = ("_texts", "begun", "fence", "length", "repeats")

    def __init__(self) -> None:
        self.fence = self.begun = (0, 0)
        self.repeats = False
        self.begin(self.begun)

    def begin(self, begun: tuple[int, int]) -> None:
        """Nothing has been heard."""
        self.begun = begun
        self.length = 0
        self._texts: list[str] | None = []

    def add(self, text: str) -> None:
        """This, too."""
        self.length += len(text)
        if self.length > _KEPT:
            self.forget()
        elif self._texts is not None:
            self._texts.append(text)

    def forget(self) -> None:
        """Keep the text no longer."""
        self._texts = None

    @property
    def text(self) -> str:
        """All of it; empty if it is not kept."""
        return "".join(self._texts or ())


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
        self._all = path == "*"
        self._on_news = on_news
        self._heard: dict[str, _Heard] = {}
        self._ended: deque[_Heard] = deque()
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
            if reply:
                self.tell(_decode_take_up(data), reply.decode())
                return
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

    def tell(self, asked: TakeUp, reply: str) -> None:
        """Tell somebody who is to go on with an answer what was heard; who said it is heard no more."""
        heard = self._heard.setdefault(asked.future, _Heard())
        heard.fence = max(heard.fence, (asked.attempt, asked.begun))
        text = "" if heard.repeats else heard.text  # another model's text is none to go on with
        told = Tokens(asked.future, *heard.begun, text=text)
        self._line.publish(reply, msgspec.msgpack.encode(told))

    def hear(self, said: Tokens) -> None:
        """Take up what is new of a piece."""
        heard = self._heard.setdefault(said.future, _Heard())
        begun = (said.attempt, said.begun)
        if begun < heard.fence:
            return  # a fenced one still speaks
        heard.fence = begun
        if begun != heard.begun:
            self._begin(said, heard)
        heard.repeats = bool(said.repeats)
        if heard.repeats and self._all:
            return
        fresh = said.text[max(0, heard.length - said.at) :]
        missed = said.at > heard.length
        if missed or self._waiting + len(fresh) > LIMIT:
            if said.last:
                self._put(said, "", lost=True)
            elif missed:
                self.ask()
            return
        heard.add(fresh)
        if said.last:
            self._ended.append(heard)
            if len(self._ended) > _ENDED:
                self._ended.popleft().forget()
        if fresh or said.last:
            self._put(said, fresh)

    def _begin(self, said: Tokens, heard: _Heard) -> None:
        """Hear another one from now on, behind what was heard if that is what it goes on with."""
        before, begun = heard.begun, (said.attempt, said.begun)
        if said.after and said.after == before[1] and heard.length <= said.kept:
            heard.begun = begun
            return
        heard.begin(begun)
        if before != (0, 0):
            self._put(said, "", reset=True)

    def _put(self, said: Tokens, text: str, *, reset: bool = False, lost: bool = False) -> None:
        """Add to what waits for the reader, one piece for each answer."""
        piece = self._unread.get(said.future)
        if piece is None:
            piece = self._unread[said.future] = Piece(future=said.future)
        if reset:
            self._waiting -= len(piece.text)
            piece.text, piece.reset = "", True
        piece.text += text
        piece.attempt = said.attempt
        piece.done, piece.lost = said.last and not reset, lost
        self._waiting += len(text)
        self._on_news()
