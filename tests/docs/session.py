"""Running the console blocks of a page as a reader would: in one shell, in order, for real."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.docs.pages import Block

PROMPT = "$ "
ENDS_WITHIN = 60.0
"""Seconds after which a command is given up; none is expected to take more than ten."""
_JOB_ENDED = re.compile(r"^\S*bash: line \d+: +\d+ (Killed|Terminated|Interrupt)\b")


class Command(NamedTuple):
    """A command of a console block, and the lines that it is said to print."""

    text: str
    expected: list[str]


def commands(block: Block) -> list[Command]:
    """The commands of a console block."""
    found: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith(PROMPT):
            found.append(Command(line.removeprefix(PROMPT), []))
        elif found[-1].text.endswith("\\"):
            found[-1] = Command(f"{found[-1].text}\n{line}", [])
        else:
            found[-1].expected.append(line)
    return found


def matches(expected: list[str], printed: list[str]) -> bool:
    """Whether the lines are as said: ``...`` stands for anything in a line, alone for any number of lines."""
    pattern = "".join(
        r"(?:.*\n)*" if line.strip() == "..." else f"{_in_line(line)}\n" for line in expected if line.strip()
    )
    text = "".join(f"{_plain(line)}\n" for line in printed if line.strip())
    return re.fullmatch(pattern, text) is not None


def _in_line(line: str) -> str:
    return ".*".join(re.escape(part) for part in _plain(line).split("..."))


def _plain(line: str) -> str:
    """A line without its layout: columns are as wide as what stands in them."""
    return re.sub(r"\s+", " ", line).strip()


class Shell:
    """A bash that is told one command after the other. Use with ``with``.

    Args:
        folder: where it runs.
        replace: texts that the page has and a test must have otherwise (a port).
    """

    def __init__(self, folder: Path, replace: dict[str, str]) -> None:
        self._folder = folder
        self._replace = replace
        self._lines: list[str] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CALLBOARD_") and k != "NATS_URL"}
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=self._folder,
            env=kept
            | {
                "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
                "PYTHONDONTWRITEBYTECODE": "1",  # two versions of a file within a second look alike to it
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # so that all that it started can be ended with it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        self._reader.join()
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.close()
        self._bash.stdout.close()

    def _read(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            with self._changed:
                self._lines.append(line.rstrip("\n"))
                self._changed.notify()

    def write(self, block: Block) -> None:
        """Write the file that a block stands for."""
        (self._folder / block.title).write_text(self._put(block.text), "utf-8")

    def run(self, command: Command) -> None:
        """Run a command to its end (or into the background), and look at what it prints.

        Raises:
            AssertionError: it prints something else, or does not end.
        """
        assert self._bash.stdin is not None
        sentinel = f"--ended-{time.monotonic_ns()}--"
        begun = len(self._lines)
        self._bash.stdin.write(f"{self._put(command.text)}\necho; echo {sentinel}\n")
        self._bash.stdin.flush()
        with self._changed:
            ended = self._changed.wait_for(lambda: sentinel in self._lines[begun:], ENDS_WITHIN)
            printed = [
                line for line in self._lines[begun:] if line != sentinel and not _JOB_ENDED.match(line)
            ]
        said = "\n".join(printed)
        assert ended, f"$ {command.text}\ndoes not end; so far it has printed\n{said}"
        expected = [self._put(line) for line in command.expected]
        wanted = "\n".join(expected)
        assert matches(expected, printed), f"$ {command.text}\nprints\n{said}\nand not\n{wanted}"

    def _put(self, text: str) -> str:
        for old, new in self._replace.items():
            text = text.replace(old, new)
        return text
