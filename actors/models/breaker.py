"""A circuit breaker between a host and its engine: one that does not answer gets no calls others can take.

A dead engine fails each call within milliseconds, so that its host has free slots all the time, and would
pull one call after the other. While the breaker is open and another host of the model is well, its host
stands by: what it has not begun goes back to the board. Whether the engine answers again is asked of the
engine, not tried with calls (Nygard, "Release It!", 2007, with a question in the place of the half-open
state). Where no other host is well, calls are tried as ever: they get their retries, and in the end their
error.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from callboard.actors.models.engine_errors import GONE
from callboard.infra import log
from callboard.infra.errors import EngineDown

if TYPE_CHECKING:
    from callboard.actors.instance import Instance

_EVERY: Final = 0.5
"""Seconds between two questions whether it answers again."""
_SOON: Final = 0.1
"""Seconds until a call that failed here goes to another host, at most."""
_HELD: Final = 1.0
"""Seconds for which a failed attempt waits to know whether the engine is there, at most."""
_WHY: Final = "engine_down"


@runtime_checkable
class Answers(Protocol):
    """An engine that can be asked whether it is there; not all can, so this is no part of the port."""

    async def answers(self) -> bool:
        """Whether it is there, and not only about to be; told within some seconds."""
        ...


class Breaker:
    """Stands between an instance of a model and its engine.

    Args:
        instance: of the model; engine: of its host.
    """

    def __init__(self, instance: Instance, engine: Answers) -> None:
        self._instance = instance
        self._engine = engine
        self._asking: asyncio.Task[None] | None = None
        self._open: asyncio.Task[None] | None = None
        self._log = log.get("engine").bind(model=instance.name)

    def stop(self) -> None:
        """Idempotent."""
        for task in (self._asking, self._open):
            if task is not None:
                task.cancel()
        self._asking = self._open = None

    async def failed(self, error: EngineDown, *, begun: bool) -> None:
        """An attempt has failed. If the engine is not there while another host's is, it goes there uncounted.

        Args:
            begun: something was said of the answer; then it counts.
        """
        if error.fields.get("status", 0) not in GONE:
            return
        await self.look(_HELD)
        if self._instance.down and not begun and self._others_are_well():
            error.again_in = random.uniform(_SOON / 2, _SOON)

    async def look(self, patience: float | None = None) -> None:
        """Ask the engine whether it is there, unless it is known not to be; all who want to know ask once.

        Args:
            patience: seconds after which who asks goes on without having heard.
        """
        if self._open is not None:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.Task(self._ask(), loop=asyncio.get_running_loop())
        await asyncio.wait([self._asking], timeout=patience)

    async def _ask(self) -> None:
        if await self._answers():
            return
        self._log.warning("engine_down", asked_again_every_s=_EVERY)
        self._instance.down = True
        self._stand_by()
        self._open = asyncio.Task(self._until_it_answers(), loop=asyncio.get_running_loop())

    async def _until_it_answers(self) -> None:
        answers = False
        while not answers:
            await asyncio.sleep(_EVERY)  # an engine can only be asked
            self._stand_by()
            answers = await self._answers()
        self._log.info("engine_answers_again")
        self._open = None
        self._instance.down = False
        self._instance.set_standby(standby=False, why=_WHY)

    async def _answers(self) -> bool:
        """Whether the engine is there; where that cannot be asked, calls find out."""
        try:
            return await self._engine.answers()
        except Exception:  # noqa: BLE001 - a host that stands by must not do so for good
            self._log.exception("engine_cannot_be_asked")
            return True

    def _stand_by(self) -> None:
        """Leave calls to others, if there are some."""
        self._instance.set_standby(standby=self._others_are_well(), why=_WHY)

    def _others_are_well(self) -> bool:
        host, actor = self._instance.host, self._instance.name
        return any(one != host.id and host.watch.serves(one, actor) for one in list(host.watch.alive))
