"""What a stateful agent keeps in its process for a session, taken along when the session moves.

Such an agent has ``snapshot(self, session)`` and ``restore(self, session, value)``. Then each of its sessions
has one holder, as one with managed state has; what ``snapshot`` gives is stored with the commit that names
the next holder, and is void once a call has changed anything there.
"""

from __future__ import annotations

import asyncio
import inspect
import typing
from typing import TYPE_CHECKING, Any

from callboard.infra.errors import DeclarationInvalid

if TYPE_CHECKING:
    from callboard.actors.declared import AgentClass, Tool
    from callboard.actors.directives import Directives
    from callboard.actors.execute import Executor
    from callboard.state.session import Session

SNAPSHOT = "snapshot"
"""The attribute of a session's state that holds it; a method of the same name keeps others from having it."""
METHODS = ("snapshot", "restore")


def declared(cls: type, directives: Directives) -> bool:
    """Whether a class is that of a stateful agent whose sessions can move."""
    return directives.stateful and all(inspect.isfunction(getattr(cls, name, None)) for name in METHODS)


def check(cls: Any, actor: str) -> None:
    """See that both can be called as they will be.

    Raises:
        DeclarationInvalid: one takes other arguments.
    """
    for name, given in zip(METHODS, ((None, ""), (None, "", None)), strict=True):
        try:
            inspect.signature(getattr(cls, name)).bind(*given)
        except TypeError as error:
            raise DeclarationInvalid(
                f"{actor}.{name} cannot be called to move a session ({error}): declare "
                "'snapshot(self, session)' and 'restore(self, session, value)'"
            ) from error


class Snapshots:
    """Takes what one agent here keeps for a session, and gives it what another one kept.

    Args:
        declaration: of the agent; executor: has its instance.
    """

    def __init__(self, declaration: AgentClass[Any] | Tool[Any, Any], executor: Executor) -> None:
        from callboard.state.items import Codec

        self._executor = executor
        restore = getattr(getattr(declaration, "cls", None), "restore", None)
        given = list(inspect.signature(restore).parameters)[2] if restore is not None else ""
        annotation = typing.get_type_hints(restore).get(given, Any) if restore is not None else Any
        self._codec = Codec(f"{declaration.name}.restore", annotation)
        self._lock = asyncio.Lock()
        self.here: dict[str, int] = {}
        """The sessions that the agent here keeps things for, with the epoch from which on."""

    async def taken(self, session: Session) -> None:
        """Put what the agent keeps for a session into what is stored next.

        Raises:
            ItemInvalid: it is not what ``restore`` takes.
        """
        if self.here.get(session.id) != session.epoch:
            return  # it has not begun here: what it was brought with still counts
        value = await self._call("snapshot", session.id)
        turn = session.begin()
        turn.replace(SNAPSHOT, "value", [turn.cell(SNAPSHOT, self._codec, value, 0)])

    async def left(self, session: str) -> None:
        """The session is elsewhere: have the agent forget it, unless it has come back meanwhile."""
        self.here.pop(session, None)
        async with self._lock:
            if session not in self.here:
                await self._call("restore", session, None)

    def doubt(self, session: str) -> None:
        """Somebody else has written, or deleted the session: what the agent here has of it is void."""
        if session in self.here:
            self.here[session] = 0

    async def restored(self, session: Session) -> None:
        """See to it that the agent here has what the last holder kept for the session, once.

        If that one died, ``restore`` gets None: what this process may have of it is older.
        """
        async with self._lock:
            if self.here.get(session.id) == session.epoch:
                return
            if session.epoch > 1 or session.id in self.here:
                await self._call("restore", session.id, await self._brought(session))
            self.here[session.id] = session.epoch

    async def _brought(self, session: Session) -> Any:
        from callboard.state.tree import at, unread_between

        kept = session.kept.get(SNAPSHOT)
        if kept is None or kept.root is None:
            return None
        async with session.as_read():
            while missing := unread_between(kept.root, 0, kept.count):
                await session.read(missing)
        raw = at(kept.root, 0, session.read_now).raw
        return None if raw is None else self._codec.decode(raw)

    async def _call(self, name: str, *given: Any) -> Any:
        method = getattr(self._executor.agent, name)
        if inspect.iscoroutinefunction(method):
            return await method(*given)
        return await asyncio.to_thread(method, *given)
