"""The ledger: what was executed, told by the handlers themselves, outside of Callboard and of NATS.

One file, opened for appending by every process; one line for each beginning and each end. A line is
written by one call of the system, so lines never mix, and what stands in the file survives kill -9.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

START = "start"
END = "end"
RAISED = "raised"
"""The handler ended with an exception, or was stopped."""


class Entry(NamedTuple):
    """One line.

    Attributes:
        what: START, END or RAISED.
        future: id of the call; attempt: of it, from 1.
        pid: who; at: unix seconds.
    """

    what: str
    future: str
    attempt: int
    pid: int
    at: float


class Writer:
    """Writes lines.

    Args:
        path: of the ledger; made if missing.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, future: str, attempt: int) -> None:
        """Append one line."""
        os.write(self._file, f"{what} {future} {attempt} {os.getpid()} {time.time_ns()}\n".encode())

    @contextlib.contextmanager
    def execution(self, future: str, attempt: int) -> Iterator[None]:
        """One execution of a call, from its beginning to its end."""
        self.write(START, future, attempt)
        try:
            yield
        except BaseException:
            self.write(RAISED, future, attempt)
            raise
        self.write(END, future, attempt)


def parse(text: str) -> list[Entry]:
    """All entries, in the order in which they were written."""
    entries = []
    for line in text.splitlines():
        what, future, attempt, pid, at = line.split()
        entries.append(Entry(what, future, int(attempt), int(pid), int(at) / 1e9))
    return entries


class Reader:
    """Reads a ledger while it grows.

    Args:
        path: of the ledger; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self.entries: list[Entry] = []

    def refresh(self) -> list[Entry]:
        """Everything so far."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._at)
                fresh = file.read()
            whole = fresh[: fresh.rfind(b"\n") + 1]
            self._at += len(whole)
            self.entries += parse(whole.decode())
        return self.entries

    def count(self, what: str) -> int:
        """How many entries of a kind there are by now."""
        return sum(entry.what == what for entry in self.refresh())
