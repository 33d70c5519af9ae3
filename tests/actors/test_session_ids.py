"""Ids of sessions travel in headers: what would not arrive as it was given is refused where it is given."""

from __future__ import annotations

import math

import pytest
from tests.support.board import Board
from tests.support.waiting import SOON

from callboard import options, tool, workflow
from callboard.infra.errors import InvalidArguments, RunIdTaken
from callboard.infra.subjects import NameInvalid
from callboard.state.states import Export

BAD = ["a\nb", "a\r\nCb-Method: wipe", " pad", "pad ", "\t", "a\x00b", "\ud800"]
GOOD = ["ann", "ann smith", "tür 7", "a.b/c:d", "👩‍👩‍👧", "x" * 700]


@tool
async def same(number: int) -> int:
    """The same again."""
    return number


@workflow
async def echo(number: int) -> int:
    """One call."""
    return await same(number)


@pytest.mark.parametrize("session", BAD)
async def test_bad_ids_are_refused(board: Board, session: str) -> None:
    """By clients, by `options`, and with states that are imported."""
    await board.host(same, echo)
    client = await board.client()
    with pytest.raises(NameInvalid):
        await client.submit("echo", {"number": 1}, session=session)
    with pytest.raises(NameInvalid), options(session=session):
        pass
    with pytest.raises(NameInvalid):
        await client.state.import_(Export("Agent", session))


@pytest.mark.parametrize("session", GOOD)
async def test_good_ids_arrive(board: Board, session: str) -> None:
    """As they were given."""
    await board.host(same, echo)
    client = await board.client()
    run = await client.submit("echo", {"number": 1}, session=session)
    assert await client.result(run, timeout=SOON) == 1
    assert (await client.status(run)).session == session


async def test_a_run_of_another_session_is_another_request(board: Board) -> None:
    """Nobody is given what was done for somebody else."""
    await board.host(same, echo)
    client = await board.client()
    for _ in range(2):
        assert await client.run("echo", {"number": 1}, run="mine", session="ann", timeout=SOON) == 1
    for session in ("bob", None):
        with pytest.raises(RunIdTaken, match="of another session"):
            await client.submit("echo", {"number": 1}, run="mine", session=session)


async def test_a_request_of_another_session_that_nobody_has_begun(board: Board) -> None:
    """The request that is stored already is looked at."""
    host = await board.host(same, echo)
    client = await board.client()
    await host.stop()
    await client.submit("echo", {"number": 1}, run="mine", session="ann")
    await client.submit("echo", {"number": 1}, run="mine", session="ann")
    with pytest.raises(RunIdTaken, match="of another session"):
        await client.submit("echo", {"number": 1}, run="mine", session="bob")


@pytest.mark.parametrize("told", [{"deadline": math.inf}, {"deadline": math.nan}, {"priority": 2**40}])
async def test_what_no_header_can_hold(board: Board, told: dict[str, float]) -> None:
    """It is refused before anything is stored."""
    await board.host(same, echo)
    client = await board.client()
    with pytest.raises(InvalidArguments):
        await client.submit("echo", {"number": 1}, **told)  # type: ignore[arg-type]
