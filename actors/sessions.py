"""The sessions of a stateful agent: one call at a time in each, in order of arrival.

One exception: a call that was made, at any depth, by the very call that holds the session may start while
the holder waits for it; otherwise the two would wait for each other for ever.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from callboard.infra.errors import SessionHeld

if TYPE_CHECKING:
    from callboard.actors.declared import Method
    from callboard.actors.inbound import Call


def held(method: Method, session: str) -> SessionHeld:
    """The error for a call that would wait for the end of the one that waits for it."""
    return SessionHeld(
        f"{method.where} was not started: a call that made it holds session {session} at {method.actor}, and "
        "its state has one writer at a time: call the method on 'self', without the stub",
        actor=method.actor,
        session=session,
    )


def _made_by(call: Call, holder: Call) -> bool:
    """Whether the handler of the holder has made a call, at any depth: perhaps one that serves a batch.

    Such a handler makes all its calls under the id of one of its items, whichever item they are for.
    """
    if call.is_made_by(holder):
        return True
    maker = holder.slot.maker if holder.slot is not None else None
    return maker is not None and call.id.startswith(f"{maker.path}.")


class _Session:
    __slots__ = ("behind", "holders")

    def __init__(self) -> None:
        self.holders: list[Call] = []  # each one was made by the one before
        self.behind: deque[Call] = deque()

    def lets_in(self, call: Call) -> bool:
        if not self.holders:
            return True
        last = self.holders[-1]
        return last.slot is not None and last.slot.lent and _made_by(call, last)


class Sessions:
    """Which calls of a stateful agent may start."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}

    def enter(self, call: Call) -> bool:
        """Whether a call that has come may start; if not it is kept behind the others of its session."""
        session = self._sessions.setdefault(call.session, _Session())
        if session.lets_in(call):
            session.holders.append(call)
            return True
        session.behind.append(call)
        return False

    def is_held_for(self, call: Call) -> bool:
        """Whether a call that has made this one, at any depth, holds its session."""
        session = self._sessions.get(call.session)
        return session is not None and any(_made_by(call, holder) for holder in session.holders)

    def next(self, name: str) -> Call | None:
        """The next call of a session that may start now, if there is one."""
        session = self._sessions.get(name)
        if session is None:
            return None
        call = next((call for call in session.behind if session.lets_in(call)), None)
        if call is not None:
            session.behind.remove(call)
            session.holders.append(call)
        elif not session.holders:
            del self._sessions[name]
        return call

    def running(self, name: str) -> list[Call]:
        """The calls of a session that hold it."""
        session = self._sessions.get(name)
        return [] if session is None else list(session.holders)

    def busy(self) -> list[str]:
        """The sessions that a call holds."""
        return [name for name, session in self._sessions.items() if session.holders]

    def withdraw(self, name: str) -> list[Call]:
        """Take the calls that wait behind others of their session, in their order."""
        session = self._sessions.get(name)
        if session is None:
            return []
        behind = list(session.behind)
        session.behind.clear()
        if not session.holders:
            del self._sessions[name]
        return behind

    def leave(self, call: Call) -> None:
        """A call has ended, or has been given back."""
        session = self._sessions.get(call.session)
        if session is not None and call in session.holders:
            session.holders.remove(call)
