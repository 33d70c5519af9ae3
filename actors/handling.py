"""From a started call to its outcome: open what it needs, run the handler, within its time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors import intents, managed, outcomes, values
from callboard.actors.handler_maker import HandlerMaker, attempt_path, batch_path
from callboard.actors.inbound import Call
from callboard.actors.items import serving
from callboard.actors.patience import patience, patiently
from callboard.actors.scope import Scope
from callboard.actors.slots import Slot
from callboard.actors.weaving import arguments_of
from callboard.infra.errors import (
    CallboardError,
    CallTimeout,
    ConnectionLost,
    DeadlineExceeded,
    Fenced,
    InvalidArguments,
    InvalidResult,
    RequestTimeout,
)
from callboard.state.managed import within

if TYPE_CHECKING:
    from callboard.actors.declared import Method
    from callboard.actors.instance import Instance
    from callboard.state.session import Rules, Session

_OF_THE_PROCESS = (KeyboardInterrupt, GeneratorExit)
"""What no handler has raised, wherever it comes up."""
_TRIES = 5


async def handle(instance: Instance, slot: Slot) -> None:
    """Run one handler for one call, or for a batch, and bring every call to its outcome."""
    if not instance.begin(slot):
        instance.slot_free(slot, [])
        return
    calls = ended = slot.calls
    maker: HandlerMaker | None = None
    try:
        batch = calls[0].method.directives.batchable
        maker = HandlerMaker(instance.host, slot, batch_path(calls) if batch else attempt_path(calls[0]))
        slot.maker = maker
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
    except Exception as error:  # noqa: BLE001 - a defect of ours: whoever waits is told
        for call in calls:
            outcomes.fail_unforeseen(instance, call, error)
    finally:
        if maker is not None:
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
            outcomes.release(instance, call)
    return ended


async def _opened(instance: Instance, call: Call, rules: Rules) -> Session | None:
    """The session of a call that is to run, held here; None if it is not to, and has been seen to."""
    try:
        session = await managed.open_session(instance, call, rules)
        if session is None:
            return None
        over = await managed.is_over(instance, session, call)
        known = None if over else await managed.recorded(session, call)
    except (Fenced, RequestTimeout, ConnectionLost):  # whoever gets it next may fare better
        outcomes.release(instance, call)
        return None
    except Exception as error:  # noqa: BLE001 - whatever it was, the call must not stay here
        outcomes.fail(instance, call, error)
        return None
    if known is not None:
        outcomes.publish(instance, call, known)
        return None
    if over:
        instance.running.pop(call.key, None)
        call.settle()
        return None
    return session


async def _as_stored(instance: Instance, call: Call, rules: Rules, session: Session) -> Session | None:
    """The session, read anew if it was deleted, imported or taken: an effect cannot be taken back."""
    for _ in range(_TRIES):
        session.begin()  # nothing folds it meanwhile
        try:
            newest = await session.is_newest()
        except (RequestTimeout, ConnectionLost):
            break
        except CallboardError as error:
            outcomes.fail(instance, call, error)
            return None
        finally:
            session.rollback()
        if newest:
            return session
        managed.forget(instance, call.session)
        opened = await _opened(instance, call, rules)
        if opened is None:
            return None
        session = opened
    outcomes.release(instance, call)
    return None


async def _handle_managed(instance: Instance, call: Call, maker: HandlerMaker, rules: Rules) -> None:
    """The same for an agent with managed state: it is there for the handler, and kept with its outcome."""
    session = managed.ready(instance, call, rules) or await _opened(instance, call, rules)
    if session is not None and call.method.effect is not None:
        session = await _as_stored(instance, call, rules, session)
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
    except asyncio.CancelledError:
        await outcomes.fail_attempt(instance, call, outcomes.own_cancellation(call), session)
    except _OF_THE_PROCESS:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its outcome
        _unless_stopping(maker.slot, error)
        maker.slot.settle()
        await outcomes.fail_attempt(instance, call, error, session)
    else:
        maker.slot.settle()
        await outcomes.succeed(instance, call, value, session)


def _unless_stopping(slot: Slot, error: BaseException) -> None:
    """What a handler raises that was told to stop is no outcome: it runs again."""
    if slot.stopping:
        raise asyncio.CancelledError from error


async def _handle_batch(
    instance: Instance, calls: Sequence[Call], maker: HandlerMaker, sessions: Sequence[Session] = ()
) -> None:
    try:
        ends = await _run_batch(instance, calls, maker, sessions)
    except asyncio.CancelledError:
        ends = [outcomes.own_cancellation(call) for call in calls]
    except _OF_THE_PROCESS:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever a handler raises is the outcome of all
        _unless_stopping(maker.slot, error)
        ends = [error] * len(calls)
    maker.slot.settle()
    if not sessions:
        for call, outcome in zip(calls, ends, strict=True):
            await _end_item(instance, call, outcome, None)
        return
    held = zip(calls, ends, sessions, strict=True)
    # Side by side: the commits of all items leave in one turn of the loop, and none waits for another's.
    ended = await asyncio.gather(*(_end_item(instance, *one) for one in held), return_exceptions=True)
    for one in ended:
        if one is not None:
            raise one


async def _end_item(instance: Instance, call: Call, outcome: Any, session: Session | None) -> None:
    try:
        if isinstance(outcome, BaseException):
            await outcomes.fail_attempt(instance, call, outcome, session)
        else:
            await outcomes.succeed(instance, call, outcome, session)
    except Exception as error:  # noqa: BLE001 - a defect of ours: the other items go on
        outcomes.fail_unforeseen(instance, call, error)


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
    ends: list[Any] = [None] * len(calls)
    columns: dict[str, list[Any]] = {name: [] for name in method.signature.names}
    places: list[int] = []
    for place, call in enumerate(calls):
        try:
            arguments = _decoded(call, await arguments_of(call, instance.host.node))
        except CallboardError as error:
            ends[place] = error
            continue
        places.append(place)
        for name, value in arguments.items():
            columns[name].append(value)
    if not places:
        return ends
    maker.slot.scope = scope = Scope(maker, f"{maker.path}.", sync=not method.is_async)
    turns = [managed.begin(sessions[place], beside=True) for place in places] if sessions else ()
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
        ends[place] = result
    return ends


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
    except (asyncio.CancelledError, *_OF_THE_PROCESS):
        raise
    except BaseException as error:
        if isinstance(scope.maker, HandlerMaker):
            scope.maker.raised = error
        raise
    if isinstance(scope.maker, HandlerMaker) and scope.maker.used:
        # What cannot be encoded is told later.
        with contextlib.suppress(CallboardError, TypeError, ValueError, OverflowError, RecursionError):
            waiting = [future for future in values.encode(value).futures if not future.done()]
            if waiting:
                await asyncio.wait(waiting)
    return value
