"""Looks at an engine while a host serves its model: how busy it is, and how many requests may be in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from callboard.actors.models.load import EngineLoad, TellsLoad
from callboard.actors.models.room import MOST, Room
from callboard.infra import log
from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from callboard.actors.instance import Instance

_BUSY: Final = 0.5
"""Seconds between two looks; each takes some milliseconds of the engine's server."""
_IDLE: Final = 2.0
_SOON: Final = 0.1
"""The same while all room is used up, and nobody knows how much more there is."""


class Gauge:
    """Keeps the slots of an instance at what its engine can batch.

    Args:
        instance: of the model; its ``engine`` is what was seen last.
        on_silence: awaited when the engine does not tell; it may be down.
    """

    def __init__(
        self, instance: Instance, engine: TellsLoad, on_silence: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._instance = instance
        self._engine = engine
        self._on_silence = on_silence
        self._room = Room(instance.declared.directives.concurrency or MOST)
        self._slots = instance.slots.size
        self._told = False
        self._queried = 0
        self._looked = 0.0
        self._task: asyncio.Task[None] | None = None
        self._log = log.get("engine").bind(model=instance.name)

    async def start(self) -> None:
        """Look once, and go on unless the engine tells nothing."""
        try:
            load = await self._engine.load()
        except CallboardError as error:  # it may tell later
            self._log.warning("engine_load_unknown", error=error.message)
            await self._silent()
        else:
            if self._tells_nothing(load):
                return
            self._instance.engine = load
        self._instance.resize(self._room.size)
        self._looked = asyncio.get_running_loop().time()
        self._task = asyncio.Task(self._go_on(), loop=asyncio.get_running_loop())

    def stop(self) -> None:
        """Idempotent."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _go_on(self) -> None:
        while True:
            soon = await self._wait()
            try:
                load = await self._engine.load()
            except CallboardError as error:
                self._log.debug("engine_load_unknown", error=error.message)
                load = None
                await self._silent()
            else:
                if self._tells_nothing(load):
                    return
            if not soon:
                self._looked = asyncio.get_running_loop().time()
            self._instance.engine = load
            if load is not None:
                self._follow(load, soon=soon)

    async def _wait(self) -> bool:
        """Until the next look, since an engine can only be asked; whether that comes before its time."""
        slots, loop = self._instance.slots, asyncio.get_running_loop()
        due = self._looked + (_BUSY if slots.busy > 0 else _IDLE)
        while (left := due - loop.time()) > 0:
            await asyncio.sleep(min(_SOON, left) if self._room.is_sought else left)
            told = self._instance.engine is not None
            if told and self._room.is_sought and slots.busy >= slots.size and loop.time() < due:
                return True
        return False

    async def _silent(self) -> None:
        if self._on_silence is not None:
            await self._on_silence()

    def _tells_nothing(self, load: EngineLoad | None) -> bool:
        """Whether it has answered, and never told how busy it is: then it has the slots of any actor."""
        self._told = self._told or load is not None
        if self._told:
            return False
        self._log.info("engine_tells_no_load", slots=self._slots)
        self._instance.resize(self._slots)
        return True

    def _follow(self, load: EngineLoad, *, soon: bool) -> None:
        if load.queried < self._queried:  # its counts have begun anew, and so has its cache
            self._instance.host.prefixes.lost(self._instance.name)
        self._queried = load.queried
        before = self._instance.slots.size
        look = self._room.glance if soon else self._room.look
        size = look(load, self._instance.slots.busy)
        if size != before:
            self._looked = asyncio.get_running_loop().time()  # what has been let in shows later
            self._log.debug(
                "engine_room", slots=size, before=before, running=load.running, waiting=load.waiting
            )
            self._instance.resize(size)
