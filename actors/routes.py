"""Routes, as those follow them who make calls: which host's lane a call goes to.

A process hears of every route that is stored, on one subscription, and so follows it from then on. A route
to a host that is not there, or does not run the actor, is passed over; one that spreads calls does so by a
hash of the call's id (of its session, where the actor keeps something for it), so that a replay decides
likewise, and only the calls of a host that goes away go elsewhere (rendezvous hashing with weights:
Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", 2005). One of a model may say instead that
its calls go by the beginning of their prompts.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from callboard.actors.entries import PREFIX, Newest
from callboard.infra import subjects
from callboard.infra.messages.policy import Route

if TYPE_CHECKING:
    from callboard.actors.node import Node

NOWHERE = ("", 0)
BY_PREFIX = "prefix"
"""What routes go by that leave the choice to :mod:`callboard.actors.prefixes`."""
_decode = msgspec.msgpack.Decoder(Route).decode


def _itself(host: str) -> str:
    return host


class Routes:
    """The routes that hold now.

    Args:
        node: of this process, open.
        serves: whether a host is there and runs an actor.
        spawn: runs a coroutine on the side.
        find: the id of the host that has a name; ids are their own.
    """

    def __init__(
        self,
        node: Node,
        serves: Callable[[str, str], bool],
        spawn: Callable[..., object],
        find: Callable[[str], str] = _itself,
    ) -> None:
        self._serves = serves
        self._find = find
        self._newest = Newest(node, "route", _calls_of, read_route, spawn)
        self._routes = self._newest.held

    # -- hearing of them ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Hear of routes from now on, and read what there is. Idempotent."""
        await self._newest.start()

    def stop(self) -> None:
        """Idempotent."""
        self._newest.stop()

    # -- following them ----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._routes)

    def all(self) -> list[Route]:
        """Those that hold, in no order."""
        return list(self._routes.values())

    def keeps(self, actor: str, session: str, host: str) -> bool:
        """Whether a route of its own names this host for a session."""
        route = self._routes.get((actor, session))
        if route is None or 0 < route.until <= time.time():
            return False
        return host in route.hosts or any(self._find(one) == host for one in route.hosts)

    def goes_by_prefix(self, actor: str) -> bool:
        """Whether calls of an actor go to the host whose engine holds most of their prompt."""
        route = self._routes.get((actor, ""))
        return route is not None and route.by == BY_PREFIX and not 0 < route.until <= time.time()

    def by_prefix(self, actor: str, session: str) -> tuple[list[str], int]:
        """The hosts among which a call goes by its prefix, and the epoch of the route; none: it does not."""
        if not self.goes_by_prefix(actor) or (actor, session) in self._routes:
            return [], 0
        route = self._routes[actor, ""]
        named = dict.fromkeys(self._find(host) for host, weight in route.hosts.items() if weight > 0)
        return [host for host in named if self._serves(host, actor)], route.epoch

    def choose(self, actor: str, session: str, future: str, *, keeps: bool) -> tuple[str, int]:
        """The host that a call goes to, and the epoch of the route that says so; nothing where none does.

        Args:
            future: id of the call.
            keeps: the actor keeps something for a session, so that its calls go the same way.
        """
        if not self._routes:
            return NOWHERE
        key = session if keeps else future
        return choose(
            self._routes, actor, session, key, serves=self._serves, now=time.time(), find=self._find
        )


def choose(
    routes: Mapping[tuple[str, str], Route],
    actor: str,
    session: str,
    key: str,
    *,
    serves: Callable[[str, str], bool],
    now: float,
    find: Callable[[str], str] = _itself,
) -> tuple[str, int]:
    """The host that a call goes to by these routes, and the epoch of the one that says so; see NOWHERE.

    Args:
        routes: by actor and session, or by actor and nothing.
        key: by which calls are spread: the future's id, or the session.
        serves: whether a host is there and runs an actor; now: unix seconds.
        find: the id of the host that has a name. Calls are spread by what the route says: so by names each
            goes to the same one when that was started again.
    """
    for where in ((actor, session), (actor, "")):
        route = routes.get(where)
        if route is None or 0 < route.until <= now:
            continue
        there = {host: weight for host, weight in route.hosts.items() if serves(find(host), actor)}
        chosen = spread(there, key)
        if chosen:
            return find(chosen), route.epoch
    return NOWHERE


def spread(weights: Mapping[str, float], key: str) -> str:
    """One of these, always the same for the same key, and each for a share of all keys as its weight says."""
    if len(weights) == 1:
        ((only, weight),) = weights.items()
        return only if weight > 0 else ""
    best, most = "", 0.0
    for one, weight in weights.items():
        digest = hashlib.blake2b(f"{one}\0{key}".encode(), digest_size=8).digest()
        drawn = (int.from_bytes(digest, "big") + 1) / (2**64 + 1)  # above 0, below 1
        score = weight / -math.log(drawn) if drawn < 1 else math.inf
        if weight > 0 and score > most:
            best, most = one, score
    return best


def read_route(subject: str, body: bytes) -> Route | None:
    """A stored route; None for what is none, whoever has put it there. Its hosts are used in subjects."""
    try:
        route = _decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    actor, session = _calls_of(subject)
    usable = all(subjects.is_token(host) and weight >= 0 for host, weight in route.hosts.items())
    return route if usable and (route.actor, route.session) == (actor, session) else None


def _calls_of(subject: str) -> tuple[str, str]:
    """Actor and session that a key is about."""
    actor, _, session = subject.removeprefix(f"{PREFIX}route.").partition(".")
    try:
        return actor, subjects.session_of(session)
    except ValueError:  # no base64: not written here
        return actor, session
