"""Calls that end as dead letters: whoever waits for one is told first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from callboard.actors import intents
from callboard.actors.failures import describe
from callboard.actors.inbound import Call, Undecodable, is_future_id
from callboard.actors.outcomes import result_of
from callboard.infra import headers as H
from callboard.infra.errors import (
    CallboardError,
    Poisoned,
    StoreRefused,
)
from callboard.infra.messages.run import ErrorInfo, Result
from callboard.infra.pull import Delivered

if TYPE_CHECKING:
    from callboard.actors.host import Host
    from callboard.actors.instance import Instance


async def poison(instance: Instance, call: Call, error: Poisoned, detail: str) -> None:
    """Tell the caller, then move the message to the dead letters with the errors of its attempts."""
    try:
        history = await instance.host.node.journal.attempts(call.run, call.id)
    except CallboardError as unread:
        history = [describe(unread)]
    result = result_of(instance, call)
    result.error = describe(await intents.of_deadly(instance, call, error), call.path)
    host, delivered = instance.host, call.delivered
    _bury_with_outcome(host, instance.name, delivered, call.run, result, detail, history, call.settle_copies)
    instance.running.pop(call.key, None)


def bury(host: Host, actor: str, delivered: Delivered, headers: dict[str, str], error: Undecodable) -> None:
    """A message that is no call goes to the dead letters; whoever waits for it is told."""
    reason = str(error.fields.get("reason", "undecodable"))
    future = headers.get(H.FUTURE, "")
    if not is_future_id(future):
        host.dead.put(actor, delivered, reason, error.message)
        return
    call = f"{actor}.{headers.get(H.METHOD, 'call')}"
    outcome = Poisoned(
        f"{call} was moved to the dead letters: {error.message}; see 'callboard dead list'", reason=reason
    )
    result = Result(future, call, host=host.id, error=describe(outcome))
    run = future.partition(":")[0]
    _bury_with_outcome(host, actor, delivered, run, result, error.message, [])


def _bury_with_outcome(
    host: Host,
    actor: str,
    delivered: Delivered,
    run: str,
    result: Result,
    detail: str,
    history: list[ErrorInfo],
    settled: Callable[[], None] | None = None,
) -> None:
    assert result.error is not None
    reason = str(result.error.fields.get("reason", "too_many_deliveries"))

    def on_stored(_: int | StoreRefused) -> None:
        host.dead.put(actor, delivered, reason, detail, history, settled)

    host.node.journal.put_result(run, result, on_stored)
