"""How many requests an engine is given that has refused some with status 429: as many as it took before.

Nothing starts before its ``Retry-After`` has passed. Then, in each span of that length, as many requests
start as it took in the one before the refusal, and an eighth more (one at least) after each span without
one; once that is as many as there are slots, all is as before. (Additive increase, and decrease to what was
measured instead of by half: how many requests are open says little of a limit of requests in a time.) The
rest waits on the board.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Final

from callboard.infra import log
from callboard.infra.errors import RateLimited

if TYPE_CHECKING:
    from callboard.actors.instance import Instance

_SHORTEST: Final = 0.1
"""Seconds of a span at least, whatever the engine says."""
_LONGEST: Final = 60.0
"""Seconds after which it is tried again at the latest, whatever the engine says."""
_SPREAD: Final = 0.5
"""Seconds over which calls that were refused together come back."""
_MARGIN: Final = 1.05
"""By how much a span is longer than the engine's: requests are under way for longer or shorter."""
_MORE: Final = 8
_REMEMBERED: Final = 4096


class Throttle:
    """Limits how many calls of an instance start, while its engine refuses some.

    Args:
        instance: of the model.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._begun: deque[float] = deque(maxlen=_REMEMBERED)
        """When requests began that were not refused, as far as is known; by the event loop's clock."""
        self._since = 0.0
        """From when on requests count as what the engine took before it refused some."""
        self._span = 0.0
        self._limit = 0
        """Requests of a span; 0: as many as there are slots for."""
        self._refused = False
        self._timer: asyncio.TimerHandle | None = None
        self._log = log.get("engine").bind(model=instance.name)

    def stop(self) -> None:
        """Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def began(self) -> float:
        """A request begins; gives when, to be told if it is refused."""
        now = asyncio.get_running_loop().time()
        self._begun.append(now)
        return now

    def refused(self, error: RateLimited, began: float) -> None:
        """A request was refused: fewer begin. It is repeated later, uncounted, if calls have retries."""
        wait: float = error.fields.get("retry_after", 0.0)
        if self._instance.declared.directives.retries:
            error.again_in = wait + random.uniform(0.0, _SPREAD)
        if began in self._begun:
            self._begun.remove(began)
        now = asyncio.get_running_loop().time()
        span = min(_LONGEST, max(_SHORTEST, wait))
        if not self._refused:
            self._refused = True
            self._span = span
            self._since = now - span
            self._instance.allow(0)
            tell = self._log.debug if self._limit else self._log.warning
            tell("engine_refuses", for_s=round(span, 2))
        elif self._timer is not None and now + _MARGIN * span <= self._timer.when():
            return
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(_MARGIN * span, self._next)

    def _next(self) -> None:
        """A span is over."""
        if self._refused:
            self._limit = max(1, sum(began >= self._since for began in self._begun))
            self._log.debug("engine_takes", requests=self._limit, in_s=round(self._span, 2))
        else:
            self._limit += max(1, self._limit // _MORE)
        self._refused = False
        if self._limit >= self._instance.slots.size:
            self._limit, self._timer = 0, None
            self._log.info("engine_refuses_no_more")
            self._instance.allow(None)
            return
        self._timer = asyncio.get_running_loop().call_later(_MARGIN * self._span, self._next)
        self._instance.allow(self._limit)
