"""``callboard doctor``: what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.controller.doctor import Finding

_COLORS = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(*, common: Common = DEFAULTS) -> int:
    """Look for the usual causes of trouble, and say what fixes them.

    Checks the server and its version, streams and their settings, limits and room, clocks, hosts and
    their versions, engines of models, calls that nobody serves, and dead letters. It changes nothing. The
    exit code is 1 when there is a problem, 3 when there is no server to look at.
    """
    common.log("error")
    from callboard.controller.doctor import examine

    findings = asyncio.run(examine(common.settings()))
    common.output.answer(findings, lambda screen: _print(findings, screen))
    return Exit.FAILED if any(found.level == "problem" for found in findings) else Exit.OK


def _print(findings: list[Finding], screen: Console) -> None:
    for found in findings:
        color = _COLORS[found.level]
        screen.print(f"[{color}]{found.level:<8}[/] {found.check:<13}", end="")
        screen.print(found.what, markup=False, highlight=False, soft_wrap=True)
        if found.fix:
            screen.print(
                f"{'':<22}-> {found.fix}", style="dim", markup=False, highlight=False, soft_wrap=True
            )
    problems = sum(found.level == "problem" for found in findings)
    screen.print(f"\n{problems} to fix" if problems else "\nall is well")
