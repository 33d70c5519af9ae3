"""The lane of timers: what is no timer ends as a dead letter, and holds no timer up."""

from __future__ import annotations

from tests.support.board import Board

import callboard
from callboard import workflow
from callboard.infra import subjects


@workflow
async def nap() -> int:
    """A short sleep, long enough to be put aside."""
    await callboard.sleep(0.5)
    return 1


async def test_what_is_no_timer_is_a_dead_letter(board: Board) -> None:
    """It is not delivered for ever."""
    await board.host(nap)
    node = await board.node()
    await node.store.stored(subjects.call(subjects.WAKER), b"")
    await board.emptied("CALLS")
    (letter,) = await node.reader.read(subjects.DEAD, subjects.dead(">"))
    assert letter.subject == subjects.dead(subjects.WAKER)


async def test_rubbish_holds_no_timer_up(board: Board) -> None:
    """More of it than a host takes at once."""
    await board.host(nap, park_after=0.05)
    node = await board.node()
    for _ in range(600):
        node.store.put(subjects.call(subjects.WAKER), b"")
    run = await board.submit(nap)
    assert (await board.done(run)).status == "completed"
