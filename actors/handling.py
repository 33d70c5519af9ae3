"""From a started call to its settled message: run the handler, store the outcome, then ack.

This is the one place where a call gets its outcome. The order is always the same: the outcome is
stored in the journal, and only then is the call acked; whoever dies in between leaves a message that
is delivered again and found done.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors import intents, managed, values
from callboard.actors.addressing import band_of
from callboard.actors.failures import describe
from callboard.actors.handler_maker import HandlerMaker, attempt_path, batch_path
from callboard.actors.inbound import Call
from callboard.actors.items import serving
from callboard.actors.patience import patience, patiently
from callboard.actors.retry import retry_delay
from callboard.actors.scope import Scope
from callboard.actors.slots import Slot
from callboard.actors.weaving import REPEATED, arguments_of
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    CallboardError,
    CallCancelled,
    CallTimeout,
    ConnectionLost,
    DeadlineExceeded,
    Fenced,
    InvalidArguments,
    InvalidResult,
    OutcomeUnknown,
    Overloaded,
    Poisoned,
    RequestTimeout,
    StoreRefused,
)
from callboard.infra.messages.run import Result
from callboard.state.managed import within

_WORDS = 500
"""Characters of a header in words that go into an outcome."""

if TYPE_CHECKING:
    from callboard.actors.declare import Method
    from callboard.actors.instance import Instance
    from callboard.actors.node import Node
    from callboard.state.session import Rules, Session


async def handle(instance: Instance, slot: Slot) -> None:
    """Run one handler for one call, or for a batch, and bring every call to its outcome."""
    if not instance.begin(slot):
        instance.slot_free(slot, [])
        return
    calls = ended = slot.calls
    batch = calls[0].method.directives.batchable
    maker = HandlerMaker(instance.host, slot, batch_path(calls) if batch else attempt_path(calls[0]))
    slot.maker = maker
    try:
        if batch and instance.rules is not None:
            await _handle_managed_batch(instance, calls, maker, instance.rules)
        elif batch:
            await _handle_batch(instance, calls, maker)
        elif instance.rules is not None:
            await _handle_managed(instance, calls[0], maker, instance.rules)
        else:
            await _handle_one(instance, calls[0], maker)
    except asyncio.CancelledError:
        ended = stopped(instance, slot)
    finally:
        maker.close()
        for call in ended:
            call.task = call.slot = None
        instance.slot_free(slot, ended)


def stopped(instance: Instance, slot: Slot) -> list[Call]:
    """A handler was stopped: give its calls up, or let them wait again; gives those given up."""
    again = slot.maker is not None and slot.maker.used
    ended: list[Call] = []
    for call in slot.calls:
        if instance.running.get(call.key) is not call or call.slot is None:  # is elsewhere
            ended.append(call)
        elif not (slot.stopping and instance.put_back(call, again=again)):
            ended.append(call)
            release(instance, call)
    return ended


def release(instance: Instance, call: Call) -> None:
    """A call was cancelled: nobody waits for its outcome; or the host must end: somebody else has it."""
    if not instance.claim(call):
        return
    instance.running.pop(call.key, None)
    if instance.host.cancelled.covers(call.run, call.id):
        call.settle()
    else:
        call.give_back()


async def _opened(instance: Instance, call: Call, rules: Rules) -> Session | None:
    """The session of a call that is to run, held here; None if it is not to, and has been seen to."""
    try:
        session = await managed.open_session(instance, call, rules)
        if session is None:
            return None
        known = await managed.recorded(session, call)
        over = known is None and await managed.is_over(instance, session, call)
    except (Fenced, RequestTimeout, ConnectionLost):  # whoever gets it next may fare better
        release(instance, call)
        return None
    except Exception as error:  # noqa: BLE001 - whatever it was, the call must not stay here
        fail(instance, call, error)
        return None
    if known is not None:
        _publish(instance, call, known)
        return None
    if over:
        instance.running.pop(call.key, None)
        call.settle()
        return None
    return session


async def _handle_managed(instance: Instance, call: Call, maker: HandlerMaker, rules: Rules) -> None:
    """The same for an agent with managed state: it is there for the handler, and kept with its outcome."""
    session = await _opened(instance, call, rules)
    if session is None:
        return
    try:
        with within(managed.begin(session)):
            await _handle_one(instance, call, maker, session)
    finally:
        session.rollback()


async def _handle_managed_batch(
    instance: Instance, calls: Sequence[Call], maker: HandlerMaker, rules: Rules
) -> None:
    """The same for a batch: each item has a session of its own, and its changes are kept with its outcome."""
    calls = list(calls)
    found = await asyncio.gather(*(_opened_in_batch(instance, maker.slot, call, rules) for call in calls))
    held = [(call, one) for call, one in zip(calls, found, strict=True) if one is not None]
    if not held:
        return
    maker.serve([call for call, _ in held])
    try:
        await _handle_batch(instance, [call for call, _ in held], maker, [one for _, one in held])
    finally:
        for _, session in held:
            session.rollback()


async def _opened_in_batch(instance: Instance, slot: Slot, call: Call, rules: Rules) -> Session | None:
    session = await _opened(instance, call, rules)
    if session is None:
        instance.leave(slot, call)
    return session


async def _handle_one(
    instance: Instance, call: Call, maker: HandlerMaker, session: Session | None = None
) -> None:
    try:
        value = await _run(instance, call, maker)
    except intents.Elsewhere as found:
        found.leave(instance, call)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is its outcome
        _unless_stopping(maker.slot, error)
        maker.slot.settle()
        await _fail(instance, call, error, session)
    except asyncio.CancelledError:
        await _fail(instance, call, _own_cancellation(call), session)
    else:
        maker.slot.settle()
        await _succeed(instance, call, value, session)


def _unless_stopping(slot: Slot, error: BaseException) -> None:
    """What a handler raises that was told to stop is no outcome: it runs again."""
    if slot.stopping:
        raise asyncio.CancelledError from error


def _own_cancellation(call: Call) -> CallCancelled:
    """A handler has ended by a cancellation: an error of its own, unless the call itself was cancelled."""
    task = asyncio.current_task()
    if (task is not None and task.cancelling()) or (call.slot is not None and call.slot.stopping):
        raise asyncio.CancelledError
    return CallCancelled(f"{call.method.where} waited for something that was cancelled")


async def _handle_batch(
    instance: Instance, calls: Sequence[Call], maker: HandlerMaker, sessions: Sequence[Session] = ()
) -> None:
    try:
        outcomes = await _run_batch(instance, calls, maker, sessions)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is the outcome of all
        _unless_stopping(maker.slot, error)
        outcomes = [error] * len(calls)
    except asyncio.CancelledError:
        outcomes = [_own_cancellation(call) for call in calls]
    maker.slot.settle()
    if not sessions:
        for call, outcome in zip(calls, outcomes, strict=True):
            await _end_item(instance, call, outcome, None)
        return
    held = zip(calls, outcomes, sessions, strict=True)
    # Side by side: the commits of all items leave in one turn of the loop, and none waits for another's.
    await asyncio.gather(*(_end_item(instance, *one) for one in held))


async def _end_item(instance: Instance, call: Call, outcome: Any, session: Session | None) -> None:
    if isinstance(outcome, Exception | SystemExit):
        await _fail(instance, call, outcome, session)
    else:
        await _succeed(instance, call, outcome, session)


async def _run(instance: Instance, call: Call, maker: HandlerMaker) -> Any:
    body = await arguments_of(call, instance.host.node)
    method = call.method
    arguments = _decoded(call, body)
    if call.again:
        await maker.replay()
    maker.slot.scope = scope = Scope(maker, f"{maker.path}.", sync=not method.is_async)
    if method.effect is not None:
        known = await intents.begin(instance, call, method.effect, arguments, scope)
        if known is not None:
            return known.value
    return await _limited(instance, [call], arguments, scope, body)


def _decoded(call: Call, body: bytes) -> dict[str, Any]:
    """The arguments of a call; notes on it if nobody could decode them, whatever they were to be.

    Raises:
        InvalidArguments: they do not fit.
    """
    try:
        return call.method.signature.decode_arguments(body)
    except InvalidArguments:
        try:
            msgspec.msgpack.decode(body)
        except (msgspec.DecodeError, ValueError, TypeError, RecursionError):
            call.unreadable = True
        raise


async def _run_batch(
    instance: Instance, calls: Sequence[Call], maker: HandlerMaker, sessions: Sequence[Session]
) -> Sequence[Any]:
    """The arguments of all calls side by side; one that does not decode fails alone."""
    method = calls[0].method
    outcomes: list[Any] = [None] * len(calls)
    columns: dict[str, list[Any]] = {name: [] for name in method.signature.names}
    places: list[int] = []
    for place, call in enumerate(calls):
        try:
            arguments = _decoded(call, await arguments_of(call, instance.host.node))
        except CallboardError as error:
            outcomes[place] = error
            continue
        places.append(place)
        for name, value in arguments.items():
            columns[name].append(value)
    if not places:
        return outcomes
    maker.slot.scope = scope = Scope(maker, f"{maker.path}.", sync=not method.is_async)
    turns = [managed.begin(sessions[place]) for place in places] if sessions else ()
    with serving([calls[place].session for place in places], turns):
        results = await _limited(instance, calls, columns, scope, b"")
    if not isinstance(results, list) or len(results) != len(places):
        raise InvalidResult(
            f"{method.where} is batchable and got {len(places)} items: it must return a list of as many "
            f"results, not {type(results).__name__}",
            actor=method.actor,
            method=method.name,
        )
    for place, result in zip(places, results, strict=True):
        outcomes[place] = result
    return outcomes


async def _limited(
    instance: Instance, calls: Sequence[Call], arguments: dict[str, Any], scope: Scope, body: bytes
) -> Any:
    """Run the handler within its timeout and the deadline of the call, or of the last one of a batch."""
    method = calls[0].method
    timeout = method.directives.timeout
    given = patience(instance, calls[0]) if timeout is None else 0.0
    if given:
        async with patiently(given, scope, method.where):
            return await _by_deadline(instance, calls, arguments, scope, body)
    return await _by_deadline(instance, calls, arguments, scope, body)


async def _by_deadline(
    instance: Instance, calls: Sequence[Call], arguments: dict[str, Any], scope: Scope, body: bytes
) -> Any:
    """The same within the declared timeout and the deadline alone."""
    method = calls[0].method
    timeout = method.directives.timeout
    deadline = max(call.deadline or math.inf for call in calls)
    left = deadline - time.time() if deadline < math.inf else None
    limit = min((t for t in (timeout, left) if t is not None), default=None)
    if limit is None:
        return await _complete(instance, method, arguments, scope, body)
    running = asyncio.timeout(max(0.0, limit))
    try:
        async with running:
            return await _complete(instance, method, arguments, scope, body)
    except TimeoutError as error:
        if not running.expired():
            raise  # the handler's own
        if limit == timeout:
            raise CallTimeout(
                f"{method.where} took longer than its timeout of {timeout:g} s", timeout=timeout
            ) from error
        raise DeadlineExceeded(f"{method.where} was stopped: the deadline of its run passed") from error


async def _complete(
    instance: Instance, method: Method, arguments: dict[str, Any], scope: Scope, body: bytes
) -> Any:
    """Run the handler, and wait for the calls among what it returns."""
    try:
        value = await instance.executor.run(method, arguments, scope, body)
    except (Exception, SystemExit) as error:
        if isinstance(scope.maker, HandlerMaker):
            scope.maker.raised = error
        raise
    if isinstance(scope.maker, HandlerMaker) and scope.maker.used:
        with contextlib.suppress(TypeError, ValueError, OverflowError, RecursionError):  # told later
            waiting = [future for future in values.encode(value).futures if not future.done()]
            if waiting:
                await asyncio.wait(waiting)
    return value


async def _succeed(instance: Instance, call: Call, value: Any, session: Session | None = None) -> None:
    node = instance.host.node
    try:
        encoded = values.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        text = f"{call.method.where} returned what cannot travel: {error}"
        invalid = InvalidResult(text, actor=call.method.actor, method=call.method.name)
        await _fail(instance, call, invalid, session)
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
        await _fail(instance, call, error, session)
        return
    except asyncio.CancelledError:
        await _fail(instance, call, _own_cancellation(call), session)
        return
    result = result_of(instance, call)
    result.value = msgspec.Raw(encoded.body if form is None else form)
    result.blobs = encoded.blobs
    result.woven = form is not None
    if session is None:
        _publish(instance, call, result)
        return
    try:
        await _publish_held(instance, call, result, session)
    except CallboardError as error:
        await _fail(instance, call, error, session)


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
    if await managed.commit(instance, session, call, result):
        _publish(instance, call, result, session)
    else:
        release(instance, call)  # who holds the session now runs it


async def _fail(instance: Instance, call: Call, error: BaseException, session: Session | None) -> None:
    """An attempt has failed; of one with managed state only the holder of the session may say so.

    What another one's handler has raised may come from a state that was not so any more.
    """
    cancelled = isinstance(error, CallCancelled) and instance.host.cancelled.covers(call.run, call.id)
    unknown = intents.outcome_of(call, error)
    final = isinstance(unknown, OutcomeUnknown) or _delay(call, error) is None
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


def _delay(call: Call, error: BaseException) -> float | None:
    """Seconds after which a failed attempt is repeated; None if it is not."""
    delay = retry_delay(call.method.directives, error, call.attempt)
    return None if delay is None or (call.deadline and time.time() + delay >= call.deadline) else delay


def fail(instance: Instance, call: Call, error: BaseException, *, retry: bool = True) -> None:
    """An attempt has failed: run it again later, or let the error be the outcome."""
    if isinstance(error, CallCancelled) and instance.host.cancelled.covers(call.run, call.id):
        release(instance, call)
        return
    error = intents.outcome_of(call, error)
    retry = retry and not isinstance(error, OutcomeUnknown)
    result = result_of(instance, call)
    result.error = describe(error, call.path)
    delay = _delay(call, error) if retry else None
    if delay is not None:
        _retry(instance, call, result, delay)
    else:
        _publish(instance, call, result)


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


def _publish(instance: Instance, call: Call, result: Result, session: Session | None = None) -> None:
    """Store the outcome; when it stands in the journal the call is done."""

    def on_stored(outcome: int | StoreRefused) -> None:
        instance.running.pop(call.key, None)
        if session is not None:
            managed.told(session)
        if isinstance(outcome, StoreRefused):
            _lose(instance, call, outcome)
            return
        if result.error is None or result.error.code != Overloaded.code:
            instance.host.remember(call.key)  # a refused call comes again under the same id
        if call.unreadable and result.error is not None:
            instance.host.dead.put(instance.name, call.delivered, "undecodable", result.error.message)
            return
        call.settle()

    instance.host.node.journal.put_result(call.run, result, on_stored)
    instance.host.finished(call, result)


def _lose(instance: Instance, call: Call, refusal: StoreRefused) -> None:
    """The outcome cannot be stored, not even later: whoever waits is told, and the call is a dead letter."""
    reason, text = "refused_by_store", f"its outcome was not stored: {refusal.message}"
    lost = result_of(instance, call)
    moved = f"{call.method.where} was moved to the dead letters: {text}; see 'callboard dead list'"
    lost.error = describe(Poisoned(moved, reason=reason), call.path)

    def on_stored(_: int | StoreRefused) -> None:
        instance.host.dead.put(instance.name, call.delivered, reason, text)

    instance.host.node.journal.put_result(call.run, lost, on_stored)


def _retry(instance: Instance, call: Call, result: Result, delay: float) -> None:
    """Let a schedule in the stream bring the call back: nothing is held while it waits."""
    host = instance.host
    kept = {k: v for k, v in call.headers.items() if k.startswith("Cb-") or k == H.TRACEPARENT}
    kept.pop(H.AGAIN, None)
    for name in (H.STOLEN, H.EXECUTOR, H.POLICY, H.PLACED):
        kept.pop(name, None)
    lane, epoch, why = _slated(instance, call)
    if lane and instance.rules is None:  # of one with managed state the next host knows the holder
        kept |= {H.EXECUTOR: lane, H.POLICY: str(epoch)} | ({H.PLACED: why} if why else {})
    kept[H.ATTEMPT] = str(call.attempt + 1)
    kept[H.SCHEDULE] = schedule_at(time.time() + delay)
    kept[H.SCHEDULE_TARGET] = subjects.call(
        instance.name, kept.get(H.EXECUTOR, subjects.ANY), band_of(call.priority)
    )

    def on_stored(outcome: int | StoreRefused) -> None:
        instance.running.pop(call.key, None)
        if isinstance(outcome, StoreRefused):
            call.give_back()
            return
        host.remember(call.key)
        call.settle()

    host.node.journal.put_attempt(call.run, result)
    host.node.store.put(
        subjects.timer(f"{call.id}~{call.attempt}"), call.body, H.encode(kept.items()), on_stored
    )
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
