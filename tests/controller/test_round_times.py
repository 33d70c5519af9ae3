"""A controller tells how long its rounds take."""

from __future__ import annotations

import time
from pathlib import Path

from structlog.testing import capture_logs
from tests.support.board import Board
from tests.support.waiting import until

from callboard.controller.controller import Controller
from callboard.controller.deciding import Took

POLICY = '''
from callboard.controller.policy import Policy

class Twice(Policy):
    """Three sessions come first, and later one more."""
    every = 0.02
    rounds = 0
    def decide(self, view, act):
        self.rounds += 1
        for number in range(3 if self.rounds < 5 else 4):
            act.set_priority(f"s-{number}", 1)
'''


async def test_each_round_that_decides_tells_what_it_took(board: Board, tmp_path: Path) -> None:
    """When it began, and the seconds of deciding and of storing; the log has them, too. Others tell nothing."""
    file = tmp_path / "own.py"
    file.write_text(POLICY, encoding="utf-8")
    told: list[Took] = []
    begun = time.monotonic()
    with capture_logs() as logs:
        async with Controller(board.settings(dead_after=3.0), policies=[f"{file}:Twice"]) as controller:
            assert controller.deciders is not None
            controller.deciders.on_decided = told.append
            await until(lambda: len(told) == 2)
    assert [one.decisions for one in told] == [3, 1]
    first, second = told
    assert begun < first.began < first.began + first.deciding + first.storing < second.began
    assert all(one.deciding > 0 and one.storing > 0 for one in told)
    logged = [(one["deciding"], one["storing"]) for one in logs if one["event"] == "decided"]
    assert logged == [(round(one.deciding, 4), round(one.storing, 4)) for one in told]
