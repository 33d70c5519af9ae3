"""An application whose instances come and go, and the policy by which they do, for `whatif_scaling`."""

import asyncio

from callboard import tool, workflow
from callboard.controller.policies.scale import Scale


@tool(min_instances=1, max_instances=4, concurrency=4)
async def staged(seconds: float) -> None:
    """Take a time."""
    await asyncio.sleep(seconds)


@workflow
async def in_stages(times: list[float]) -> None:
    """One call after the other."""
    for seconds in times:
        await staged(seconds)


class Quick(Scale):
    """As many instances as the load needs, soon."""

    every = 0.5
    calm = 12
