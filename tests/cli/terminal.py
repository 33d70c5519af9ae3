"""Typing commands as a user does: each in a process of its own."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from callboard.infra.server import EmbeddedServer

APP = Path(__file__).with_name("board_app.py")
ENDS_WITHIN = 60.0
"""Seconds after which a test gives up on a process; none is expected to take more than two where nothing else runs."""


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, which must be one JSON document."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its output, which must be JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Typed = Callable[..., Ran]
"""What the fixture ``typed`` is: takes a command's arguments, and ``url``."""


def environment(url: str = "", **more: str) -> dict[str, str]:
    """The environment of a command: nothing of Callboard's settings but what the test says."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CALLBOARD_") and k != "NATS_URL"}
    return kept | ({"NATS_URL": url} if url else {}) | {"COLUMNS": "120"} | more


def command(*arguments: object) -> list[str]:
    """The command line of ``callboard``."""
    return [sys.executable, "-m", "callboard", *map(str, arguments)]


def callboard(*arguments: object, url: str = "", cwd: Path | None = None, **more: str) -> Ran:
    """Run a command to its end."""
    ended = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        env=environment(url, **more),
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        check=False,
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)


class Running:
    """A command that runs; ended with the ``with`` block. What it prints is read all the time."""

    def __init__(self, *arguments: object, url: str = "", cwd: Path | None = None, **more: str) -> None:
        self._process = subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment(url, **more),
            cwd=cwd,
        )
        self.pid = self._process.pid
        self.output = ""
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(ENDS_WITHIN)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stdout:
            for line in stdout:
                self._lines.put(line)
        self._lines.put("")

    def until(self, text: str, within: float = ENDS_WITHIN) -> str:
        """Wait, for so many seconds, for a line that holds the text, and return it."""
        ends = time.monotonic() + within
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                line = ""
            self.output += line
            if text in line:
                return line
            assert line, f"no line with {text!r} came; there was:\n{self.output}"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        code = self._process.wait(ENDS_WITHIN)
        self._reader.join(ENDS_WITHIN)
        while not self._lines.empty():
            self.output += self._lines.get()
        return code


def free_port() -> int:
    """A port below the ranges that outgoing connections use."""
    with EmbeddedServer() as server:
        return int(server.url.rpartition(":")[2])


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    ends = time.monotonic() + ENDS_WITHIN
    while not condition():
        assert time.monotonic() < ends, f"still not so: {condition}"
        time.sleep(0.005)


def wait_for(path: Path) -> None:
    """Wait until another process has made a file."""
    eventually(path.exists)
