"""Effects without NATS: once for each key of a run, and unknown where the handler has not said its word.

The same as in hosts (``intents.py``), as far as this process lives: what it began is forgotten with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from callboard.actors.effects import current_key, unknown
from callboard.infra.errors import CallTimeout, InvalidResult, NotDone, OutcomeUnknown

if TYPE_CHECKING:
    from callboard.actors.declared import Method
    from callboard.actors.values import Encoded

LocalEffects = dict[tuple[str, str], "_Begun"]
"""The newest intent of each effect of a run, by ``actor.method`` and key."""

_Encoded = Callable[[], Awaitable["Encoded"]]


class _Begun:
    """An effect that was begun.

    Attributes:
        intent: future and attempt; at: unix seconds.
        ended: there is no more to come; value: encoded, None if there is none.
        unknown: nobody knows how it has ended.
    """

    def __init__(self, intent: str) -> None:
        self.intent = intent
        self.at = time.time()
        self.ended = asyncio.Event()
        self.value: Encoded | None = None
        self.unknown = False


class LocalClaim:
    """One call's way to its effect.

    Args:
        effects: of the run; method: with the effect.
        future: id of the call; attempt: which one; arguments: by name.
    """

    def __init__(
        self, effects: LocalEffects, method: Method, future: str, attempt: int, arguments: dict[str, Any]
    ) -> None:
        assert method.effect is not None
        self._effects = effects
        self._method = method
        self._key = method.effect.key(arguments)
        self._intent = f"{future}~{attempt}"
        self._place = (method.where, self._key or future)
        current_key.set(self._key or future)

    async def settle(self, handler: _Encoded, reconcile: _Encoded) -> Encoded:
        """The encoded value: of the handler, or as it is known.

        Raises:
            OutcomeUnknown: it was begun, and nobody knows how it has ended.
        """
        while (earlier := self._effects.get(self._place)) is not None:
            if not earlier.ended.is_set():
                await earlier.ended.wait()
                continue  # somebody else may have begun it anew
            if earlier.value is not None:
                return earlier.value
            if not earlier.unknown:
                break
            known = await self._reconciled(earlier, reconcile)
            if known is not None:
                return known
            if self._effects.get(self._place) is earlier:
                break
        return await self._run(handler)

    async def _run(self, handler: _Encoded) -> Encoded:
        begun = self._effects[self._place] = _Begun(self._intent)
        begun.unknown = True
        try:
            begun.value = await handler()
        except (CallTimeout, InvalidResult) as error:
            raise self._told(begun, error) from error
        except OutcomeUnknown:
            raise
        except (Exception, SystemExit):
            begun.unknown = False
            raise
        else:
            return begun.value
        finally:
            begun.ended.set()

    async def _reconciled(self, earlier: _Begun, reconcile: _Encoded) -> Encoded | None:
        if self._method.reconcile is None:
            raise self._told(earlier)
        try:
            return await reconcile()
        except NotDone:
            return None
        except (Exception, SystemExit) as error:
            raise self._told(earlier, error) from error

    def _told(self, begun: _Begun, cause: BaseException | None = None) -> OutcomeUnknown:
        return unknown(self._method.where, begun.intent, self._key, "", begun.at, cause)
