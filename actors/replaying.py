"""The maker of a replay: calls get their outcomes on record, and none is sent."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from callboard.actors.future import Future
from callboard.actors.maker import CallMaker
from callboard.actors.speech import LocalLine

if TYPE_CHECKING:
    from callboard.actors.addressing import CallContext
    from callboard.actors.caller import Caller
    from callboard.actors.values import Encoded
    from callboard.infra.messages.run import Result

T = TypeVar("T")

OnGiven = Callable[[str, Any], None]
"""Told of an outcome that the code has been given: the future's id, and the value or the exception."""


class ReplayFuture(Future[T]):
    """A call of a replay; its maker knows whether anybody waits for it.

    All waiting (``await``, ``gather``, ``asyncio.wait``, a thread's ``value``) adds a callback, and removes
    it on giving up.
    """

    __slots__ = ()

    def add_done_callback(
        self, callback: Callable[[Self], object], /, *, context: contextvars.Context | None = None
    ) -> None:
        """As of any future."""
        if not self.done():
            self.maker.awaited[self.id] = self.maker.awaited.get(self.id, 0) + 1  # type: ignore[attr-defined]
        super().add_done_callback(callback, context=context)

    def remove_done_callback(self, callback: Callable[[Self], object], /) -> int:
        """As of any future."""
        removed = super().remove_done_callback(callback)
        if removed and not self.done():
            self.maker.awaited[self.id] -= removed  # type: ignore[attr-defined]
        return removed


class ReplayMaker(CallMaker):
    """Gives the code of a run what is on record of it.

    It is a maker that has left its run to others, as that of a driver is that was fenced off: so whatever the
    code does reaches nobody.

    Args:
        caller: of a process that only looks; context: of the run.
        on_given: told of each outcome, in the order in which the code is given them.

    Attributes:
        moves: grows whenever the code does something.
        awaited: how many wait for each call that is open.
        arguments: of each call, by its id, as plain values; a future among them is its path in ``<>``.
        unrecorded: places where the code asked for a time that is not on record.
    """

    future_class = ReplayFuture

    def __init__(self, caller: Caller, context: CallContext, on_given: OnGiven) -> None:
        super().__init__(caller, context)
        self.abandon()
        self.moves = 0
        self.awaited: dict[str, int] = {}
        self.arguments: dict[str, Any] = {}
        self.unrecorded: list[str] = []
        self._on_given = on_given
        self._local_line = LocalLine()

    @property
    def line(self) -> LocalLine:
        """Nobody says anything again: an answer comes as a whole, as it was stored."""
        return self._local_line

    def go_over(self, results: Iterable[Result]) -> None:
        """Begin, with these outcomes on record."""
        self.go_on([], replaying=True)
        self.recorded.take_up(results)

    def stands(self, *, sync: bool) -> bool:
        """Whether the code waits, as far as can be seen, for what has no outcome on record.

        Args:
            sync: it runs in a thread, where it waits for nothing else without being seen.
        """
        if self.recorded.replaying or self._expanding or not self.open:
            return False
        waits = self.waits is not None and bool(self.waits.open)
        return waits or not sync or any(self.awaited.get(future) for future in self.open)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody is seen to wait for a call or a wait that is open."""
        return self.stands(sync=True)

    def remember(self, future_id: str, what: str, make: Callable[[], T]) -> T:
        """A value on record; one that is not is made anew, and noted."""
        known = self.recorded.come_by(future_id) is not None
        value = super().remember(future_id, what, make)
        if self.on_loop():
            self._remembered(future_id, value, known=known)
        else:
            self.loop.call_soon_threadsafe(lambda: self._remembered(future_id, value, known=known))
        return value

    def _remembered(self, future_id: str, value: Any, *, known: bool) -> None:
        self.moves += 1
        if known:
            self._on_given(future_id, value)
        else:
            self.unrecorded.append(future_id)

    def _place(self, future: Future[Any], encoded: Encoded) -> None:
        self.moves += 1
        self.arguments[future.id] = _plain(encoded)
        future.when_done(self._given)  # before any of the code's own: so it is told before the code goes on
        super()._place(future, encoded)

    def enter(self, future: Future[Any]) -> bool:
        """A wait is a future like any other."""
        self.moves += 1
        future.when_done(self._given)
        return super().enter(future)

    def _given(self, future: Future[Any]) -> None:
        self.moves += 1
        self.awaited.pop(future.id, None)
        if not future.cancelled():
            self._on_given(future.id, future.exception() or future.result())

    def _dispatch(self, future: Future[Any], encoded: Encoded) -> None:
        future.sent = time.monotonic()  # it would have been


def _plain(encoded: Encoded) -> Any:
    """Arguments as plain values; None if they are none."""
    body = encoded.body
    for future, token in zip(encoded.futures, encoded.tokens, strict=True):
        body = body.replace(token, msgspec.msgpack.encode(f"<{future.id.partition(':')[2]}>"))
    try:
        return msgspec.msgpack.decode(body)
    except ValueError:
        return None
