"""What becomes of an attempt: its outcome is stored in the journal, and only then its call is acked.

Whoever dies in between leaves a message that is delivered again and found done. Instead of an outcome
there may be another attempt, brought by a schedule, or the call is given back.
"""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors import inbound, intents, managed, values
from callboard.actors.addressing import band_of
from callboard.actors.failures import describe
from callboard.actors.inbound import Call
from callboard.actors.retry import excused_delay, retry_delay
from callboard.actors.weaving import REPEATED
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    CallboardError,
    CallCancelled,
    EngineDown,
    InvalidResult,
    OutcomeUnknown,
    Overloaded,
    Poisoned,
    StoreRefused,
)
from callboard.infra.messages.run import Result

if TYPE_CHECKING:
    from callboard.actors.commit_acks import HeldOutcome
    from callboard.actors.instance import Instance
    from callboard.actors.node import Node
    from callboard.state.session import Session

_WORDS = 500
"""Characters of a header in words that go into an outcome."""


def release(instance: Instance, call: Call) -> None:
    """A call was cancelled: nobody waits for its outcome; or the host must end: somebody else has it."""
    if not instance.claim(call):
        return
    instance.running.pop(call.key, None)
    if instance.host.cancelled.covers(call.run, call.id):
        call.settle()
    else:
        call.give_back()


def own_cancellation(call: Call) -> CallCancelled:
    """A handler has ended by a cancellation: an error of its own, unless the call itself was cancelled."""
    task = asyncio.current_task()
    if (task is not None and task.cancelling()) or (call.slot is not None and call.slot.stopping):
        raise asyncio.CancelledError
    return CallCancelled(f"{call.method.where} waited for something that was cancelled")


async def succeed(instance: Instance, call: Call, value: Any, session: Session | None = None) -> None:
    """An attempt has given a value, which may be its outcome once the futures in it have theirs."""
    node = instance.host.node
    try:
        encoded = values.encode(value)
    except CallboardError as error:  # of the state that it is read from
        await fail_attempt(instance, call, error, session)
        return
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        text = f"{call.method.where} returned what cannot travel: {error}"
        invalid = InvalidResult(text, actor=call.method.actor, method=call.method.name)
        await fail_attempt(instance, call, invalid, session)
        return
    try:
        if encoded.futures:
            for part in encoded.futures:
                await part
            encoded.join()
        form = await _woven(node, call, encoded.body)
        if form is None and len(encoded.body) > node.settings.inline_limit:
            await values.shrink(encoded, node.blobs, node.settings)
    except Exception as error:  # noqa: BLE001 - a future that the handler returned has failed
        await fail_attempt(instance, call, error, session)
        return
    except asyncio.CancelledError:
        await fail_attempt(instance, call, own_cancellation(call), session)
        return
    result = result_of(instance, call)
    result.value = msgspec.Raw(encoded.body if form is None else form)
    result.blobs = encoded.blobs
    result.woven = form is not None
    if session is None:
        publish(instance, call, result)
        return
    try:
        await _publish_held(instance, call, result, session)
    except CallboardError as error:
        await fail_attempt(instance, call, error, session)


async def _woven(node: Node, call: Call, value: bytes) -> bytes | None:
    """A form of an outcome that refers to others of the run, if there is one that fits into a message."""
    maker = call.slot.maker if call.slot is not None else None
    if maker is None or call.method.effect is not None:  # of an effect it is looked up elsewhere, too
        return None
    form = maker.woven(call, value)
    # What it has not been given by its own calls it can only repeat from its arguments.
    if form is None and len(value) >= REPEATED and (call.woven or len(call.body) >= REPEATED):
        form = await node.weaver.woven(call.run, value)
    return form if form is not None and len(form) <= node.settings.inline_limit else None


async def _publish_held(instance: Instance, call: Call, result: Result, session: Session) -> None:
    """An outcome counts only if the session is held here still; what the handler has changed is kept with it.

    Raises:
        CallboardError: it cannot be stored; nothing is.
    """
    result.sticky = True
    held = instance.host.commit_acks.hold(call, result)
    stored = False
    try:
        stored = await managed.commit(instance, session, call, result, held)
    finally:
        if held is not None:
            told = partial(_when_told, instance, call, result, session, held)
            held.end(told if stored else None)
    call.concluded = stored
    if not stored:
        release(instance, call)  # who holds the session now runs it
    elif held is None:
        publish(instance, call, result, session)
    else:
        instance.host.finished(call, result)


