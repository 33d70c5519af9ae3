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

from callboard import tool, workflow
from callboard.actors.entries import STREAM
from callboard.actors.host import Host
from callboard.actors.priorities import read_priority
from callboard.controller.controller import Controller
from callboard.controller.decisions import rounds
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
PHASES = '''
import asyncio, os, signal
from callboard.controller.decisions import Decisions
from callboard.controller.policy import Policy

class Twenty(Policy):
    """Decides twenty things."""
    every = 0.02
    def decide(self, view, act):
        dies("it decides")
        for number in range(20):
            act.set_priority(f"s-{number}", 1)

def dies(phase):
    if os.environ.get("DIES") == phase:
        os.kill(os.getpid(), signal.SIGKILL)

def dying(name, before, after):
    method = getattr(Decisions, name)
    async def died(*args):
        dies(before)
        found = await method(*args)
        dies(after)
        return found
    return died

applied, apply = [], Decisions._apply
async def some(*args):
    dies("why is stored")
    applied.append(None)
    if os.environ.get("DIES") == "half of it is stored" and len(applied) > 10:
        await asyncio.sleep(0.3)
        dies("half of it is stored")
    await apply(*args)

if "DIES" in os.environ:
    dies("policies are loaded")
    Decisions.write = dying("write", "it has decided", "all of it is stored")
    Decisions.tell = dying("tell", "policies are told of", "")
    Decisions._apply = some
'''
MOMENTS = (
    "policies are loaded", "policies are told of", "it decides", "it has decided", "why is stored",
    "half of it is stored", "all of it is stored",
)  # fmt: skip
_WITHIN = 30.0


@tool
async def served() -> None:
    """Nothing."""


@workflow
async def serves() -> bool:
    """One call."""
    await served()
    return True


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """A policy that decides all the time."""
    (tmp_path / "restless.py").write_text(FILE)
    return f"{tmp_path / 'restless.py'}:Restless"


async def spawn(url: str, policy: str, **env: str) -> asyncio.subprocess.Process:
    """A controller in a process of its own; it may have begun to lead when this returns."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "callboard", "controller", "--nats", url, "--json", "--policy", policy,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if not k.startswith("CALLBOARD_")} | env,
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
            async with asyncio.timeout(_WITHIN):
                await second.led()
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


@pytest.mark.fault
@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_controller_that_dies_in_the_middle(
    nats_url: str, board: Board, moment: str, tmp_path: Path
) -> None:
    """Calls run by what is in the bucket, which tells why; the next controller decides the rest."""
    (tmp_path / "phases.py").write_text(PHASES)
    host, name = await board.host(served, serves), f"{tmp_path / 'phases.py'}:Twenty"
    first = await spawn(nats_url, name, DIES=moment)
    async with asyncio.timeout(_WITHIN):
        await first.communicate()
    assert first.returncode == -signal.SIGKILL
    expected = {"half of it is stored": 10, "all of it is stored": 20}.get(moment, 0)
    left = await decided(board)
    while len(left) < expected:  # the server may not have read yet what was sent at last
        await asyncio.sleep(0.02)
        left = await decided(board)
    assert len(left) == expected
    await until(lambda: len(host.priorities) == len(left))
    await explained(board)
    client = await board.client()
    epochs = {"another": 0} | {one.session: one.epoch for one in left}
    for session, epoch in epochs.items():
        run = await client.submit(serves.name, {}, session=session)
        await client.result(run, _WITHIN)
        (result,) = await board.results(run)
        assert result.ranked == epoch
    async with Controller(board.settings(), policies=[name]) as second:
        async with asyncio.timeout(_WITHIN):
            await second.led()
        await until(lambda: len(host.priorities) == 20, _WITHIN)
        assert followed(host) <= {second.epoch - 1, second.epoch}
    after = {one.session: one for one in await decided(board)}
    assert len(after) == 20
    assert all(after[one.session] == one for one in left)  # what holds is not decided again
    await explained(board)


async def explained(board: Board) -> None:
    """Of each decision that holds it is known why."""
    made = {one.epoch: one.decisions for one in await rounds(await board.node(), 10_000)}
    for one in await decided(board):
        key = subjects.priority(subjects.session_token(one.session))
        assert key in {decision.key for decision in made[one.epoch]}
