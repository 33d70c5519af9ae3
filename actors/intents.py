"""Effects in a host: announced before the handler runs, and not begun where it is unknown how one ended.

The newest intent of an effect tells how it stands. Whose outcome is known is done, or failed and may be
tried again. One without an outcome that its host still runs is left to it. All others are unknown: the
tool's ``reconcile`` says what has happened, or else whoever made the call has to find out.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from callboard.actors import values
from callboard.actors.effects import current_key, unknown
from callboard.actors.failures import restore
from callboard.actors.weaving import arguments_of
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import (
    CallboardError,
    DeadlineExceeded,
    Fenced,
    NotDone,
    OutcomeUnknown,
    Overloaded,
    Poisoned,
)
from callboard.infra.messages.run import Intent

if TYPE_CHECKING:
    from callboard.actors.effects import Effect
    from callboard.actors.inbound import Call
    from callboard.actors.instance import Instance
    from callboard.actors.scope import Scope

_SOONEST = 0.02
_LATEST = 1.0
_UNCLEAR = frozenset(cls.code for cls in (OutcomeUnknown, DeadlineExceeded, Overloaded, Poisoned))
"""Errors of a call that do not tell whether its handler has run."""


class Known(NamedTuple):
    """An effect has happened, with this value."""

    value: Any


class Elsewhere(Exception):
    """The call has its outcome, or another host runs it.

    Args:
        sequence: of the message that the other host has; 0 if there is none.
    """

    def __init__(self, sequence: int = 0) -> None:
        super().__init__(sequence)
        self._sequence = sequence

    def leave(self, instance: Instance, call: Call) -> None:
        """Be done with the message, unless it is the very one that the other host has."""
        instance.running.pop(call.key, None)
        if call.delivered.sequence == self._sequence:
            call.delivered.forget()
        else:
            call.settle()


async def begin(
    instance: Instance, call: Call, effect: Effect, arguments: dict[str, Any], scope: Scope
) -> Known | None:
    """Announce an effect; None: the handler is to run now.

    Raises:
        Elsewhere: there is nothing to do here.
        OutcomeUnknown: it was begun before, and nobody knows how that ended.
        DeadlineExceeded: the deadline passed while another call of the same key ran.
    """
    key = effect.key(arguments)
    current_key.set(key or call.id)
    return await _Claim(instance, call, key, arguments, scope).settle()


def outcome_of(call: Call, error: BaseException) -> BaseException:
    """What a failed call tells of its effect: only what the handler itself has raised is an outcome."""
    maker = call.slot.maker if call.slot is not None else None
    raised = maker is not None and maker.raised is error
    if call.intent is None or raised or isinstance(error, OutcomeUnknown):
        return error
    return _unknown(call, call.intent, error)


async def of_deadly(instance: Instance, call: Call, error: CallboardError) -> CallboardError:
    """What the caller of a call is told that kills its hosts: if its effect has begun, that nobody knows."""
    effect = call.method.effect
    if effect is None:
        return error
    node = instance.host.node
    try:
        body = await arguments_of(call, node)
        key = effect.key(call.method.signature.decode_arguments(body))
        kind = subjects.intent_kind(call.id, call.method.where, key)
        newest, _ = await node.intents.last(call.run, kind)
    except Exception as unread:  # noqa: BLE001 - whatever it is, nobody knows
        newest = Intent(call.id, call.method.where, call.attempt)
        error.__cause__ = unread
    return error if newest is None or newest.future != call.id else _unknown(call, newest, error)


def _unknown(call: Call, intent: Intent, cause: BaseException | None = None) -> OutcomeUnknown:
    began = f"{intent.future}~{intent.attempt}"
    return unknown(call.method.where, began, intent.key, intent.host, intent.at, cause)


class _Claim:
    """One call's way to its effect."""

    def __init__(
        self, instance: Instance, call: Call, key: str, arguments: dict[str, Any], scope: Scope
    ) -> None:
        self._instance = instance
        self._host = instance.host
        self._call = call
        self._key = key
        self._arguments = arguments
        self._scope = scope
        self._kind = subjects.intent_kind(call.id, call.method.where, key)
        self._pause = _SOONEST

    async def settle(self) -> Known | None:
        after = 0
        while not await self._announced(after):
            newest, after = await self._host.node.intents.last(self._call.run, self._kind)
            if newest is not None:
                known, free = await self._look(newest)
                if known is not None:
                    return known
                if free:
                    continue
            await self._wait()
            after = 0
        return None

    async def _announced(self, after: int) -> bool:
        call = self._call
        intent = Intent(
            future=call.id,
            call=call.method.where,
            attempt=call.attempt,
            key=self._key,
            arguments=hashlib.sha256(call.body).hexdigest()[:32],
            host=self._host.id,
            at=time.time(),
        )
        try:
            await self._host.node.intents.put(call.run, intent, after)
        except Fenced:
            return False
        call.intent = intent
        return True

    async def _look(self, newest: Intent) -> tuple[Known | None, bool]:
        """How the newest intent stands: its value, or whether the effect is free to be begun; else: wait."""
        call = self._call
        own = newest.future == call.id
        if own and newest.attempt != call.attempt:
            if newest.attempt > call.attempt:
                raise Elsewhere
            return None, True  # it has raised, or there would be no further attempt
        # An operator has decided that it is to run.
        if own and newest.at < float(call.headers.get(H.REQUEUED, "0")):
            return (None, True) if call.method.reconcile is None else await self._reconciled(newest)
        return await self._judge(newest, own=own)

    async def _judge(self, newest: Intent, *, own: bool) -> tuple[Known | None, bool]:
        """The same for one whose call may have ended in any way."""
        call = self._call
        ended, failed = await self._host.node.intents.outcomes(call.run, newest)
        if not ended and failed is None:
            if await self._runs(newest):
                return None, False
            ended, failed = await self._host.node.intents.outcomes(call.run, newest)  # it may have just ended
        if own and ended and H.REQUEUED not in call.headers:
            raise Elsewhere
        if own and failed is not None and failed.error is not None:
            raise restore(failed.error)  # it is to be tried again, and may not have been scheduled yet
        done = next((one for one in ended if one.error is None), None)
        if done is not None:
            body = await values.expand(bytes(done.value), done.blobs, self._host.node.blobs)
            return Known(call.method.signature.decode_result(body)), False
        errors = [one.error for one in (*ended, failed) if one is not None and one.error is not None]
        if any(error.code not in _UNCLEAR for error in errors):
            return None, True
        return await self._reconciled(newest)

    async def _runs(self, newest: Intent) -> bool:
        """Whether the host that has announced it runs it still.

        Raises:
            Elsewhere: it does, and it is this call.
        """
        if newest.host == self._host.id:
            mine = self._instance.running.get((newest.future, newest.attempt))
            return mine is not None and mine is not self._call and mine.intent is not None
        answer = await self._host.copies.at(newest.host, newest.future)
        if answer is None:
            return newest.host in self._host.watch.alive
        sequence = answer.running.get(newest.future)
        if sequence is not None and newest.future == self._call.id:
            raise Elsewhere(sequence)
        return sequence is not None

    async def _reconciled(self, newest: Intent) -> tuple[Known | None, bool]:
        """Find out how it has ended.

        Raises:
            OutcomeUnknown: nobody can tell.
        """
        reconcile = self._call.method.reconcile
        if reconcile is None:
            self._give_up(newest)
        try:
            async with asyncio.timeout(reconcile.directives.timeout):
                value = await self._instance.executor.run(reconcile, self._arguments, self._scope, b"")
        except NotDone:
            return None, True
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it raises, it cannot tell
            self._give_up(newest, error)
        return Known(value), False

    def _give_up(self, newest: Intent, cause: BaseException | None = None) -> NoReturn:
        raise _unknown(self._call, newest, cause)

    async def _wait(self) -> None:
        deadline = self._call.deadline
        if deadline and time.time() >= deadline:
            raise DeadlineExceeded(f"{self._call.method.where} was not started: its deadline passed")
        await asyncio.sleep(self._pause)
        self._pause = min(_LATEST, 2 * self._pause)
