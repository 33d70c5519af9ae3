"""Handlers that are not to be trusted; they are found by other processes, by this module's name."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from callboard import Sandbox, tool, workflow
from callboard.actors.sandbox import MB

LIMITS = Sandbox(
    cpu_s=1, wall_s=20, memory=600 * MB, output=10_000, file_size=100_000, env=("SANDBOX_MAY_SEE",)
)


def _spin(note: str) -> None:
    while True:
        pass


def _grow(note: str) -> int:
    return len(b"x" * (2000 * MB))


def _print(note: str) -> None:
    sys.stdout.write("x" * 100_000)


def _long(note: str) -> str:
    return "x" * 100_000


def _write(note: str) -> None:
    Path("large").write_bytes(b"x" * 1_000_000)


def _crash(note: str) -> None:
    ctypes.string_at(0)


def _leave(note: str) -> None:
    os._exit(3)


def _kill_keeper(note: str) -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def _raise(note: str) -> None:
    raise ValueError("of its own")


def _forge(note: str) -> None:
    for wire in range(3, 10):  # what is written to its owner, and no outcome
        with contextlib.suppress(OSError):
            os.write(wire, b"-\xc1")
    os._exit(0)


def _environment(note: str) -> dict[str, str]:
    return dict(os.environ)


def _leftover(note: str) -> None:
    Path(note).write_text(f"{_escaped()}\n")


def _escaped() -> int:
    """A process that has left the group, and ignores SIGTERM."""
    command = ["sh", "-c", "trap '' TERM; exec sleep 60"]
    return subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL).pid


def _linger(note: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(note).write_text(f"{os.getpid()}\n{os.getppid()}\n{_escaped()}\n")
    time.sleep(60)


def _nothing(note: str) -> str:
    return f"nothing in {Path.cwd()}"


@tool(sandbox=LIMITS)
def misbehave(how: str, note: str = "") -> Any:
    """Do what a tool had better not do."""
    return globals()[f"_{how}"](note)


@tool(sandbox=Sandbox(wall_s=1.5))
def late() -> None:
    """Sleep."""
    time.sleep(60)


@workflow
async def try_it(how: str, note: str = "") -> Any:
    """One call."""
    return await misbehave(how, note)


@workflow
async def too_late() -> None:
    """One call that takes too long."""
    await late()
