"""One controller leads; when it is killed another one does, and without any calls run as before."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.support.board import Board
from tests.support.waiting import eventually, until

from callboard import tool, workflow
from callboard.controller.controller import Controller
from callboard.controller.lease import leader
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.messages.registry import Leader
from callboard.infra.messages.runtimes import Runtime
from callboard.infra.settings import Settings
from callboard.state.runtimes import Runtimes

SOON = 30.0


@tool
async def shout(text: str) -> str:
    """Say it louder."""
    return text.upper()


@workflow
async def talk(count: int) -> str:
    """Call one after the other."""
    said = "a"
    for _ in range(count):
        said = await shout(said)
    return said


async def spawn(url: str) -> asyncio.subprocess.Process:
    """A controller in a process of its own, with default settings; ready when this returns."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "callboard", "controller", "--nats", url, "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={k: v for k, v in os.environ.items() if not k.startswith("CALLBOARD_")},
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(30):
        told = json.loads(await process.stdout.readline())
    assert told["event"] == "controller_ready"
    return process


@contextlib.asynccontextmanager
async def leading(url: str, board: Board) -> AsyncIterator[asyncio.subprocess.Process]:
    """A controller that leads, in a process of its own."""
    process = await spawn(url)
    try:
        node = await board.node()
        async with asyncio.timeout(SOON):
            while not await leader(node):
                await asyncio.sleep(0.01)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.mark.fault
async def test_a_standby_takes_over_within_two_seconds(nats_url: str, board: Board) -> None:
    """After kill -9 of the leader, with default settings; it knows already what goes on. The best of three."""
    host = await board.host(shout, talk)
    took = []
    for _ in range(3):
        async with (
            leading(nats_url, board) as first,
            Controller(Settings.load({}, nats_url=nats_url)) as second,
        ):
            await until(lambda two=second: two.complete and two.epoch)  # type: ignore[misc]
            assert not second.leading
            epoch = second.epoch
            first.send_signal(signal.SIGKILL)
            await first.wait()
            begun = time.monotonic()
            assert host.id in second.view.hosts
            async with asyncio.timeout(SOON):
                await second.led()
            took.append(time.monotonic() - begun)
            assert second.epoch == epoch + 1
        if min(took) < 2.0:
            break
    assert min(took) < 2.0


async def test_who_leaves_lets_another_one_lead_at_once(board: Board) -> None:
    """Nobody waits for the lease of one that has stopped in good order."""
    settings = board.settings(dead_after=60.0)
    first = Controller(settings)
    await first.start()
    async with asyncio.timeout(SOON):
        await first.led()
    async with Controller(settings) as second:
        assert not second.leading
        await first.stop()
        async with asyncio.timeout(SOON):
            await second.led()
        assert second.epoch == 2


async def test_who_was_replaced_leads_no_more(board: Board) -> None:
    """One that stood still finds the next epoch, and stands by."""
    node = await board.node()
    async with Controller(board.settings(dead_after=2.0)) as old:  # so long it stands by
        async with asyncio.timeout(SOON):
            await old.led()
        body = msgspec.msgpack.encode(Leader("c-other", old.epoch + 1, time.time()))
        await node.store.stored(subjects.registry("controller"), body, H.encode([]))
        await until(lambda: not old.leading)
        assert old.view.on_ended is None
        async with asyncio.timeout(SOON):
            await old.led()  # the other one is silent
        assert old.epoch == 3


@pytest.mark.fault
async def test_calls_run_without_a_controller(nats_url: str, board: Board) -> None:
    """Before there is one, and after it is killed in the middle of a run."""
    await board.host(shout, talk)
    assert await board.run(talk, count=5) == "A"
    async with leading(nats_url, board) as only:
        run = await board.submit(talk, count=200)
        await board.entries(run, "result", count=20)
        only.send_signal(signal.SIGKILL)
        await only.wait()
        assert (await board.done(run)).status == "completed"
        assert await board.run(talk, count=5) == "A"
        node = await board.node()

        async def nobody_leads() -> bool:
            return not await leader(node)

        assert await eventually(nobody_leads)


async def test_run_times_are_kept(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the leader has learnt is in the bucket, and the next one goes on from there."""
    monkeypatch.setattr("callboard.controller.controller.STORE_EVERY", 0.05)
    await board.host(shout, talk)
    node = await board.node()
    seen: list[int] = []
    for _ in range(2):
        async with Controller(board.settings()) as controller:
            await until(lambda one=controller: one.view.on_ended is not None)  # type: ignore[misc]
            await board.run(talk, count=20)
            await until(lambda one=controller: _seen(one.runtimes) == 20 * (len(seen) + 1))  # type: ignore[misc]
            bits = next(iter(controller.runtimes.sizes("shout.call")))
            subject = subjects.runtime("shout", "call", str(bits))
            async with asyncio.timeout(SOON):
                while await _stored(node, subject) != 20 * (len(seen) + 1):
                    await asyncio.sleep(0.01)
        seen.append(20)


async def _stored(node: object, subject: str) -> int:
    """How many calls a stored row is of."""
    from callboard.actors.node import Node

    assert isinstance(node, Node)
    found = await node.reader.last(f"KV_{subjects.RUNTIMES_BUCKET}", subject)
    return msgspec.msgpack.decode(found.body, type=Runtime).count if found is not None else 0


def _seen(table: Runtimes) -> int:
    found = table.predict("shout", "call")
    return 0 if found is None else found.seen


def test_hosts_load_no_numpy(tmp_path: Path) -> None:
    """It is the controller's; who runs calls does without."""
    import subprocess

    code = (
        "import sys, callboard.actors.host, callboard.actors.client, callboard.cli.commands\n"
        "assert 'numpy' not in sys.modules, 'numpy'\n"
        "import callboard.controller.view\n"
        "assert 'numpy' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
