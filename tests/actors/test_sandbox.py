"""Handlers in a sandbox: each limit has its error, nothing is inherited, nothing is left."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import psutil
import pytest
from tests.cli.terminal import Running
from tests.support import sandboxed
from tests.support.board import Board
from tests.support.sandboxed import LIMITS, late, misbehave, too_late, try_it

from callboard import Sandbox, connect, tool
from callboard.infra.errors import (
    DeclarationInvalid,
    RunFailed,
    SandboxCpuExceeded,
    SandboxCrashed,
    SandboxExceeded,
    SandboxFileExceeded,
    SandboxMemoryExceeded,
    SandboxOutputExceeded,
    SandboxTimeExceeded,
)

SOON = 60.0


def alive(pid: int) -> bool:
    """Whether a process lives; what is dead and not collected yet does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def noted(note: Path, lines: int) -> list[int]:
    """The numbers that a handler has written down."""
    async with asyncio.timeout(SOON):
        while True:
            text = await asyncio.to_thread(lambda: note.read_text() if note.exists() else "")
            if text.count("\n") == lines:
                return [int(line) for line in text.split()]
            await asyncio.sleep(0.01)


async def gone(pids: list[int]) -> None:
    """Wait until none of them lives."""
    async with asyncio.timeout(SOON):
        while any(map(alive, pids)):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("how", "error", "allowed"),
    [
        ("spin", SandboxCpuExceeded, LIMITS.cpu_s),
        ("grow", SandboxMemoryExceeded, LIMITS.memory),
        ("print", SandboxOutputExceeded, LIMITS.output),
        ("long", SandboxOutputExceeded, LIMITS.output),
        ("write", SandboxFileExceeded, LIMITS.file_size),
    ],
)
async def test_every_limit_has_its_error(
    board: Board, how: str, error: type[SandboxExceeded], allowed: float
) -> None:
    """What was exceeded is the class, what was allowed a field."""
    await board.host(misbehave, try_it)
    with pytest.raises(RunFailed) as failed:
        await board.run(try_it, how=how, timeout=SOON)
    assert type(failed.value.__cause__) is error
    assert failed.value.__cause__.fields["allowed"] == allowed


async def test_too_long(board: Board) -> None:
    """On the clock."""
    await board.host(late, too_late)
    with pytest.raises(RunFailed) as failed:
        await board.run(too_late, timeout=SOON)
    assert type(failed.value.__cause__) is SandboxTimeExceeded


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("crash", "SIGSEGV"),
        ("leave", "exit code 3"),
        ("kill_keeper", "SIGKILL"),
        ("forge", "without an outcome"),
    ],
)
async def test_a_crash_is_an_error_of_the_call_alone(board: Board, how: str, told: str) -> None:
    """The host goes on, and the next call has a process of its own."""
    await board.host(misbehave, try_it)
    with pytest.raises(RunFailed) as failed:
        await board.run(try_it, how=how, timeout=SOON)
    assert type(failed.value.__cause__) is SandboxCrashed
    assert told in str(failed.value.__cause__) or how == "kill_keeper"  # which cannot tell any more
    assert str(await board.run(try_it, how="nothing", timeout=SOON)).startswith("nothing in ")


async def test_its_own_exceptions_and_results_travel(board: Board) -> None:
    """As of any handler; its working directory is gone afterwards."""
    await board.host(misbehave, try_it)
    with pytest.raises(RunFailed) as failed:
        await board.run(try_it, how="raise", timeout=SOON)
    assert isinstance(failed.value.__cause__, ValueError)
    said = str(await board.run(try_it, how="nothing", timeout=SOON))
    home = Path(said.removeprefix("nothing in "))
    assert home.name.startswith("callboard-sandbox-")
    assert not await asyncio.to_thread(home.exists)


async def test_nothing_is_inherited_but_what_is_named(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secrets from the environment."""
    monkeypatch.setenv("SANDBOX_SECRET", "hush")
    monkeypatch.setenv("SANDBOX_MAY_SEE", "yes")
    await board.host(misbehave, try_it)
    found = await board.run(try_it, how="environment", timeout=SOON)
    assert set(found) - {"LC_CTYPE"} <= {"PATH", "LANG", "HOME", "TMPDIR", "SANDBOX_MAY_SEE"}
    assert found["SANDBOX_MAY_SEE"] == "yes"


async def test_what_it_leaves_behind_is_killed(board: Board, tmp_path: Path) -> None:
    """Also what has left its process group."""
    await board.host(misbehave, try_it)
    await board.run(try_it, how="leftover", note=str(tmp_path / "note"), timeout=SOON)
    await gone(await noted(tmp_path / "note", 1))


async def test_cancelling_kills_it(board: Board, tmp_path: Path) -> None:
    """Although it ignores SIGTERM; and what it has started."""
    await board.host(misbehave, try_it)
    client = await board.client()
    run = await client.submit("try_it", {"how": "linger", "note": str(tmp_path / "note")})
    pids = await noted(tmp_path / "note", 3)
    await client.cancel(run)
    await gone(pids)


async def test_it_ends_with_its_host(nats_url: str, tmp_path: Path) -> None:
    """After kill -9 of the host."""
    with Running("host", str(sandboxed.__file__), "--json", url=nats_url) as host:
        await asyncio.to_thread(host.until, '"event":"host_ready"')
        async with connect(nats_url) as client:
            await client.submit("try_it", {"how": "linger", "note": str(tmp_path / "note")})
            pids = await noted(tmp_path / "note", 3)
            host.send(signal.SIGKILL)
            await gone(pids)


def test_without_a_board() -> None:
    """The same limits hold."""
    assert try_it.run_local("nothing").startswith("nothing in ")
    with pytest.raises(SandboxFileExceeded):
        try_it.run_local("write")


def test_limits_must_make_sense() -> None:
    """Said where it is declared."""
    with pytest.raises(DeclarationInvalid, match="cpu_s must be above 0"):

        @tool(sandbox=Sandbox(cpu_s=0))
        def never() -> None: ...
