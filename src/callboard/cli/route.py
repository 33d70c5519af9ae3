"""``callboard route``: where calls go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from cyclopts import App

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit, NotFound, UsageError
from callboard.cli.output import clock, table

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.infra.messages.policy import Route
    from callboard.infra.messages.registry import Pulse

app = App(name="route", help="Say which hosts calls go to.", result_action="return_value")


@app.command(name="set")
def set_(
    actor: str,
    /,
    *host: str,
    session: str = "",
    reason: str = "",
    ttl: float | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Have calls of an actor go to these hosts, as far as they are there.

    Of several hosts each gets its share. A host has a new id each time it starts, so a route to that ends
    with it; a route to the name of a host ('callboard host --name') goes on when it is started again.

        callboard route set Planner h-7m2k --session chat-7
        callboard route set search h-7m2k=3 h-x9p1=1 --reason "the second one is small"

    Args:
        actor: Whose calls.
        host: Its id or name, or that and a weight: ID=WEIGHT; 'callboard actors --json' lists ids.
        session: Only calls of this session.
        reason: Why, for whoever looks at it later.
        ttl: Seconds for which it holds; for ever by default.
    """
    weights = dict(map(_weight, host))

    async def store() -> tuple[Route, list[Pulse], str | None]:
        from callboard.actors.moving import holder
        from callboard.actors.registry import hosts
        from callboard.state.shelf import Place

        async with common.client() as client:
            route = await client.route(actor, weights, session=session, reason=reason, ttl=ttl)
            held = await holder(client.node, Place(actor, session)) if session else None
            return route, await hosts(client.node), held

    route, hosts, held = asyncio.run(store())
    where = ", ".join(_shares(route))
    common.output.answer(route, lambda screen: screen.print(f"{_of(route)}: {where}", markup=False))
    there = _there(hosts)
    if missing := [one for one in route.hosts if (one, actor) not in there]:
        common.output.hint(
            f"no {actor} at {', '.join(missing)} now, so calls pass that over; see 'callboard top'"
        )
    names = {pulse.name for pulse in hosts if pulse.host == held}
    if not {held, *names} & set(route.hosts) and (held, actor) in there:
        common.output.hint(
            f"session {session} is at {held}, and stays there; 'callboard migrate {session} {actor}' moves it"
        )
    return Exit.OK


def _there(hosts: list[Pulse]) -> set[tuple[str, str]]:
    """Which hosts run which actors, by their ids and names."""
    there = [pulse for pulse in hosts if not pulse.draining]
    return {
        (host, actor) for pulse in there for host in (pulse.host, pulse.name) for actor in pulse.instances
    }


def _weight(typed: str) -> tuple[str, float]:
    host, given, weight = typed.partition("=")
    try:
        return host, float(weight) if given else 1.0
    except ValueError:
        raise UsageError(f"{typed!r} is no host with a weight: give ID, or ID=WEIGHT") from None


@app.command(name="list")
def list_(*, actor: str | None = None, common: Common = DEFAULTS) -> int:
    """List the routes that hold.

    Args:
        actor: Only this one's.
    """

    async def look() -> tuple[list[Route], list[Pulse]]:
        from callboard.actors.registry import hosts

        async with common.client() as client:
            return await client.routes(actor), await hosts(client.node)

    routes, hosts = asyncio.run(look())
    there = _there(hosts)
    told = [
        msgspec.to_builtins(route) | {"missing": [h for h in route.hosts if (h, route.actor) not in there]}
        for route in routes
    ]
    common.output.answer(told, lambda screen: _print(routes, there, screen))
    return Exit.OK


def _print(routes: list[Route], there: set[tuple[str, str]], screen: Console) -> None:
    from rich.markup import escape

    if not routes:
        screen.print("no routes")
        return
    titles = ("actor", "session", "hosts", "since", "until", "epoch", "by", "reason")
    listed = table(titles, numbers=("epoch",), texts=("reason",))
    for one in routes:
        missing = {host for host in one.hosts if (host, one.actor) not in there}
        hosts = ", ".join(_shares(one, missing)) + (f", by {one.by}" if one.by else "")
        until = clock(one.until) if one.until else ""
        cells = (one.actor, one.session, hosts, clock(one.at), until, str(one.epoch), one.policy, one.reason)
        listed.add_row(*map(escape, cells))
    screen.print(listed)


def _shares(route: Route, missing: set[str] | frozenset[str] = frozenset()) -> list[str]:
    """Each host, with its share where there are several."""
    every = sum(route.hosts.values())
    shared = len(route.hosts) > 1 and not route.by
    shares = {host: f" {weight / every:.0%}" if shared else "" for host, weight in route.hosts.items()}
    return [f"{host}{share}{' (not there)' if host in missing else ''}" for host, share in shares.items()]


def _of(route: Route) -> str:
    return f"{route.actor}, session {route.session}" if route.session else route.actor


@app.command
def clear(actor: str, /, *, session: str = "", common: Common = DEFAULTS) -> int:
    """Take a route away: calls go to whoever has room again.

    Args:
        actor: Whose.
        session: That of this session; else the one of all that have none of their own.
    """

    async def take() -> bool:
        async with common.client() as client:
            return await client.clear_route(actor, session)

    if not asyncio.run(take()):
        where = f"session {session} at {actor}" if session else actor
        raise NotFound(f"there is no route of {where}; see 'callboard route list'", what="route", name=actor)
    data = {"cleared": {"actor": actor, "session": session}}
    common.output.answer(data, lambda screen: screen.print("cleared"))
    return Exit.OK
