"""Priorities that policies give to sessions, as makers and mailboxes follow them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from callboard.actors.addressing import band_of
from callboard.actors.entries import PREFIX, Newest
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.messages.policy import Priority

if TYPE_CHECKING:
    from callboard.actors.future import Future
    from callboard.actors.inbound import Call
    from callboard.actors.node import Node

MOST = 1 << 15
_PREFIX = f"{PREFIX}priority."
_decode = msgspec.msgpack.Decoder(Priority).decode


class Priorities:
    """The priorities that hold now.

    Args:
        node: of this process, open.
        changed: told, once in a turn of the event loop, which sessions have got another one.
        spawn: runs a coroutine on the side.
    """

    def __init__(self, node: Node, changed: Callable[[set[str]], None], spawn: Callable[..., object]) -> None:
        self._node = node
        self._changed = changed
        self._fresh: set[str] = set()
        self._newest = Newest(node, "priority", _calls_of, read_priority, spawn, self._heard)
        self._priorities = self._newest.held

    async def start(self) -> None:
        """Hear of priorities from now on, and read what there is. Idempotent."""
        await self._newest.start()

    def stop(self) -> None:
        """Idempotent."""
        self._newest.stop()

    def __len__(self) -> int:
        return len(self._priorities)

    def of(self, actor: str, session: str) -> Priority | None:
        """The one that holds for calls of a session at an actor, if any does."""
        return decided(self._priorities, actor, session)

    def rank(self, future: Future[object]) -> None:
        """A call is about to be sent."""
        found = self.of(future.method.actor, future.session)
        if found is not None:
            future.priority, future.ranked = found.value, found.epoch

    def apply(self, call: Call) -> bool:
        """A call waits here; whether it has got another priority."""
        found = self.of(call.method.actor, call.session)
        if found is None or call.priority == found.value:
            return False
        call.priority, call.band = found.value, band_of(found.value)
        call.headers |= {H.PRIORITY: str(found.value), H.RANKED: str(found.epoch)}
        return True

    def _heard(self, priority: Priority) -> None:
        if not self._fresh:
            self._node.loop.call_soon(self._tell)
        self._fresh.add(priority.session)

    def _tell(self) -> None:
        fresh, self._fresh = self._fresh, set()
        self._changed(fresh)


def decided(priorities: Mapping[tuple[str, str], Priority], actor: str, session: str) -> Priority | None:
    """Of these priorities, by session and actor, the one that holds for calls of a session at an actor."""
    if not priorities:
        return None
    return priorities.get((session, actor)) or priorities.get((session, ""))


def read_priority(subject: str, body: bytes) -> Priority | None:
    """A stored priority; None for what is none, whoever has put it there."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    usable = abs(found.value) < MOST and (found.session, found.actor) == _calls_of(subject)
    return found if usable else None


def _calls_of(subject: str) -> tuple[str, str]:
    """Session and actor that a key is about."""
    session, _, actor = subject.removeprefix(_PREFIX).partition(".")
    try:
        return subjects.session_of(session), actor
    except ValueError:  # no base64: not written here
        return session, actor
