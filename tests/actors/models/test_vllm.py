"""A vLLM server as a child of its host. In its place runs the stand-in: this is about the process alone."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from tests.support.board import Board
from tests.support.waiting import SOON, until

from callboard import model, workflow
from callboard.actors.models.served import ServedModel
from callboard.actors.models.vllm import VllmEngine, by_priority, serve_command
from callboard.infra.errors import EngineDown, SettingsInvalid

ROOT = Path(__file__).parents[3]
STANDIN = [sys.executable, str(ROOT / "tests/support/standin.py"), "some/model"]


@workflow
async def ask(text: str) -> str:
    """Of the child."""
    return (await model("child").chat(text)).text


async def test_it_lives_as_long_as_its_host(board: Board) -> None:
    """It answers once the host is ready, and is gone with it, with all that it wrote."""
    engine = VllmEngine("child", STANDIN)
    host = await board.host(ask, ServedModel("child", engine, {}))
    pid, home = engine.pid, engine._home
    assert pid is not None
    assert home is not None
    assert await board.run(ask, text="hello") == "hello "
    await host.stop()
    await until(lambda: not psutil.pid_exists(pid))
    assert not home.exists()
    assert engine.pid is None


async def test_it_is_started_again(board: Board) -> None:
    """A call during which it dies is tried again, and answered by the next one."""
    engine = VllmEngine("child", STANDIN, first=0.1)
    options = {"retries": 1000, "backoff": 0.2, "backoff_max": 0.5}
    await board.host(ask, ServedModel("child", engine, options))
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: not psutil.pid_exists(first))
    assert await board.run(ask, text="again", timeout=3 * SOON) == "again "
    assert engine.pid not in {None, first}


async def test_it_is_started_again_whatever_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that nobody has foreseen ends one start, not all."""
    engine = VllmEngine("child", STANDIN, first=0.1)
    await engine.open()
    real, failures = engine._until_healthy, [RuntimeError("a defect")]

    async def once(port: int, begun: float) -> None:
        if failures:
            raise failures.pop()
        await real(port, begun)

    monkeypatch.setattr(engine, "_until_healthy", once)
    try:
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: not failures and engine._healthy.is_set())
    finally:
        await engine.close()


async def test_one_that_hangs_is_started_again(board: Board) -> None:
    """It lives, and answers nothing any more: nobody would hear of the calls that it has."""
    engine = VllmEngine("child", STANDIN, first=0.1, attend_every=0.5)
    options = {"retries": 1000, "backoff": 0.2, "backoff_max": 0.5}
    await board.host(ask, ServedModel("child", engine, options))
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    assert await board.run(ask, text="again", timeout=3 * SOON) == "again "
    assert engine.pid not in {None, first}
    await until(lambda: not psutil.pid_exists(first))


async def test_its_workers_end_with_it(tmp_path: Path) -> None:
    """A server that is killed leaves nobody behind, who would hold the memory that the next one needs."""
    told = tmp_path / "worker"
    script = f"""
        import pathlib, runpy, subprocess, sys
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        pathlib.Path({str(told)!r}).write_text(str(worker.pid))
        sys.argv = {STANDIN[1:]!r} + sys.argv[1:]
        runpy.run_path({STANDIN[1]!r}, run_name="__main__")
    """
    engine = VllmEngine("child", [sys.executable, "-c", textwrap.dedent(script)], first=30.0)
    await engine.open()
    worker = int(told.read_text())
    assert psutil.pid_exists(worker)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    await until(lambda: not psutil.pid_exists(worker))
    await engine.close()


async def test_one_that_hangs_when_it_is_started_again_is_ended(tmp_path: Path) -> None:
    """The one after it serves."""
    starts = tmp_path / "starts"
    script = f"""
        import pathlib, runpy, sys, time
        starts = pathlib.Path({str(starts)!r})
        starts.write_text(starts.read_text() + "." if starts.exists() else ".")
        if starts.read_text() == "..":
            time.sleep(600)
        sys.argv = {STANDIN[1:]!r} + sys.argv[1:]
        runpy.run_path({STANDIN[1]!r}, run_name="__main__")
    """
    engine = VllmEngine("child", [sys.executable, "-c", textwrap.dedent(script)], first=0.1)
    await engine.open()
    try:
        assert engine.pid is not None
        engine._start_timeout = 3.0
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: len(starts.read_text()) > 2)
        engine._start_timeout = 600.0  # this one may take its time
        await until(engine._healthy.is_set)
    finally:
        await engine.close()


async def test_while_there_is_none() -> None:
    """A request fails with what a retry may help."""
    ServedModel("idle", VllmEngine("idle", STANDIN), {})
    with pytest.raises(EngineDown, match="is being started") as found:
        await model("idle").chat("hi")
    assert found.value.retryable


async def test_one_that_cannot_start(board: Board) -> None:
    """Its host does not start either, and says what the server's last words were."""
    command = [sys.executable, "-c", "raise SystemExit('no GPU here')"]
    with pytest.raises(EngineDown, match=r"has ended while it started: .*no GPU here"):
        await board.host(ServedModel("child", VllmEngine("child", command), {}))


async def test_one_that_is_never_healthy() -> None:
    """It is given up in time, and ended."""
    engine = VllmEngine("child", [sys.executable, "-c", "import time; time.sleep(60)"], start_timeout=0.3)
    with pytest.raises(EngineDown, match="is not healthy in time"):
        await engine.open()
    assert engine.pid is None


async def test_it_ends_with_an_owner_that_is_killed() -> None:
    """Nobody is left to end it then: its keeper does."""
    script = f"""
        import asyncio
        from callboard.actors.models.vllm import VllmEngine
        async def main():
            engine = VllmEngine("child", {STANDIN!r})
            await engine.open()
            print(engine.pid, flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
    """
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(script), stdout=subprocess.PIPE
    )
    assert owner.stdout is not None
    pid = int(await owner.stdout.readline())
    assert psutil.pid_exists(pid)
    owner.kill()
    await owner.wait()
    await until(lambda: not psutil.pid_exists(pid))


def test_priorities_are_told_where_it_schedules_by_them() -> None:
    """However the option is written."""
    for words in ("--scheduling-policy priority", "--scheduling-policy=priority"):
        assert by_priority(["python", *words.split()])
    for words in ("--scheduling-policy fcfs", "--scheduling-policy=fcfs", "--dtype float32"):
        assert not by_priority(["python", *words.split()])


def test_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's module with the user's arguments; without vLLM it is told what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert serve_command("some/model", ["--dtype", "float32"])[1:] == [
        *("-m", "vllm.entrypoints.openai.api_server", "--model", "some/model"),
        *("--scheduling-policy", "priority", "--dtype", "float32"),
    ]
    assert serve_command("some/model", ["--scheduling-policy=fcfs"])[-1:] == ["--scheduling-policy=fcfs"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsInvalid, match=r"callboard\[vllm\]"):
        serve_command("some/model", [])
