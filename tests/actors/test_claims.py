"""Who takes over from a dead host says so for as long as it takes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.board import Board
from tests.support.waiting import eventually, until

from callboard import tool
from callboard.actors import takeover
from callboard.actors.takeover import Watch
from callboard.infra import subjects


@tool
async def double(number: int) -> int:
    """Twice as much."""
    return 2 * number


async def test_a_takeover_that_takes_long_is_not_begun_again(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim is renewed: what was given back already, and runs elsewhere, is not given back once more."""
    monkeypatch.setattr(takeover, "_RETRY", 0.3)
    over = asyncio.Event()
    sweep = Watch._sweep

    async def slow(watch: Watch, *args: Any, **options: Any) -> bool:
        await over.wait()
        return await sweep(watch, *args, **options)

    monkeypatch.setattr(Watch, "_sweep", slow)
    await board.host(double)
    dead = await board.host(double)
    node = await board.node()
    claims: set[int] = set()

    async def renewed() -> bool:
        claim = await node.reader.last(subjects.REGISTRY, subjects.registry(f"takeover.{dead.id}"))
        claims.update({claim.sequence} if claim is not None and claim.body else ())
        return len(claims) > 10

    with capture_logs() as logs:
        await board.kill(dead)
        await until(lambda: "host_dead" in [log["event"] for log in logs])
        await eventually(renewed)
    assert [log["event"] for log in logs].count("host_dead") == 1
    over.set()
    await board.emptied_of_host(dead)
