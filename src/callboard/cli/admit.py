"""``callboard admit``: how many requests of a workflow are accepted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit, UsageError
from callboard.cli.output import clock, table

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.infra.messages.policy import Admission

_ALL = "all"


def admit(
    workflow: str | None = None,
    rate: str | None = None,
    /,
    *,
    reason: str = "",
    common: Common = DEFAULTS,
) -> int:
    """Say how many requests of a workflow are accepted a second; without arguments, list what was said.

    What is more waits, in order; a request whose deadline comes before its turn fails at once, and is told
    when to try again. No policy changes what was said here.

        callboard admit research 2.5 --reason "the model's quota"
        callboard admit research 0
        callboard admit research all

    Args:
        workflow: Whose requests.
        rate: Requests a second, of all drivers together; 0: none; all: no limit any more.
        reason: Why, for whoever looks at it later.
    """
    if workflow is None:
        return _list(common)
    if rate is None:
        raise UsageError(f"say how many requests of {workflow} are accepted a second, or 'all'")
    wanted = _rate(rate)

    async def store() -> tuple[Admission | None, bool]:
        from callboard.actors.registry import actor

        async with common.client() as client:
            limit = await client.admit(workflow, wanted, reason=reason)
            known = await actor(client.node, workflow)
            return limit, known is not None and known.kind == "workflow"

    limit, known = asyncio.run(store())
    data = {"workflow": workflow, "rate": wanted, "limit": limit}
    told = f"{workflow}: {told_rate(limit)}"
    common.output.answer(data, lambda screen: screen.print(told, markup=False))
    if not known:
        common.output.hint(
            f"nobody has announced a workflow {workflow} so far; 'callboard actors' lists what there is"
        )
    return Exit.OK


def _rate(typed: str) -> float | None:
    if typed == _ALL:
        return None
    try:
        return float(typed)
    except ValueError:
        raise UsageError(f"{typed!r} is no rate: give requests a second, or 'all'") from None


def told_rate(limit: Admission | None) -> str:
    """A limit in words."""
    return "no limit" if limit is None else f"{limit.rate:g} requests a second"


def _list(common: Common) -> int:
    async def look() -> list[Admission]:
        async with common.client() as client:
            return await client.admissions()

    limits = asyncio.run(look())
    common.output.answer(limits, lambda screen: _print(limits, screen))
    return Exit.OK


def _print(limits: list[Admission], screen: Console) -> None:
    from rich.markup import escape

    if not limits:
        screen.print("no limits")
        return
    listed = table(
        ("workflow", "per s", "since", "epoch", "by", "reason"), numbers=("per s", "epoch"), texts=("reason",)
    )
    for one in limits:
        cells = (one.workflow, f"{one.rate:g}", clock(one.at), str(one.epoch), one.policy, one.reason)
        listed.add_row(*map(escape, cells))
    screen.print(listed)
