"""Controllers that are killed, or believe to lead when they do not: what is decided then."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.support.board import Board
from tests.support.waiting import until

from callboard import tool
from callboard.actors.entries import STREAM
from callboard.actors.host import Host
from callboard.actors.priorities import read_priority
from callboard.controller.controller import Controller
from callboard.infra import subjects
from callboard.infra.messages.policy import Priority

FILE = '''
import os
from callboard.controller.policy import Policy

class Restless(Policy):
    """Decides something new in each round."""
    every = 0.02
    rounds = 0
    def decide(self, view, act):
        self.rounds += 1
        act.set_priority(f"s-{os.getpid()}-{self.rounds}", 1)
'''
_WITHIN = 30.0


@tool
async def served() -> None:
    """Nothing."""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """A policy that decides all the time."""
    (tmp_path / "restless.py").write_text(FILE)
    return f"{tmp_path / 'restless.py'}:Restless"


async def spawn(url: str, policy: str) -> asyncio.subprocess.Process:
    """A controller in a process of its own; it may have begun to lead when this returns."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "callboard", "controller", "--nats", url, "--json", "--policy", policy,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if not k.startswith("CALLBOARD_")},
    )  # fmt: skip


async def said(process: asyncio.subprocess.Process, *words: str) -> None:
    """Wait until a line of its log has one of these words."""
    assert process.stderr is not None
    async with asyncio.timeout(_WITHIN):
        while line := (await process.stderr.readline()).decode():
            if any(word in line for word in words):
                return
    raise AssertionError(f"it never said any of {words}")


async def decided(board: Board) -> list[Priority]:
    """All priorities in the bucket."""
    node = await board.node()
    found = await node.reader.read(STREAM, subjects.priority(">"))
    read = [read_priority(one.subject, one.body) for one in found if one.body]
    return [one for one in read if one is not None]


def followed(host: Host) -> set[int]:
    """The terms of what a host follows."""
    return {one.term for one in host.priorities._priorities.values()}


@pytest.mark.fault
async def test_a_frozen_controller_that_wakes_up_decides_nothing(
    nats_url: str, board: Board, policy: str
) -> None:
    """Another one leads by then; what the first writes, believing to lead, is in no bucket and at no host."""
    host = await board.host(served)
    first = await spawn(nats_url, policy)
    try:
        await until(lambda: len(host.priorities), _WITHIN)
        first.send_signal(signal.SIGSTOP)
        calm = board.settings(dead_after=2.0)  # a machine that is slow for a moment ends no second term
        async with Controller(calm, policies=[policy]) as second:
            await asyncio.wait_for(second.led(), _WITHIN)
            await until(lambda: len(followed(host)) == 2, _WITHIN)
            old = {one.session for one in await decided(board) if one.term < second.epoch}
            first.send_signal(signal.SIGCONT)
            await said(first, "decides_no_more", "lease_lost", "lease_unclear")
            assert {one.session for one in await decided(board) if one.term < second.epoch} <= old
            assert max(followed(host)) == second.epoch
    finally:
        first.kill()
        await first.communicate()


@pytest.mark.fault
async def test_what_a_killed_controller_decided_holds_until_the_next_decides(
    nats_url: str, board: Board, policy: str
) -> None:
    """Killed while it decides, at any moment: hosts follow all that is in the bucket, and nothing else."""
    host = await board.host(served)
    first = await spawn(nats_url, policy)
    try:
        await until(lambda: len(host.priorities), _WITHIN)
    finally:
        first.kill()
        await first.communicate()
    left = await decided(board)
    await until(lambda: len(host.priorities) == len(left))
    assert {(one.session, one.value) for one in left} == {
        (one.session, one.value) for one in host.priorities._priorities.values()
    }
    async with Controller(board.settings(), policies=[policy]) as second:
        await until(lambda: max(followed(host)) == second.epoch, _WITHIN)
    assert {one.session for one in left} <= {one.session for one in await decided(board)}