def _when_told(instance: Instance, call: Call, result: Result, session: Session, held: HeldOutcome) -> None:
    """An outcome was told with its commit: it is stored again only if it does not count."""
    if held.counts:
        _is_stored(instance, call, result, session)
    else:
        _put(instance, call, result, session)


async def fail_attempt(instance: Instance, call: Call, error: BaseException, session: Session | None) -> None:
    """An attempt has failed; of one with managed state only the holder of the session may say so.

    What another one's handler has raised may come from a state that was not so any more.
    """
    cancelled = isinstance(error, CallCancelled) and instance.host.cancelled.covers(call.run, call.id)
    unknown = intents.outcome_of(call, error)
    final = isinstance(unknown, OutcomeUnknown) or _delay(instance, call, error) is None
    if session is None or cancelled or not final:
        fail(instance, call, error)
        return
    error = unknown
    result = result_of(instance, call)
    result.error = describe(error, call.path)
    session.begin()  # as if the handler had changed nothing
    try:
        await _publish_held(instance, call, result, session)
    except CallboardError:  # such an error has no room there
        fail(instance, call, error, retry=False)


def fail_unforeseen(instance: Instance, call: Call, error: Exception) -> None:
    """Callboard itself has failed with a call: it ends with that, at once, rather than never."""
    instance.host.report(call, error)
    if instance.rules is not None:
        managed.forget(instance, call.session)  # whether anything was committed is seen when it is read
    if call.concluded or instance.running.get(call.key) is not call:
        return
    try:
        fail(instance, call, error, retry=False)
    except Exception as defect:  # noqa: BLE001 - not even that: after some deliveries it is a dead letter
        instance.host.report(call, defect)
        if not call.concluded:
            release(instance, call)


def _delay(instance: Instance, call: Call, error: BaseException) -> float | None:
    """Seconds after which a failed attempt is repeated; None if it is not."""
    excused = _excused(instance, call, error)
    if excused is not None:
        return excused
    delay = retry_delay(call.method.directives, error, call.attempt - call.excused)
    return None if delay is None or (call.deadline and time.time() + delay >= call.deadline) else delay


def _excused(instance: Instance, call: Call, error: BaseException) -> float | None:
    """The same for an attempt that does not count."""
    if isinstance(error, EngineDown) and call.excused >= instance.host.node.settings.max_deliver:
        return None  # it may be what ends the engines
    now = time.time()
    since = call.excused_since or now
    return excused_delay(call.method.directives, error, since, now, call.deadline)


def fail(instance: Instance, call: Call, error: BaseException, *, retry: bool = True) -> None:
    """An attempt has failed: run it again later, or let the error be the outcome."""
    if isinstance(error, CallCancelled) and instance.host.cancelled.covers(call.run, call.id):
        release(instance, call)
        return
    error = intents.outcome_of(call, error)
    retry = retry and not isinstance(error, OutcomeUnknown)
    result = result_of(instance, call)
    result.error = describe(error, call.path)
    delay = _delay(instance, call, error) if retry else None
    if delay is not None:
        _retry(instance, call, result, delay, excused=_excused(instance, call, error) is not None)
    else:
        publish(instance, call, result)


def result_of(instance: Instance, call: Call) -> Result:
    """An outcome of a call, as far as it is known before the handler has one."""
    now = time.time()
    started = call.started or now
    return Result(
        future=call.id,
        call=call.method.where,
        host=instance.host.id,
        attempt=call.attempt,
        stage=call.stage,
        waited=round(max(0.0, started - call.stored_at), 6),
        took=round(now - started, 6),
        policy=H.epoch(call.headers, H.POLICY),
        ranked=H.epoch(call.headers, H.RANKED),
        placed=call.headers.get(H.PLACED, "")[:_WORDS],
    )


def publish(instance: Instance, call: Call, result: Result, session: Session | None = None) -> None:
    """Store the outcome; when it stands in the journal the call is done."""
    _put(instance, call, result, session)
    instance.host.finished(call, result)


