"""``callboard migrate``: move a session to another host."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common, Seconds
from callboard.cli.exits import Exit

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.infra.messages.control import Migration


def migrate(
    session: str,
    actor: str,
    /,
    *,
    to: str | None = None,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    also: Annotated[Sequence[str], Parameter(negative=())] = (),
    timeout: Seconds = 60.0,
    common: Common = DEFAULTS,
) -> int:
    """Move a session to another host, with the calls that wait for it.

    A call that runs ends first, or is stopped where it is preemptable. What is stored stays where it is.

        callboard migrate chat-7 Planner
        callboard migrate chat-7 Planner --to h-0123456789ab

    Args:
        session: Its id.
        actor: The agent.
        to: The host that is to have it, by its id or name; by default the least busy other one.
        from_: The host that has it now; if another one has it, nothing is moved.
        also: Further sessions of the same agent.
        timeout: Seconds to wait for a call that runs; the move goes on after that.
    """

    async def ask() -> list[Migration]:
        async with common.client() as client:
            return await client.migrate([session, *also], actor, from_, to, timeout=timeout)

    moved = asyncio.run(ask())
    common.output.answer(moved, lambda screen: _print(moved, screen))
    return Exit.OK


def _print(moved: list[Migration], screen: Console) -> None:
    for one in moved:
        after = f", {one.calls} calls with it" if one.calls else ""
        screen.print(f"session {one.session} is on {one.host}{after}", markup=False, highlight=False)
