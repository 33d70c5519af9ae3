"""Handlers that run in processes of their own; such a process imports them from here."""

from __future__ import annotations

import os
import time

import callboard
from callboard import agent, method, tool


class Tired(Exception):
    """A user's error."""


@tool(cpu=True, concurrency=2)
def burn(until_file: str, mark: str) -> int:
    """Tell that it runs, then compute until a file is there; gives the process's id."""
    with open(mark, "w", encoding="utf-8") as file:  # noqa: PTH123 - a handler like any
        file.write(str(os.getpid()))
    while not os.path.exists(until_file):  # noqa: PTH110
        time.sleep(0.002)
    return os.getpid()


@tool(cpu=True, concurrency=2, retries=0)
def add(a: int, b: int) -> int:
    """Add, in a process."""
    return a + b


@tool(cpu=True, concurrency=2)
def fail(text: str) -> int:
    """Raise, in a process."""
    raise Tired(text)


@tool(cpu=True, concurrency=2)
def die() -> int:
    """End the process."""
    os._exit(3)


@tool(cpu=True, concurrency=2)
def leave() -> int:
    """Try to end the process politely."""
    raise SystemExit(3)


@tool(cpu=True, concurrency=2)
def calls(a: int) -> int:
    """Make a call, which a process of its own cannot."""
    return add(a, a) + 1  # type: ignore[operator]


@tool(cpu=True, concurrency=2)
def names() -> str:
    """Make a name of its own."""
    return str(callboard.uuid())


@agent(concurrency=1)
class Worker:
    """An agent whose methods run in a process, where its instance lives."""

    def __init__(self) -> None:
        self.count = 0

    @method(cpu=True)
    def again(self, size: int) -> list[int]:
        """How often, and where; with a large result."""
        self.count += 1
        return [self.count, os.getpid(), *range(size)]


@tool(cpu=True, concurrency=1, preemptable=True)
def yields(until_file: str, mark: str) -> int:
    """The same, for one at a time, and it may be stopped."""
    return burn.function(until_file, mark)  # type: ignore[no-any-return]
