"""``callboard why``: why a call ran where and when it did."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit

if TYPE_CHECKING:
    from callboard.controller.why import Why


def why(future: str, /, *, common: Common = DEFAULTS) -> int:
    """Tell why a call ran where and when it did.

        callboard why 01JD8:3

    Decisions are known for an hour, and as long as they hold; how a call has moved, as long as the server
    keeps telemetry, and of one without an outcome as far as the latest reports go.

    Args:
        future: Its id, RUN:PATH; 'callboard show RUN' lists the paths.
    """

    async def look() -> Why:
        from callboard.controller.why import why

        async with common.client() as client:
            return await why(client.node, future)

    found = asyncio.run(look())
    common.output.answer(
        found, lambda screen: screen.print("\n".join(found.lines()), markup=False, highlight=False)
    )
    return Exit.OK
