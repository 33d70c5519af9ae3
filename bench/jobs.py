"""What the handlers of both sides do, so that both do the same.

Gate and ledger are files named by the environment of the worker process: a gate is open once its
file exists; a ledger is appended to by every handler that must be counted from outside.
"""

import asyncio
import functools
import os
import time
from collections.abc import Awaitable
from pathlib import Path

import msgspec

ENGINE = "BENCH_ENGINE"
"""Variable that tells a model host where its engine is."""
GATE = "BENCH_GATE"
LEDGER = "BENCH_LEDGER"
PLAN_S = 0.005
TOOL_S = 0.010
SUMMARY_S = 0.005
GATE_POLL_S = 0.02
INTERRUPTED_S = 60.0
STEP_S = 0.020


class Entry(msgspec.Struct, frozen=True):
    """One line of a ledger.

    Args:
        key: the call's name.
        what: `begin` or `end`.
        pid: process that ran the handler.
        at_s: seconds on the machine's monotonic clock.
    """

    key: str
    what: str
    pid: int
    at_s: float


def record(key: str, what: str) -> None:
    """Append an entry to the ledger; one write, so that lines of several processes never mix."""
    os.write(_ledger(), f"{key} {what} {os.getpid()} {time.monotonic()}\n".encode())


@functools.cache
def _ledger() -> int:
    return os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class LedgerReader:
    """Reads a ledger while others write it.

    Args:
        ledger: the file; it need not exist yet.
        key: only entries of this key.
    """

    def __init__(self, ledger: Path, key: str | None = None) -> None:
        self._ledger = ledger
        self._key = key
        self._offset = 0

    def fresh(self) -> list[Entry]:
        """The complete entries written since the last call, in their order."""
        if not self._ledger.exists():
            return []
        with self._ledger.open("rb") as file:
            file.seek(self._offset)
            lines = file.read()
        complete = lines[: lines.rfind(b"\n") + 1]
        self._offset += len(complete)
        found = (_entry(line) for line in complete.decode().splitlines())
        return [entry for entry in found if self._key in (None, entry.key)]


def _entry(line: str) -> Entry:
    key, what, pid, at_s = line.split()
    return Entry(key, what, int(pid), float(at_s))


async def until_open() -> None:
    """Wait until the gate's file exists; all waiters share one look at the file system."""
    await _opened()


def _opened() -> Awaitable[None]:
    if _watch.task is None:
        _watch.task = asyncio.create_task(_watch_gate(Path(os.environ[GATE])))
    return asyncio.shield(_watch.task)


class _Watch:
    task: asyncio.Task[None] | None = None


_watch = _Watch()


async def _watch_gate(gate: Path) -> None:
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - a file of another process is polled
        await asyncio.sleep(GATE_POLL_S)


async def held(number: int) -> None:
    """Wait for the gate, then count one execution."""
    await until_open()
    record(str(number), "end")


async def interrupted(trial: int) -> None:
    """Hang when it runs for the first time, return at once when it runs again."""
    begun_before = LedgerReader(Path(os.environ[LEDGER]), key=str(trial)).fresh()
    record(str(trial), "begin")
    if not begun_before:
        await asyncio.sleep(INTERRUPTED_S)


async def relayed(run: int, step: int) -> None:
    """Record begin and end of one step of a run; the first step waits for the gate."""
    key = f"{run}.{step}"
    record(key, "begin")
    if step:
        await asyncio.sleep(STEP_S)
    else:
        await until_open()
    record(key, "end")
