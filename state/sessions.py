"""The sessions whose state this process has open."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine

from callboard.infra import log
from callboard.infra.errors import CallboardError
from callboard.infra.settings import Settings
from callboard.state.session import Rules, Session
from callboard.state.shelf import Place, Shelf

KEPT = 1024
"""Sessions that stay open after their calls."""


class Sessions:
    """Opens sessions, and keeps them so that the next call needs to read nothing.

    Args:
        shelf: where they lie.
        settings: of this process.
        most: sessions that are kept open.
    """

    def __init__(self, shelf: Shelf, settings: Settings, most: int = KEPT) -> None:
        self.shelf = shelf
        self._settings = settings
        self._most = most
        self._open: OrderedDict[Place, Session] = OrderedDict()
        self._opening: dict[Place, asyncio.Task[Session | None]] = {}
        self._loads: set[asyncio.Task[Session | None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._log = log.get("state")

    async def open(self, actor: str, session: str, rules: Rules) -> Session:
        """A session's state at an actor, read only if this process has not got it.

        Somebody else may have written since: then :meth:`Session.commit` raises ``Fenced``, and the
        next ``open`` reads anew.

        Raises:
            StateIncompatible: an attribute is of another kind in the code.
            StateDamaged: something is missing.
        """
        place = Place(actor, session)
        while True:
            if (known := self.opened(place, rules)) is not None:
                return known
            opening = self._opening.get(place)
            if opening is None:
                made = Session(place, self.shelf, rules, self._settings, self._in_background)
                opening = asyncio.get_running_loop().create_task(self._load(place, made))
                self._opening[place] = opening
                self._loads.add(opening)
                opening.add_done_callback(self._loads.discard)
            if (read := await asyncio.shield(opening)) is not None:
                return read

    def opened(self, place: Place, rules: Rules) -> Session | None:
        """A session's state if this process has it open; nothing is read."""
        known = self._open.get(place)
        if known is None or known.lost or known.expired or known.rules != rules:
            return None
        self._open.move_to_end(place)
        return known

    async def _load(self, place: Place, session: Session) -> Session | None:
        """Read a session and keep it; None if it was forgotten meanwhile.

        It is kept in the very step in which it is not being read any more: there are never two of one place.
        """
        this = asyncio.current_task()
        try:
            await session.load()
        except Exception:
            if self._opening.get(place) is not this:
                return None
            del self._opening[place]
            raise
        if self._opening.get(place) is not this:
            return None
        del self._opening[place]
        self._keep(place, session)
        return session

    def _keep(self, place: Place, session: Session) -> None:
        self._open[place] = session
        self._open.move_to_end(place)
        for old in list(self._open)[: max(len(self._open) - self._most, 0)]:
            if not self._open[old].busy:
                del self._open[old]

    def held(self, place: Place) -> Session | None:
        """A session that is open here, and has a call; nothing is read."""
        known = self._open.get(place)
        return known if known is not None and known.busy else None

    def forget(self, actor: str, session: str) -> None:
        """Have a session read anew when it is next opened, also where it is being read now."""
        self._open.pop(Place(actor, session), None)
        self._opening.pop(Place(actor, session), None)

    def outdated(self, actor: str, session: str, epoch: int) -> None:
        """Somebody has become the holder with this epoch: what was read before is read anew."""
        known = self._open.get(Place(actor, session))
        if known is not None and known.epoch < epoch and not known.busy:
            self.forget(actor, session)

    async def delete(self, actor: str, session: str) -> None:
        """Remove every trace of a session's state; a holder elsewhere is fenced."""
        self.forget(actor, session)
        await self.shelf.erase(Place(actor, session))

    async def idle(self) -> None:
        """Wait until parts that are not needed any more have been removed."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        """Stop removing what is not needed any more; the next fold goes on with it. Idempotent."""
        tasks = (*self._tasks, *self._loads)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._open.clear()
        self._opening.clear()

    def _in_background(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        async def guarded() -> None:
            try:
                await work()
            except CallboardError as error:
                self._log.warning("parts_not_removed", reason=error.message)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