def _put(instance: Instance, call: Call, result: Result, session: Session | None) -> None:
    def on_stored(outcome: int | StoreRefused) -> None:
        if isinstance(outcome, StoreRefused):
            instance.running.pop(call.key, None)
            if session is not None:
                managed.told(session)
            _lose(instance, call, outcome)
        else:
            _is_stored(instance, call, result, session)

    instance.host.node.journal.put_result(call.run, result, on_stored)
    call.concluded = True


def _is_stored(instance: Instance, call: Call, result: Result, session: Session | None) -> None:
    """The outcome stands in the journal."""
    instance.running.pop(call.key, None)
    if session is not None:
        managed.told(session)
    if result.error is None or result.error.code != Overloaded.code:
        instance.host.remember(call.ended_as)  # a refused call comes again under the same id
    if call.unreadable and result.error is not None:
        text = result.error.message
        instance.host.dead.put(instance.name, call.delivered, "undecodable", text, settled=call.settle_copies)
        return
    call.settle()


def _lose(instance: Instance, call: Call, refusal: StoreRefused) -> None:
    """The outcome cannot be stored, not even later: whoever waits is told, and the call is a dead letter."""
    reason, text = "refused_by_store", f"its outcome was not stored: {refusal.message}"
    lost = result_of(instance, call)
    moved = f"{call.method.where} was moved to the dead letters: {text}; see 'callboard dead list'"
    lost.error = describe(intents.outcome_of(call, Poisoned(moved, reason=reason)), call.path)

    def on_stored(_: int | StoreRefused) -> None:
        instance.host.dead.put(instance.name, call.delivered, reason, text, settled=call.settle_copies)

    instance.host.node.journal.put_result(call.run, lost, on_stored)


def _retry(instance: Instance, call: Call, result: Result, delay: float, *, excused: bool) -> None:
    """Let a schedule in the stream bring the call back: nothing is held while it waits."""
    host = instance.host
    kept = inbound.kept(call.headers)
    for name in (H.AGAIN, H.STOLEN, H.DELIVERIES, H.EXECUTOR, H.POLICY, H.PLACED):
        kept.pop(name, None)
    lane, epoch, why = _slated(instance, call)
    if lane and instance.rules is None:  # of one with managed state the next host knows the holder
        kept |= {H.EXECUTOR: lane, H.POLICY: str(epoch)} | ({H.PLACED: why} if why else {})
    kept[H.ATTEMPT] = str(call.attempt + 1)
    if excused:
        kept[H.EXCUSED] = str(call.excused + 1)
        kept[H.EXCUSED_SINCE] = f"{call.excused_since or time.time():.3f}"
    kept[H.SCHEDULE] = schedule_at(time.time() + delay)
    kept[H.SCHEDULE_TARGET] = subjects.call(
        instance.name, kept.get(H.EXECUTOR, subjects.ANY), band_of(call.priority)
    )

    def on_stored(outcome: int | StoreRefused) -> None:
        instance.running.pop(call.key, None)
        if isinstance(outcome, StoreRefused):
            call.give_back()
            return
        host.remember(call.ended_as)
        call.settle()

    host.node.journal.put_attempt(call.run, result)
    host.node.store.put(
        subjects.timer(f"{call.id}~{call.attempt}"), call.body, H.encode(kept.items()), on_stored
    )
    call.concluded = True
    host.finished(call, result, retry_in=delay)


def _slated(instance: Instance, call: Call) -> tuple[str, int, str]:
    """Where the next attempt goes, the epoch of the route that says so, and why this host of that route."""
    host = instance.host
    hosts, epoch = host.routes.by_prefix(instance.name, call.session)
    if hosts:
        choice = host.prefixes.elsewhere(instance.name, call.method.name, call.body, hosts)
        return choice.host, epoch, choice.why
    return *host.routes.choose(instance.name, call.session, call.id, keeps=False), ""


def schedule_at(unix: float) -> str:
    """A schedule's header for a time, to the millisecond, not before it."""
    milliseconds = math.ceil(unix * 1000)
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"@at {whole}.{milliseconds % 1000:03d}Z"
