"""The sessions whose state this process has open."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine

from callboard.infra import log
from callboard.infra.errors import CallboardError, Fenced
from callboard.infra.settings import Settings
from callboard.state.session import Rules, Session
from callboard.state.shelf import Place, Shelf

KEPT = 1024
"""Sessions that stay open after their calls."""
_REST = 1.0
"""Seconds without a commit after which a session is folded."""


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
        self._folding: asyncio.Task[None] | None = None
        self._in_fold: Session | None = None
        self._looked = asyncio.Event()
        self.fenced: Callable[[Place], None] = lambda _: None
        """Told of a session that turns out to be another holder's, or deleted, while it is folded."""
        self._log = log.get("state")

    def start(self) -> None:
        """From now on, fold what rests, so that it is opened elsewhere with one read. Idempotent."""
        if self._folding is None:
            self._folding = asyncio.get_running_loop().create_task(self._fold_resting())

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
            if self._in_fold is not None and self._in_fold.place == place and self._in_fold.folding:
                await self._in_fold.folded()  # what is read before that would be outdated
                continue
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
            if not (self._open[old].busy or self._open[old].folding):
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

    async def _fold_resting(self) -> None:
        while True:
            await asyncio.sleep(_REST)
            since = time.monotonic() - _REST
            for session in [one for one in self._open.values() if one.rests(since)]:
                if self._open.get(session.place) is session and session.rests(since):
                    await self._fold(session)
            self._looked.set()
            self._looked.clear()

    async def _fold(self, session: Session) -> None:
        self._in_fold = session
        try:
            await session.fold()
        except Fenced:
            if self._open.get(session.place) is session:
                self.fenced(session.place)
        except CallboardError as error:
            self._log.warning("not_folded", actor=session.actor, session=session.id, reason=error.message)
        except Exception as error:  # noqa: BLE001 - the others are to be folded still
            self._log.error("not_folded", actor=session.actor, session=session.id, exc_info=error)
        finally:
            self._in_fold = None

    async def rested(self) -> None:
        """Wait until all open sessions are folded, or folding is stopped. Nobody may write meanwhile."""
        while self._folding is not None and any(one.to_fold for one in self._open.values()):
            await self._looked.wait()
        await self.idle()

    async def stop(self) -> None:
        """Stop folding, and removing what is not needed any more; the next head removes it. Idempotent."""
        folding, self._folding = self._folding, None
        tasks = (*self._tasks, *self._loads, *([folding] if folding else []))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._open.clear()
        self._opening.clear()
        self._looked.set()

    def _in_background(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        async def guarded() -> None:
            try:
                await work()
            except CallboardError as error:
                self._log.warning("parts_not_removed", reason=error.message)

        task = asyncio.get_running_loop().create_task(guarded(), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
