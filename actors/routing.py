"""Setting, listing and clearing routes, as clients do."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from callboard.actors.entries import STREAM
from callboard.actors.routes import read_route
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import Fenced, RouteInvalid, RouteOutdated
from callboard.infra.messages.policy import Route

if TYPE_CHECKING:
    from callboard.actors.node import Node

BY_HAND = "by hand"
"""The policy of what people decide."""
_TRIES = 10
REMEMBERED = 3600
"""Seconds for which the stream remembers that a route was cleared."""


async def put(node: Node, route: Route, ttl: float | None = None) -> Route:
    """Store a route; it is followed from then on.

    Args:
        route: epoch 0 means the next one.
        ttl: seconds after which it ends.

    Raises:
        RouteInvalid: it names no host, or a weight is none.
        RouteOutdated: one of a later epoch is there.
    """
    _check(route, ttl)
    subject = _subject(route.actor, route.session)
    route.at = time.time()
    route.until = route.at + ttl if ttl is not None else 0.0
    given = route.epoch
    for tried in range(_TRIES):
        last = await node.reader.last(STREAM, subject)
        known = read_route(subject, last.body) if last is not None else None
        if given and known is not None and known.epoch > given:
            raise RouteOutdated(
                f"the route is of epoch {given}, and one of epoch {known.epoch} is there ({known.policy}): "
                "decide anew, with what there is now",
                epoch=given,
                known=known.epoch,
            )
        route.epoch = given or max(await next_epoch(node), known.epoch + 1 if known is not None else 0)
        head = [(H.EXPECTED_SEQUENCE, str(last.sequence if last is not None else 0))]
        if ttl is not None:
            head.append((H.TTL, str(max(1, math.ceil(ttl)))))
        try:
            await node.store.stored(subject, msgspec.msgpack.encode(route), H.encode(head))
        except Fenced:
            if tried == _TRIES - 1:
                raise
        else:
            return route
    raise AssertionError("unreachable")


async def every(node: Node, actor: str | None = None) -> list[Route]:
    """The routes that hold now, by actor and session."""
    kept = f"$KV.{subjects.POLICY_BUCKET}.route.>"
    found = [read_route(one.subject, one.body) for one in await node.reader.read(STREAM, kept) if one.body]
    now = time.time()
    hold = [
        one for one in found if one is not None and not 0 < one.until <= now and actor in {None, one.actor}
    ]
    return sorted(hold, key=lambda one: (one.actor, one.session))


async def clear(node: Node, actor: str, session: str = "") -> bool:
    """Take a route away; whether there was one."""
    subject = _subject(subjects.token("actor", actor), session)
    last = await node.reader.last(STREAM, subject)
    if last is None or not last.body:
        return False
    head = H.encode([("KV-Operation", "DEL"), (H.TTL, str(REMEMBERED))])
    await node.store.stored(subject, b"", head)
    return True


def _subject(actor: str, session: str) -> str:
    return (
        subjects.session_route(actor, subjects.session_token(session)) if session else subjects.route(actor)
    )


async def next_epoch(node: Node) -> int:
    """Greater than any given before: the stream's sequence grows, whatever is cleared."""
    info = await node.topology.api(f"STREAM.INFO.{STREAM}")
    return int(info["state"]["last_seq"]) + 1


def _check(route: Route, ttl: float | None) -> None:
    subjects.token("actor", route.actor)
    for host in route.hosts:
        subjects.token("host", host)
    problem = ""
    if not all(0 <= weight < math.inf for weight in route.hosts.values()):
        problem = "a weight is 0 or more"
    elif not sum(route.hosts.values()):
        problem = "name a host, with a weight above 0"
    elif ttl is not None and not 0 < ttl < math.inf:
        problem = "it ends after some seconds, or give no time"
    if problem:
        raise RouteInvalid(f"{route.actor} cannot be routed like this: {problem}", actor=route.actor)


def as_weights(hosts: str | Mapping[str, float]) -> dict[str, float]:
    """One host, or several with their weights."""
    return {hosts: 1.0} if isinstance(hosts, str) else {host: float(weight) for host, weight in hosts.items()}
