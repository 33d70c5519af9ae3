"""What the engines of models tell of themselves is in the view, and in ``callboard top``."""

from __future__ import annotations

import io
import time

import numpy as np
from rich.console import Console
from tests.support.board import Board
from tests.support.standin import StandIn
from tests.support.waiting import until

from callboard import model_at
from callboard.actors.models.room import FIRST
from callboard.cli.top import _page
from callboard.controller.follow import Follower
from callboard.controller.snapshot import Snapshot, snapshot
from callboard.controller.view import View

TOLD = {
    "num_requests_running": 3,
    "num_requests_waiting": 1,
    "kv_cache_usage_perc": 0.25,
    "prefix_cache_queries_total": 1000,
    "prefix_cache_hits_total": 640,
    "prompt_tokens_total": 2**33,
    "generation_tokens_total": 77,
    "num_preemptions_total": 2,
}


async def test_an_engine_is_seen(board: Board) -> None:
    """With its figures while it answers, and as silent when it does not."""
    view = View()
    follower = Follower(await board.node(), view)
    await follower.start()
    async with StandIn() as engine:
        engine.metrics = dict(TOLD)
        host = await board.host(model_at("remote", url=engine.url))
        await until(lambda: now(view).engines)
        (line,) = now(view).engines
        assert (line.actor, line.host, line.slots) == ("remote", host.id, FIRST)
        assert (line.running, line.waiting, line.kv, line.preempted) == (3, 1, 0.25, 2)
        assert (line.queried, line.hit, line.prompt, line.generated) == (1000, 640, 2**33, 77)
        engine.metrics["generation_tokens_total"] = 177
        before = now(view)
        await until(lambda: [one.generated for one in now(view).engines] == [177])
        page = shown(now(view), before)
        assert "engine of" in page
        assert "64%" in page
        told_anew = View()
        again = Follower(await board.node(), told_anew)
        await again.start()  # it asks for the whole state
        await until(lambda: [one.generated for one in now(told_anew).engines] == [177])
        again.stop()
    await until(lambda: not now(view).engines[0].answers)
    assert "no answer" in shown(now(view), before)
    assert [one.actor for one in now(view).actors] == ["remote"]
    follower.stop()


async def test_an_engine_that_never_answered_is_seen(board: Board) -> None:
    """Until it does, also where it does not tell how busy it is."""
    view = View()
    follower = Follower(await board.node(), view)
    await follower.start()
    async with StandIn() as engine:
        await engine.__aexit__()
        await board.host(model_at("remote", url=engine.url))
        await until(lambda: [(one.actor, one.answers) for one in now(view).engines] == [("remote", False)])
        await engine.__aenter__()
        await until(lambda: not now(view).engines)
    follower.stop()


def test_how_fast_an_engine_is_that_answers_again() -> None:
    """Is not told before it has been seen twice: what it made while it was silent took longer than that."""
    view = View()
    rows = np.array([view.instance(view.actors.row("remote"), view.hosts.row("h-1"))])
    pages = []
    for at, answers in enumerate((True, False, True)):
        view.instances.set(rows, engine=answers, down=not answers, generated=5_000_000 * answers)
        pages.append(snapshot(view, at))
    assert "no answer" in shown(pages[1], pages[0])
    assert "5000000" not in shown(pages[2], pages[1])


def now(view: View) -> Snapshot:
    """What it shows."""
    return snapshot(view, time.time())


def shown(found: Snapshot, before: Snapshot) -> str:
    """As people see it."""
    screen = Console(width=200, file=io.StringIO())
    screen.print(_page(found, before))
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()
