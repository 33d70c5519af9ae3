"""Time-outs by expected run times, where a method declares none.

A run time that was never seen before is no proof of a fault. So many calls alike are known before one is
stopped, and only an attempt that another one follows is: what is slow for a reason of its own takes as long
as it takes at the last attempt. With ``timeout_last`` that one is stopped, too, and the call fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from callboard.actors.handler_maker import HandlerMaker
from callboard.actors.retry import retry_delay
from callboard.infra.errors import CallTimeout

if TYPE_CHECKING:
    from callboard.actors.inbound import Call
    from callboard.actors.instance import Instance
    from callboard.actors.scope import Scope

ENOUGH = 100
"""Calls with arguments of the same size that must have been seen: of fewer nobody knows the slowest."""

_LONGEST = 1e8  # anybody may write there


def patience(instance: Instance, call: Call) -> float:
    """Seconds that a call may take which nobody has given a time-out; 0: as many as it likes.

    They are ``timeout_factor`` times what 99 of 100 calls with arguments of its size take, and at least
    ``timeout_least``. An effect, a batch and a model, whose answers are as long as they are, may take as long
    as they like. So may, unless ``timeout_last`` is set, what has a deadline, and an attempt after whose
    time-out there would be no other.
    """
    settings, directives = instance.host.node.settings, call.method.directives
    own = directives.effect or directives.batchable or instance.declared.kind == "model"
    if not settings.timeout_factor or own:
        return 0.0
    expected = instance.host.expectations.of(call.method.where)
    line = expected.line(call.size) if expected is not None and call.size else None
    if line is None or line.count < ENOUGH or not 0 < line.p99 < _LONGEST:
        return 0.0
    if not (settings.timeout_last or _again(call)):
        return 0.0
    return max(settings.timeout_least, min(_LONGEST, settings.timeout_factor * line.p99))


def _again(call: Call) -> bool:
    """Whether another attempt follows one that is stopped, and the last one may take as long as it takes."""
    directives = call.method.directives
    delay = retry_delay(directives, CallTimeout(), call.attempt - call.excused)
    return directives.idempotent and delay is not None and not call.deadline


@asynccontextmanager
async def patiently(seconds: float, scope: Scope, where: str) -> AsyncIterator[None]:
    """Stop what takes longer than so many seconds, unless it has made calls by then: they take their time.

    Raises:
        CallTimeout: it was stopped.
    """
    loop = asyncio.get_running_loop()
    running = asyncio.timeout(None)

    def expire() -> None:
        if not (isinstance(scope.maker, HandlerMaker) and scope.maker.used):
            running.reschedule(loop.time())

    timer = loop.call_later(seconds, expire)
    try:
        async with running:
            yield
    except TimeoutError as error:
        if not running.expired():
            raise  # the handler's own
        text = (
            f"{where} took longer than {seconds:g} s, which calls with such arguments do not (timeout_factor)"
        )
        raise CallTimeout(f"{text}; give it a timeout of its own if it may", timeout=seconds) from error
    finally:
        timer.cancel()
