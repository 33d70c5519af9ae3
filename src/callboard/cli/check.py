"""``callboard check``: before a deployment, whether the runs that have not ended go on under the code."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import TYPE_CHECKING

from callboard.cli.common import DEFAULTS, Common, Count, Seconds
from callboard.cli.exits import Exit
from callboard.cli.output import table
from callboard.cli.replay import end_threads

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.actors.app import App
    from callboard.actors.check import Checked

_EVERY = 1.0
_SHOWN = 20
_ADVICE = (
    "let these end on hosts with the code that they began with, or give the changed workflow another name "
    "and keep a host of the old one until then"
)


def check(
    app: str,
    /,
    *,
    ended: Count | None = None,
    patience: Seconds = 10.0,
    common: Common = DEFAULTS,
) -> int:
    """Before a deployment: tell whether the runs that have not ended would go on under the code of APP.

    Each of them, those that wait for weeks included, is replayed here against its record, as by 'callboard
    replay': nothing is called, sent or stored, and the runs hear nothing of it.

        callboard check app.py
        callboard check app.py:research --ended 20

    It exits with 1 if there is a run that would end with 'diverged', or would fail.

    Args:
        app: A file or module, then optionally ':' and names of actors, as for 'callboard host'.
        ended: Also hold so many runs of each workflow that have ended, the latest, against the code.
        patience: Seconds that the code of a run has to come to where the run stands; what it does besides
            calls, such as asyncio.sleep, it does.
    """
    from callboard.actors.app import load
    from callboard.actors.local import leave_to_board

    common.log("error")
    loaded = load(app)
    leave_to_board()
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the code prints is no answer
            found = asyncio.run(_check(loaded, ended or 0, patience, common))
    finally:
        end_threads([one.name for one in loaded.declarations])
    common.output.answer(found, lambda screen: _print(found, app, screen))
    return Exit.FAILED if any(one.problem for one in found) else Exit.OK


async def _check(app: App, ended: int, patience: float, common: Common) -> list[Checked]:
    from callboard.actors.check import check

    told = time.monotonic()
    done = 0

    def tell(_: Checked, of: int) -> None:
        nonlocal done, told
        done += 1
        if time.monotonic() - told >= _EVERY:
            told = time.monotonic()
            say(f"{done:,} of {of:,} runs checked")

    async with common.client() as client:
        with common.output.progress() as say:
            return await check(client, app.workflows, ended, patience, tell)


def _print(found: list[Checked], app: str, screen: Console) -> None:
    if not found:
        screen.print(f"there is no run of {app} that has not ended; --ended 20 checks some that have")
        return
    titles = ("workflow", "runs", "steps", "problems")
    listed = table(titles, numbers=titles[1:])
    for name in sorted({one.workflow for one in found}):
        its = [one for one in found if one.workflow == name]
        wrong = sum(bool(one.problem) for one in its)
        color = "red" if wrong else "green"
        listed.add_row(name, f"{len(its):,}", f"{sum(i.steps for i in its):,}", f"[{color}]{wrong:,}[/]")
    screen.print(listed)
    problems = [one for one in found if one.problem]
    for one in problems[:_SHOWN]:
        text = f"\n{one.run}  {one.workflow}  {one.status}\n{one.problem}"
        screen.print(text, markup=False, highlight=False, soft_wrap=True)
    if len(problems) > _SHOWN:
        screen.print(f"\nand {len(problems) - _SHOWN:,} more; --json lists all")
    screen.print(f"\n{_ending(found, problems, app)}", markup=False, highlight=False, soft_wrap=True)


def _ending(found: list[Checked], problems: list[Checked], app: str) -> str:
    if not problems:
        return f"the code of {app} does what is on record of all {len(found):,}"
    advice = f"; {_ADVICE}" if any(one.status in {"running", "waiting"} for one in problems) else ""
    return f"{len(problems):,} of {len(found):,} do not go on under {app}{advice}"
