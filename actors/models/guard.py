"""What stands between an instance of a model and its engine: the gauge, the breaker and the throttle."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from callboard.actors.models.breaker import Answers, Breaker
from callboard.actors.models.engine import Engine
from callboard.actors.models.gauge import Gauge
from callboard.actors.models.load import TellsLoad
from callboard.actors.models.throttle import Throttle
from callboard.infra.errors import EngineDown, RateLimited

if TYPE_CHECKING:
    from callboard.actors.instance import Instance


class Guard:
    """Looks after the engine of one instance.

    Args:
        instance: of the model; engine: of its host.
    """

    def __init__(self, instance: Instance, engine: Engine) -> None:
        self._throttle = Throttle(instance)
        self._breaker = Breaker(instance, engine) if isinstance(engine, Answers) else None
        look = None if self._breaker is None else self._breaker.look
        self._gauge = Gauge(instance, engine, look) if isinstance(engine, TellsLoad) else None

    async def start(self) -> None:
        """Look for the first time."""
        if self._gauge is not None:
            await self._gauge.start()

    def stop(self) -> None:
        """Idempotent."""
        for part in (self._gauge, self._breaker, self._throttle):
            if part is not None:
                part.stop()

    @contextlib.asynccontextmanager
    async def around(self, begun: Callable[[], bool]) -> AsyncIterator[None]:
        """Around the requests of one attempt.

        Args:
            begun: whether something was said of its answer.
        """
        began = self._throttle.began()
        try:
            yield
        except RateLimited as error:
            self._throttle.refused(error, began)
            raise
        except EngineDown as error:
            if self._breaker is not None:
                await self._breaker.failed(error, begun=begun())
            raise
