"""``callboard telemetry``: keep what hosts have told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit
from callboard.cli.load import duration
from callboard.infra import subjects

if TYPE_CHECKING:
    from callboard.infra.messages.telemetry import Report

app = App(name="telemetry", help="Keep what hosts have told.", result_action="return_value")


@app.command
def record(file: Path, /, *, last: str | None = None, common: Common = DEFAULTS) -> int:
    """Write what hosts have told of their work into a file, for 'callboard whatif --from'.

        callboard telemetry record monday.jsonl --last 10m

    Args:
        file: Where to: a line of JSON for each report.
        last: Only what was told in this time: 10m, 30s; all that the server keeps by default, an hour.
    """
    from callboard.controller.recording import write_file

    reports = asyncio.run(told(common, last))
    write_file(file, reports)
    sources = len({report.source for report in reports})
    answer = {"file": str(file), "reports": len(reports), "hosts": sources}
    text = f"{len(reports)} reports of {sources} hosts are in {file}"
    common.output.answer(answer, lambda screen: screen.print(text, markup=False, highlight=False))
    return Exit.OK


async def told(common: Common, last: str | None, stream: str = subjects.TELEMETRY) -> list[Report]:
    """The reports that a stream of the server keeps.

    Args:
        last: of how long; all by default.
    """
    from callboard.controller.recording import from_stream

    since = time.time() - duration("--last", last) if last is not None else 0.0
    async with common.client() as client:
        return await from_stream(client.node, since, stream)
