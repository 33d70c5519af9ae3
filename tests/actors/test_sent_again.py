"""A call that never reached its stream."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.waiting import SOON

import callboard
from callboard import tool, workflow
from callboard.actors import caller, maker
from callboard.actors.host import Host
from callboard.infra.connection import Connection


@tool
async def echo(number: int) -> int:
    """The number."""
    return number


@workflow
async def sums(count: int) -> int:
    """Calls that share one ack."""
    return sum(await asyncio.gather(*(echo(number) for number in range(count))))


async def test_a_call_that_the_server_dropped_is_sent_again(
    nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls share an ack, so that one which was dropped is missed only when nothing is heard of it."""
    publish = Connection.publish
    dropped: list[str] = []

    def drop_one(
        self: Connection, subject: str, body: bytes = b"", headers: bytes | None = None, reply: str = ""
    ) -> None:
        if subject.startswith("cb.call.") and not reply and not dropped:
            dropped.append(subject)
        else:
            publish(self, subject, body, headers, reply)

    for module in (caller, maker):
        monkeypatch.setattr(module, "QUIET", 0.3)
    monkeypatch.setattr(Connection, "publish", drop_one)
    host = Host([echo, sums], nats_url)
    await host.start()
    try:
        async with callboard.connect(nats_url) as client:
            assert await client.run("sums", {"count": 5}, timeout=SOON) == 10
        assert dropped == ["cb.call.echo.any.1"]
    finally:
        await host.stop()
