"""``callboard top``: what goes on, live."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import TYPE_CHECKING

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit
from callboard.cli.output import console, table
from callboard.infra.durations import seconds

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from callboard.actors.client import Client
    from callboard.controller.snapshot import ActorLine, Snapshot
    from callboard.controller.view import View

_PATIENCE = 2.0
"""Seconds that hosts get to tell their state."""
_TURN = 0.02
_MIB = 1 << 20


def top(*, every: float = 1.0, common: Common = DEFAULTS) -> int:
    """Show what goes on: hosts, actors, engines of models, lanes in which calls wait, runs; Ctrl-C ends it.

    It listens to the hosts itself, and needs no controller. With --json, or where nobody looks, it is
    shown once.

    Args:
        every: Seconds between two looks.
    """
    live = sys.stdout.isatty() and not common.json
    found = asyncio.run(_show(common, every, live=live))
    if found is not None:
        common.output.answer(found, lambda screen: screen.print(_page(found, None)))
    return Exit.OK


async def _show(common: Common, every: float, *, live: bool) -> Snapshot | None:
    from callboard.controller.follow import Follower
    from callboard.controller.view import View

    async with common.client() as client:
        view = View()
        follower = Follower(client.node, view)
        await follower.start()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    while not follower.complete:  # noqa: ASYNC110 - at most for a moment
                        await asyncio.sleep(_TURN)
            if not live:
                return await _look(client, view)
            await _live(client, view, every)
        finally:
            follower.stop()
    return None


async def _look(client: Client, view: View) -> Snapshot:
    from callboard.controller.lease import leader
    from callboard.controller.snapshot import snapshot

    view.prune(time.time())
    rates = {limit.workflow: limit.rate for limit in await client.admissions()}
    return snapshot(view, time.time(), await leader(client.node), rates)


async def _live(client: Client, view: View, every: float) -> None:
    from rich.live import Live

    before = None
    with Live(console=console(), screen=True, auto_refresh=False) as screen:
        while True:
            now = await _look(client, view)
            screen.update(_page(now, before), refresh=True)
            before = now
            await asyncio.sleep(max(every, _TURN))


def _page(now: Snapshot, before: Snapshot | None) -> Group:
    from rich.console import Group
    from rich.text import Text

    futures = ", ".join(f"{count} {state}" for state, count in now.futures.items())
    led = f"controller {now.leader} leads" if now.leader else "no controller"
    head = f"{len(now.hosts)} hosts  {now.runs_open} runs  {now.sessions_open} sessions  futures: {futures}"
    parts = [_hosts(now), _actors(now, before)]
    parts += [_engines(now, before)] if now.engines else []
    parts += [made for made, lines in ((_lanes(now), now.lanes), (_runs(now), now.runs)) if lines]
    return Group(Text(f"{head}  {led}", style="bold"), *(one for part in parts for one in (Text(), part)))


def _hosts(now: Snapshot) -> Table:
    shown = table(("host", "cpu", "MiB", "late", "running", "waiting", ""), numbers=("cpu", "MiB", "late"))
    for host in now.hosts:
        shown.add_row(
            host.host,
            f"{host.cpu:.2f}",
            str(host.memory // _MIB),
            seconds(host.late),
            str(host.running),
            str(host.waiting),
            "[yellow]draining[/]" if host.draining else "",
        )
    return shown


def _actors(now: Snapshot, before: Snapshot | None) -> Table:
    numbers = ("hosts", "busy", "to come", "sent", "waiting", "running", "per s", "failed", "waited", "took")
    limited = any(line.held or line.rate is not None for line in now.actors)
    more = ("held", "accepts") if limited else ()
    shown = table(("actor", *numbers, *more), numbers=(*numbers, *more))
    known = {line.actor: line.done for line in before.actors} if before is not None else {}
    elapsed = now.at - before.at if before is not None else 0.0
    for line in now.actors:
        fresh = line.done - known.get(line.actor, line.done)
        shown.add_row(
            f"{line.actor}()" if line.workflow else line.actor,
            str(line.hosts),
            str(line.busy) if line.workflow else f"{line.busy}/{line.slots}",
            str(line.announced),
            str(line.sent),
            str(line.waiting),
            str(line.running),
            f"{fresh / elapsed:.0f}" if elapsed else "",
            f"[red]{line.failed}[/]" if line.failed else "0",
            seconds(line.waited),
            seconds(line.took),
            *(_limit(line) if limited else ()),
        )
    return shown


def _engines(now: Snapshot, before: Snapshot | None) -> Table:
    numbers = ("in batch", "in queue", "room", "cache", "prefix hits", "tokens per s", "preempted")
    shown = table(("engine of", "host", *numbers), numbers=numbers)
    known = (
        {(line.actor, line.host): line.generated for line in before.engines if line.answers}
        if before is not None
        else {}
    )
    elapsed = now.at - before.at if before is not None else 0.0
    for line in now.engines:
        if not line.answers:
            shown.add_row(line.actor, line.host, "no answer", style="bold red")
            continue
        fresh = line.generated - known.get((line.actor, line.host), line.generated)
        shown.add_row(
            line.actor,
            line.host,
            str(line.running),
            str(line.waiting),
            str(line.slots),
            f"{line.kv:.0%}",
            f"{line.hit / line.queried:.0%}" if line.queried else "",
            f"{max(0, fresh) / elapsed:.0f}" if elapsed else "",
            str(line.preempted),
        )
    return shown


def _limit(line: ActorLine) -> tuple[str, str]:
    return str(line.held or ""), "" if line.rate is None else f"{line.rate:g}/s"


def _lanes(now: Snapshot) -> Table:
    numbers = ("waiting", "oldest", "in mailbox")
    shown = table(("lane", *numbers), numbers=numbers)
    for line in now.lanes:
        oldest = seconds(line.oldest) if line.waiting else ""
        shown.add_row(line.lane, str(line.waiting), oldest, str(line.mailbox or ""))
    return shown


def _runs(now: Snapshot) -> Table:
    shown = table(("run", "workflow", "session", "driver", "age", "futures"), numbers=("age", "futures"))
    for line in now.runs:
        session = "" if line.session == line.run else line.session
        shown.add_row(line.run, line.workflow, session, line.driver, seconds(line.age), str(line.futures))
    return shown
