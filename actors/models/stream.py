"""An answer heard while it is said."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from typing import Any, Generic, Self, TypeVar, cast

from callboard.actors.future import Future, running_loop
from callboard.actors.listening import Listener, Piece
from callboard.actors.models.types import ChatResult, Completion
from callboard.actors.speech import Line

R = TypeVar("R", bound=ChatResult[Any] | Completion)


class AnswerStream(Generic[R]):
    """The pieces of an answer, and its result; made by ``model.stream`` and ``model.stream_completion``.

    ``async for piece in stream`` ends when the answer is complete; in a plain ``def`` workflow it is
    ``for``. The texts of the pieces since the last one with ``reset`` are the text of the result, whatever
    was lost on the way: what was not heard comes with the last piece. Iterate once. Pieces are not
    recorded: a run that is taken over may hear the same text in other pieces, so calls must not depend
    on how it was cut.

    Attributes:
        future: of the result.
    """

    def __init__(self, future: Future[R]) -> None:
        self.future = future
        self._loop = future.get_loop()
        self._news: asyncio.Event | None = None
        self._said: list[str] = []
        self._over = False
        self._listener: Listener | None = None
        if running_loop() is self._loop:
            self._listen()
        else:
            self._loop.call_soon_threadsafe(self._listen)

    async def result(self) -> R:
        """The whole answer; see :class:`Model` for errors."""
        return await self.future

    def cancel(self) -> bool:
        """Stop the answer, at the engine too; False if it is complete already."""
        return self.future.cancel()

    def _listen(self) -> None:
        run, _, path = self.future.id.partition(":")
        line = cast("Line", cast("Any", self.future.maker).line)
        self._news = asyncio.Event()
        if not self.future.done():
            self._listener = Listener(line, run, path, self._news.set)
        self.future.when_done(self._done)

    def _done(self, _: Future[Any]) -> None:
        assert self._news is not None
        if self._listener is not None:
            self._listener.stop()  # also where nobody reads to the end
        self._news.set()

    def _waits(self, _: Future[Any]) -> None:
        """Be one who waits for the call: a handler lends its slot meanwhile."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        """The next piece.

        Raises:
            CallboardError: the call has failed.
        """
        while True:
            assert self._news is not None
            self._news.clear()
            piece = self._listener.take() if self._listener is not None else None
            if self.future.done():
                return self._last(piece)
            if piece is not None and (piece.text or piece.reset):
                return self._heard(piece)
            self.future.add_done_callback(self._waits)
            try:
                await self._news.wait()
            finally:
                self.future.remove_done_callback(self._waits)

    def _heard(self, piece: Piece) -> Piece:
        """Note what the reader is given."""
        if piece.reset:
            self._said.clear()
        self._said.append(piece.text)
        piece.done = piece.lost = False  # that is for those who do not hear of the result
        return piece

    def _last(self, piece: Piece | None) -> Piece:
        """What the reader has not been given yet, now that the result is there."""
        if self._over:
            raise StopAsyncIteration
        self._over = True
        text = self.future.result().text
        said = "".join(self._said)
        self._said.clear()
        reset = not text.startswith(said) or (piece is not None and piece.reset)
        rest = text if reset else text[len(said) :]
        return Piece(rest, self.future.id, self.future.attempt, reset=reset, done=True)

    def __iter__(self) -> Iterator[Piece]:
        """The same in a plain ``def`` workflow."""
        outside = contextvars.Context()  # in the workflow's own this would count as a branch of it
        while True:
            waiting = outside.run(asyncio.run_coroutine_threadsafe, self._next(), self._loop)
            try:
                yield waiting.result()
            except StopAsyncIteration:
                return

    async def _next(self) -> Piece:
        return await self.__anext__()
