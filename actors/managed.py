"""Managed state around a handler: whose session it is, opened before, committed with the outcome.

A session's state at an actor has one holder: a host. Another host that is given a call of the session
passes it on to the holder's lane while that one lives, and takes the session over when it does not. What
the handler changes and its outcome are one commit, accepted only if nobody else has committed since; so
a call that is delivered again finds its outcome there, and is not run.

A state knows the outcomes of its last commits, the journal those of all before the last one: a commit waits
until the outcome of the one before it is in the journal, and whoever opens a session tells its last one.
So a call that came before the session was opened here is looked for in the journal once more: meanwhile
somebody else may have run it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from callboard.actors import inbound
from callboard.actors.addressing import band_of
from callboard.actors.snapshots import SNAPSHOT
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import Fenced
from callboard.infra.messages.run import Result
from callboard.state.journal import encode
from callboard.state.shelf import Place

if TYPE_CHECKING:
    from callboard.actors.commit_acks import HeldOutcome
    from callboard.actors.host import Host
    from callboard.actors.inbound import Call
    from callboard.actors.instance import Instance
    from callboard.state.session import Rules, Session
    from callboard.state.turn import Turn

_TRIES = 5
_decode = msgspec.msgpack.Decoder(Result).decode


def ready(instance: Instance, call: Call, rules: Rules) -> Session | None:
    """The session of a call if it is held and open here, and the call came since, so that it has not run.

    Where it gives one, :func:`open_session`, :func:`recorded` and :func:`is_over` would say the same.
    """
    session = instance.host.states.opened(Place(instance.name, call.session), rules)
    if session is None or session.holder != instance.host.id or session.untold is not None:
        return None
    if instance.snapshots is not None or call.arrived <= session.read_at or session.has_applied(call.id):
        return None
    return session


async def open_session(instance: Instance, call: Call, rules: Rules) -> Session | None:
    """The session of a call, held by this host; None if another one holds it, which has the call then.

    Raises:
        Fenced: others were faster, again and again.
        CallboardError: the state cannot be read, or does not fit the code.
    """
    host = instance.host
    for tried in range(_TRIES):
        session = await host.states.open(instance.name, call.session, rules)
        ours = session.holder == host.id
        if not ours and host.watch.serves(session.holder, instance.name):
            host.states.forget(instance.name, call.session)  # what it commits is not seen here
            await pass_on(instance, call, session.holder, session.epoch)
            return None
        if not ours and _is_to_hand_over(instance, session.holder):
            host.states.forget(instance.name, call.session)
            host.migrations.fetch(instance, call, session.holder)
            return None
        if session.untold is not None:
            await _tell(host, session, *session.untold)
        try:
            if not ours:
                await session.take(host.id)
        except Fenced:
            if tried == _TRIES - 1:
                raise
        else:
            if instance.snapshots is not None:
                await instance.snapshots.restored(session)
            return session
    raise AssertionError("unreachable")


def _is_to_hand_over(instance: Instance, holder: str) -> bool:
    """Whether a session comes from its holder, which takes no more calls, by being moved.

    One that cannot be moved is taken from a holder in which nothing runs: it would be asked for ever.
    """
    watch = instance.host.watch
    bound = instance.declared.directives.stateful and instance.snapshots is None
    if bound and watch.stands_idle(holder, instance.name):
        return False
    return watch.is_leaving(holder, instance.name)


async def pass_on(instance: Instance, call: Call, holder: str, epoch: int, why: str = "passed_on") -> None:
    """Store the call in the holder's lane, then be done with the message.

    Args:
        epoch: with which that host has become the holder.
    """
    headers = inbound.kept(call.headers)
    headers[H.EXECUTOR], headers[H.EPOCH] = holder, str(epoch)
    headers.pop(H.STOLEN, None)
    if why == "stolen":
        headers[H.STOLEN] = instance.host.id
    # Without a message id: it may have run by the time it is there, so it is to be looked for.
    subject = subjects.call(instance.name, holder, band_of(call.priority))
    await instance.host.node.store.stored(subject, call.body, H.encode(headers.items()))
    instance.running.pop(call.key, None)
    instance.host.telemetry.moved(call, holder, why)
    call.delivered.ack()
    for copy in call.copies:
        # It may be what has just been stored, if the session and the call have come back. It may come and go
        # as often as the session moves, and nothing dies of that.
        copy.nak(counts=False)


async def settled(host: Host, session: Session) -> None:
    """Wait until the outcome of a session's last commit is in the journal."""
    if session.untold is not None:
        await _tell(host, session, *session.untold)
    if session.told is not None:
        await session.told.wait()


def begin(session: Session, *, beside: bool = False) -> Turn:
    """Begin a call. What a session was brought here with is void when the call has changed it.

    Args:
        beside: it is one of a batch.
    """
    turn = session.begin(beside=beside)
    if (brought := session.kept.get(SNAPSHOT)) is not None and brought.count:
        turn.replace(SNAPSHOT, brought.kind, [])
    return turn


async def _tell(host: Host, session: Session, call: str, result: msgspec.Raw) -> None:
    """See to it that the outcome of a session's last commit is in the journal: its holder may have died."""
    run = call.partition(":")[0]
    if not await host.outcomes.known(run, call):
        stored = asyncio.Event()
        host.node.journal.put_result(run, _decode(result), lambda _: stored.set())
        await stored.wait()
    session.untold = None


async def recorded(session: Session, call: Call) -> Result | None:
    """The outcome of a call that has been applied already."""
    raw = await session.applied(call.id)
    result = None if raw is None else _decode(raw)
    again = result is not None and result.error is not None and H.REQUEUED in call.headers
    return None if again else result


async def is_over(instance: Instance, session: Session, call: Call) -> bool:
    """Whether a call that may have run before has its outcome in the journal.

    It may if it came before its session was opened here, or was applied: then its commit may have gone.
    """
    came_since = call.arrived > session.read_at and not session.has_applied(call.id)
    if came_since or H.REQUEUED in call.headers:
        return False
    return await instance.host.outcomes.known(call.run, call.id)


async def commit(
    instance: Instance, session: Session, call: Call, result: Result, held: HeldOutcome | None
) -> bool:
    """Store what the handler has changed, with its outcome; False if another host has the session now.

    Args:
        held: the same outcome, if it is told together with the commit.

    Raises:
        CallboardError: what it has changed cannot be stored; nothing is.
    """
    try:
        if session.told is not None:
            await session.told.wait()
        await session.commit(call.id, msgspec.Raw(encode(result)), held)
    except Fenced:
        forget(instance, call.session)
        return False
    finally:
        session.rollback()  # of a commit that has succeeded nothing is left to drop
    session.told = asyncio.Event()
    return True


def forget(instance: Instance, session: str) -> None:
    """Nothing that is known here of a session is certain: it is read anew."""
    instance.host.states.forget(instance.name, session)
    if instance.snapshots is not None:
        instance.snapshots.doubt(session)


def told(session: Session) -> None:
    """The outcome of the session's last commit is in the journal."""
    if session.told is not None:
        session.told.set()
