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
from callboard.infra.errors import RequestTimeout


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


async def test_a_takeover_leaves_nothing_behind(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a claim in the registry nor a note in memory, though the server does not answer for a moment."""
    monkeypatch.setattr(takeover, "_RETRY", 0.3)
    dying = await board.host(double)
    left = await board.host(double)
    empty_lane = left.watch.empty_lane
    emptied: list[str] = []

    async def failing(host: str, name: str = "") -> None:
        emptied.append(host)
        if len(emptied) == 2:
            raise RequestTimeout("no answer", subject="", timeout=5.0)
        await empty_lane(host, name)

    left.watch.empty_lane = failing  # type: ignore[method-assign]
    await until(lambda: dying.id in left.watch.alive)
    await board.kill(dying)
    await until(lambda: len(emptied) == 2)
    node = await board.node()

    async def withdrawn() -> bool:
        found = await node.reader.read(subjects.REGISTRY, subjects.registry("takeover.*"))
        return not [one for one in found if one.body]

    await eventually(withdrawn)
    await until(lambda: not left.watch._claimed and not left.watch._foreign)
