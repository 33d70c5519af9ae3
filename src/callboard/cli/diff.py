"""``callboard diff``: the first step in which two runs differ."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit
from callboard.cli.output import table
from callboard.cli.replay import one_line
from callboard.infra.durations import seconds

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.actors.app import App
    from callboard.actors.compare import Diff, Difference, Side

_SHOWN = 500
_WORDS = {
    "step": "only one of them has this step",
    "call": "they call something else",
    "arguments": "they call it with other arguments",
    "outcome": "it gave something else",
    "result": "all steps are alike, but the results are not",
}


def diff(run: str, other: str, app: str | None = None, /, *, common: Common = DEFAULTS) -> int:
    """Find the first step in which two runs differ: its call, its arguments, or what it gave.

    Steps are held against each other by their places in the code. What now() gave is not compared.

        callboard diff 01JD0000000000000000000000 01JD1111111111111111111111
        callboard diff 01JD0000000000000000000000 01JD1111111111111111111111 app.py

    It exits with 0 if the runs are alike, with 1 if they differ.

    Args:
        run: Its id; 'callboard runs' lists them.
        other: The id of the other one.
        app: An application as for 'callboard host', whose code is replayed to compare the arguments of calls,
            too: they stand in no journal.
    """
    from callboard.actors.app import load
    from callboard.actors.local import leave_to_board

    common.log("error")
    loaded = load(app) if app is not None else None
    if loaded is not None:
        leave_to_board()
    found = asyncio.run(_diff(run, other, loaded, common))
    data = {"alike": found.alike, **msgspec.structs.asdict(found)}
    common.output.answer(data, lambda screen: _show(found, screen))
    return Exit.OK if found.alike else Exit.FAILED


async def _diff(run: str, other: str, app: App | None, common: Common) -> Diff:
    from callboard.actors.compare import compare

    async with common.client() as client:
        workflow = None
        if app is not None:
            workflow = app.workflow((await client.status(run)).workflow)
        return await compare(client, run, other, workflow)


def _show(found: Diff, screen: Console) -> None:
    runs = table(("run", "workflow", "status", "steps", "took"), numbers=("steps", "took"))
    for side in (found.one, found.other):
        runs.add_row(side.run, side.workflow, side.status, str(side.steps), seconds(side.took))
    screen.print(runs)
    lines = []
    if not found.same_workflow:
        lines.append("they are runs of different workflows")
    if not found.same_arguments:
        lines += ["their arguments differ", *_both(found, found.one.arguments, found.other.arguments)]
    if found.first is not None:
        lines += [_where(found.first), *_both(found, found.first.one, found.first.other)]
    elif found.alike:
        lines.append("they are alike")
    else:
        lines.append("all their steps and results are alike")
    screen.print("\n" + "\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _where(first: Difference) -> str:
    if not first.path:
        return _WORDS[first.what]
    return f"they differ first at step {first.number}, {first.path} {first.call}: {_WORDS[first.what]}"


def _both(found: Diff, one: object, other: object) -> list[str]:
    return [_side(found.one, one), _side(found.other, other)]


def _side(side: Side, what: object) -> str:
    return f"  {side.run}: {one_line(what, _SHOWN) if what is not None else 'nothing'}"
