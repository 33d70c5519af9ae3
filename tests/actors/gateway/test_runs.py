"""Asking for a run: its result, how it stands, and its end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from tests.actors.gateway.support import Asker, gates, greet, hold
from tests.support.board import Board
from tests.support.waiting import SOON, eventually, until

from callboard.actors.gateway import Gateway, verbs


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("verb", ["result", "status", "cancel"])
async def test_unknown_run(ask: Asker, verb: str) -> None:
    """A run that is nowhere is told at once, instead of being waited for."""
    begun = time.monotonic()
    answer = await ask(verb, "01JD0000000000000000000000")
    assert (answer.code, answer.headers["Nats-Service-Error-Code"]) == ("run_unknown", "404")
    assert time.monotonic() - begun < SOON / 2  # as long as a gateway waits


@pytest.mark.usefixtures("gateway")
async def test_stages(ask: Asker) -> None:
    """Running, then completed."""
    run = (await ask("submit", "hold", {"name": "a"}, Cb_Session="s")).body["run"]
    await until(lambda: gates.entered)
    running = (await ask("status", run)).body
    assert (running["status"], running["workflow"], running["session"]) == ("running", "hold", "s")
    gates.open.set()
    await ask("result", run)
    ended = await eventually(lambda: over(ask, run))
    assert (ended["status"], ended["reason"]) == ("completed", "")


async def over(ask: Asker, run: str) -> Any:
    """How a run stands that has ended; the summary is stored after the outcome."""
    told = (await ask("status", run)).body
    return None if told["status"] == "running" else told


@pytest.mark.usefixtures("gateway")
async def test_failed_run(ask: Asker) -> None:
    """The status of a failed run says why in words; its result says it as data, and later too."""
    run = (await ask("submit", "fail", {"text": "no"})).body["run"]
    for _ in range(2):
        answer = await ask("result", run)
        assert (answer.body["status"], answer.code) == ("failed", "terminal")
    assert (await eventually(lambda: over(ask, run)))["reason"].endswith("no")


async def test_no_driver_yet(ask: Asker, board: Board) -> None:
    """A request that no driver has taken is there, can be waited for, and is run once a host comes."""
    host = await board.host(greet)
    async with Gateway(board.settings()):
        await host.stop()
        run = (await ask("submit", "greet", {"name": "Ada"}, Cb_Session="s")).body["run"]
        told = (await ask("status", run)).body
        assert (told["status"], told["workflow"], told["session"]) == ("accepted", "greet", "s")
        waiting = asyncio.ensure_future(ask("result", run))
        assert (await ask("status", "another")).code == "run_unknown"
        await board.host(greet)
        assert (await waiting).body["value"] == "Hello Ada"


@pytest.mark.usefixtures("gateway")
async def test_cancel(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends, and whoever waits for it hears why."""
    monkeypatch.setattr(verbs, "_CANCELLED_WITHIN", SOON)
    waiting = asyncio.ensure_future(ask("run", "hold", {"name": "a"}, Cb_Run="r1"))
    await until(lambda: gates.entered)
    assert (await ask("cancel", "r1", {"reason": "changed my mind"})).body == {
        "run": "r1",
        "status": "cancelled",
    }
    answer = await waiting
    assert (answer.body["status"], answer.code) == ("cancelled", "run_cancelled")
    assert "changed my mind" in answer.body["error"]["message"]
    assert (await ask("cancel", "r1")).body["status"] == "cancelled"


@pytest.mark.usefixtures("gateway")
async def test_cancel_after_the_end(ask: Asker) -> None:
    """A run that has ended stays as it is."""
    run = (await ask("run", "greet", {"name": "Ada"})).body["run"]
    assert (await ask("cancel", run, b'{"reason": 7}')).body == {"run": run, "status": "completed"}
    assert (await ask("result", run)).body["value"] == "Hello Ada"


async def test_cancel_before_the_start(ask: Asker, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that no driver has taken is cancelled as soon as one does."""
    monkeypatch.setattr(verbs, "_CANCELLED_WITHIN", 0.2)
    host = await board.host(hold)
    async with Gateway(board.settings()):
        await host.stop()
        run = (await ask("submit", "hold", {"name": "a"})).body["run"]
        assert (await ask("cancel", run)).body == {"run": run, "status": "cancelling"}
        await board.host(hold)
        assert (await ask("result", run)).body["status"] == "cancelled"
        assert gates.entered == []


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("verb", ["result", "status", "cancel"])
async def test_names_that_are_none(ask: Asker, verb: str) -> None:
    """A run id is a token."""
    assert (await ask(verb, "a\x01b")).code == "name_invalid"
