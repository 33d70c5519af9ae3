"""``callboard gateway``: one round trip for clients that want no more than request and reply."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from callboard.cli.common import DEFAULTS, Common

if TYPE_CHECKING:
    from callboard.infra.errors import ConnectionLost
    from callboard.infra.settings import Settings


def gateway(*, wait: float = 30.0, describe: bool = False, common: Common = DEFAULTS) -> int:
    """Answer requests on cb.api.<verb>.<name>: submit and wait in one round trip, from any NATS client.

    Start as many as wanted; they share the requests.

        callboard gateway
        nats request cb.api.run.research '{"question": "..."}'
        callboard gateway --describe > asyncapi.json

    Args:
        wait: Seconds to wait for the end of a run where a request has no deadline.
        describe: Print the AsyncAPI document of these subjects, and end.
    """
    common.log("info")
    settings = common.settings()
    if describe:
        import msgspec

        from callboard.actors.gateway import Gateway

        print(msgspec.json.format(msgspec.json.encode(Gateway(settings).asyncapi())).decode())  # noqa: T201
        return 0
    from callboard.cli.serving import run_loop

    return run_loop(_serve(settings, wait, common))


async def _serve(settings: Settings, wait: float, common: Common) -> int:
    from callboard.actors.gateway import Gateway

    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    async def on_lost(error: ConnectionLost) -> None:
        if not ended.done():
            ended.set_exception(error)

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    async with Gateway(settings, on_lost, wait=wait) as running:
        ready = "answering on cb.api.>; try: nats request cb.api.actors.all ''"
        common.output.line({"event": "gateway_ready", "gateway": running.id}, ready)
        await ended
    return 0
