"""Asking for a session to be moved: who has it, who is to have it, and is it there."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from callboard.actors import registry
from callboard.actors.failures import restore
from callboard.actors.migration import ANSWER, unmovable
from callboard.infra import subjects
from callboard.infra.errors import (
    MigrationFailed,
    NoDestination,
    ResultTimeout,
    StateUnknown,
    UnknownActor,
)
from callboard.infra.messages.control import Migrate, Migrated, Migration
from callboard.infra.messages.registry import ActorInfo, Pulse
from callboard.state.packing import decode_commit
from callboard.state.shelf import Place

if TYPE_CHECKING:
    from callboard.actors.node import Node

_SPARE = 2.0
_decode = msgspec.msgpack.Decoder(Migrated).decode


async def migrate(
    node: Node,
    sessions: Sequence[str],
    actor: str,
    source: str | None,
    destination: str | None,
    timeout: float,
) -> list[Migration]:
    """See :meth:`callboard.actors.client.Client.migrate`."""
    sessions = list(dict.fromkeys(sessions))
    subjects.token("actor", actor)
    info, pulses, holders = await asyncio.gather(
        registry.actor(node, actor),
        registry.hosts(node),
        asyncio.gather(*(holder(node, Place(actor, session)) for session in sessions)),
    )
    _check(actor, info, sessions, holders)
    ids = {pulse.name: pulse.host for pulse in sorted(pulses, key=lambda pulse: pulse.started) if pulse.name}
    source, destination = ids.get(source or "", source), ids.get(destination or "", destination)
    serving = {pulse.host: pulse for pulse in pulses if actor in pulse.instances}
    found = {session: str(host) for session, host in zip(sessions, holders, strict=True)}
    for session, host in found.items():
        if source is not None and host != source:
            raise MigrationFailed(
                f"session {session} of {actor} is held by host {host}, not by {source}: nothing was moved",
                actor=actor,
                session=session,
                host=host,
            )
    to = _destination(actor, serving.values(), set(found.values()), destination)
    asked: dict[str, list[str]] = defaultdict(list)
    for session, host in found.items():
        asked[host if host in serving else to].append(session)  # of one that is gone anybody may take it
    answers = await asyncio.gather(
        *(_asked(node, host, actor, some, to, timeout) for host, some in asked.items())
    )
    moved = {one.session: one for some in answers for one in some}
    for one in moved.values():
        if one.error is not None:
            raise restore(one.error)
    for one in moved.values():
        if destination is not None and one.host != destination:
            raise MigrationFailed(
                f"session {one.session} of {actor} was on its way already, and is on host {one.host} now: "
                "ask for it once more",
                actor=actor,
                session=one.session,
                host=one.host,
            )
    return [moved[session] for session in sessions]


async def holder(node: Node, place: Place) -> str | None:
    """The host that holds a session; None if nothing is kept for it, empty if nobody can tell."""
    stored = await node.shelf.last(place)
    try:
        return None if stored is None else decode_commit(stored.body).holder
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""


def _check(actor: str, info: ActorInfo | None, sessions: Sequence[str], holders: Sequence[object]) -> None:
    """Raise an error if there is no such agent, or it has no such session."""
    if info is None:
        raise UnknownActor(f"there is no agent {actor}; see 'callboard actors'", actor=actor)
    if not any(method.directives.get("managed") for method in info.methods):
        raise unmovable(actor, stateful=bool(info.directives.get("stateful")))
    for session, host in zip(sessions, holders, strict=True):
        if host is None:
            raise StateUnknown(
                f"{actor} has no state of session {session}, so that there is nothing to move; 'callboard "
                "state list' shows all",
                actor=actor,
                session=session,
                version=0,
            )


def _destination(actor: str, serving: Iterable[Pulse], holders: set[str], named: str | None) -> str:
    """The host that was named, or the least busy one that is not among the holders.

    Raises:
        NoDestination: there is none.
    """
    fit = [pulse for pulse in serving if not (pulse.draining or pulse.instances[actor].standby)]
    if named is not None:
        if all(pulse.host != named for pulse in fit):
            raise NoDestination(
                f"host {named} cannot take sessions of {actor}: it does not run it, is about to leave or is "
                "not there; 'callboard actors' lists who does",
                actor=actor,
                host=named,
            )
        return named
    others = [pulse for pulse in fit if pulse.host not in holders]
    if not others:
        raise NoDestination(
            f"no other host runs {actor}: start one with 'callboard host', then move the session",
            actor=actor,
            host="",
        )
    return min(others, key=lambda pulse: (_load(pulse, actor), pulse.started, pulse.host)).host


def _load(pulse: Pulse, actor: str) -> int:
    info = pulse.instances[actor]
    return info.busy + info.mailbox


async def _asked(
    node: Node, host: str, actor: str, sessions: list[str], to: str, timeout: float
) -> list[Migration]:
    """Ask the source until the sessions have moved; it tells now and then how far it is.

    Raises:
        ResultTimeout: they have not in time.
        RequestTimeout: the source does not answer.
    """
    ends = time.monotonic() + timeout
    body = msgspec.msgpack.encode(Migrate(actor, sessions, to))
    while True:
        answer = _decode(await node.connection.request(subjects.control(host), body, ANSWER + _SPARE))
        waiting = [one.session for one in answer.sessions if one.under_way]
        if not waiting:
            return answer.sessions
        if time.monotonic() > ends:
            raise ResultTimeout(
                f"{len(waiting)} of {len(sessions)} sessions of {actor} have not left host {host} in time, "
                "since calls of theirs run there: they move when those end",
                timeout=timeout,
            )
