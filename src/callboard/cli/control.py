"""``callboard control``: tell running hosts what to do."""

from __future__ import annotations

import asyncio

import msgspec
from cyclopts import App

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit, NotFound
from callboard.infra.errors import RequestTimeout

app = App(name="control", help="Tell running hosts what to do.", result_action="return_value")


@app.command
def drain(host: str, /, *, grace: float | None = None, common: Common = DEFAULTS) -> int:
    """Have a host finish what it does, give back the rest, and end.

    Args:
        host: Its id; 'callboard doctor' and 'callboard actors --json' list them.
        grace: Seconds that running calls get; the host's own setting by default.
    """

    async def ask() -> str:
        from callboard.infra import subjects
        from callboard.infra.messages.control import Acknowledged, Drain

        subject = subjects.control(subjects.token("host", host))
        async with common.client() as client:
            try:
                answer = await client.node.connection.request(subject, msgspec.msgpack.encode(Drain(grace)))
            except RequestTimeout as error:
                raise NotFound(
                    f"no host {host} listens; see 'callboard doctor'", what="host", name=host
                ) from error
        return msgspec.msgpack.decode(answer, type=Acknowledged).host

    drained = asyncio.run(ask())
    common.output.answer({"draining": drained}, lambda screen: screen.print(f"{drained} is draining"))
    return Exit.OK
