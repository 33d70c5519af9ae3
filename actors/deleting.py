"""Deleting a session: its state at all agents, and what was decided for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from callboard.actors import routing
from callboard.actors.entries import STREAM
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import StateUnknown
from callboard.state.shelf import Place

if TYPE_CHECKING:
    from callboard.actors.node import Node

_AT_ONCE = 16


class Deleted(msgspec.Struct):
    """What there was of a session.

    Attributes:
        states: agents that kept something for it.
        routes: actors at which it had a route of its own.
        priorities: actors at which it had a priority; an empty one stands for all.
    """

    session: str
    states: list[str] = []
    routes: list[str] = []
    priorities: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.states or self.routes or self.priorities)


async def look(node: Node, session: str) -> Deleted:
    """What there is of a session.

    Raises:
        StateUnknown: nothing.
        NameInvalid: no session can be called so.
    """
    token = subjects.session_token(session)
    states, routes, own, everywhere = await asyncio.gather(
        node.shelf.places(),
        _decided(node, subjects.session_route("*", token)),
        _decided(node, subjects.actor_priority(token, "*")),
        _decided(node, subjects.priority(token)),
    )
    found = Deleted(
        session,
        [place.actor for place in states if place.session == session],
        sorted(subject.split(".")[3] for subject in routes),
        [""] * len(everywhere) + sorted(subject.split(".")[4] for subject in own),
    )
    if not found:
        raise StateUnknown(
            f"there is nothing of session {session}: no agent keeps a state for it, and it has neither a "
            "route nor a priority; 'callboard state list' shows all states",
            actor="",
            session=session,
            version=0,
        )
    return found


async def delete(node: Node, session: str) -> Deleted:
    """Remove a session's states, routes and priorities. One that breaks off may be asked for again.

    Raises:
        StateUnknown: there is nothing of it.
        NameInvalid: no session can be called so.
    """
    found = await look(node, session)
    token = subjects.session_token(session)
    decided = [
        subjects.actor_priority(token, actor) if actor else subjects.priority(token)
        for actor in found.priorities
    ]
    decided += [subjects.session_route(actor, token) for actor in found.routes]
    # A mark stays for a while: hosts that follow what was decided find that it is gone.
    head = H.encode([("KV-Operation", "DEL"), (H.TTL, str(routing.REMEMBERED))])
    await asyncio.gather(*(node.store.stored(subject, b"", head) for subject in decided))
    await _erase(node, (Place(actor, session) for actor in found.states))
    return found


async def _erase(node: Node, places: Iterable[Place]) -> None:
    some = asyncio.Semaphore(_AT_ONCE)

    async def erase(place: Place) -> None:
        async with some:
            await node.shelf.erase(place)

    await asyncio.gather(*(erase(place) for place in places))


async def _decided(node: Node, pattern: str) -> list[str]:
    """The subjects of what was decided and holds."""
    stored = await node.reader.read(STREAM, pattern)
    newest = {one.subject: one for one in stored}
    return [subject for subject, one in newest.items() if one.body]
