"""Printing: for people, or JSON for programs. On stdout is the answer, on stderr what is said about it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_WIDE = 200
_OWN = r"callboard[/\\](?:actors|infra|state)|concurrent[/\\]futures|asyncio"
_FRAME = re.compile(rf'  File ".*[/\\](?:{_OWN})[/\\].*\n(?:    .*\n)*')


class Output:
    """Where a command prints.

    Args:
        as_json: JSON on stdout and nothing else there.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def answer(self, data: Any, human: Callable[[Console], None]) -> None:
        """Print the one answer of a command.

        Args:
            data: for programs: what JSON can say, msgspec structs included.
            human: prints the same for people.
        """
        if self.as_json:
            out(pretty(data))
        else:
            human(console())

    def line(self, data: dict[str, Any], text: str) -> None:
        """Print one event of a stream: a JSON line, or the text (rich markup) if it is not empty."""
        if self.as_json:
            out(compact(data))
        elif text:
            console().print(text)

    def plain(self, text: str) -> None:
        """Print text as it is, for people only."""
        if not self.as_json:
            out(text)

    def hint(self, text: str) -> None:
        """Tell people, and only them, what to do next."""
        if not self.as_json:
            console(stderr=True).print(text, style="dim", highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def progress(self) -> Iterator[Callable[[str], object]]:
        """Something to tell progress with: one line that changes, or lines where nobody looks."""
        screen = console(stderr=True)
        if self.as_json or not screen.is_terminal:
            yield self.hint
            return
        with screen.status("") as status:
            yield status.update

    def fail(self, error: CallboardError, code: int) -> int:
        """Tell of an error; returns the exit code."""
        trace = str(error.fields.get("traceback", ""))
        for text in (own_lines(trace) or trace.rstrip(), f"error: {error.message}"):
            if text:
                err(text)
        if self.as_json:
            out(pretty({"error": {"code": error.code, "message": error.message, "fields": error.fields}}))
        return code

    def silence(self) -> int:
        """Print no more, not even on the way out; returns an exit code."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def own_lines(trace: str) -> str:
    """A traceback with the lines of the user's code only; empty if there are none in it."""
    left = _FRAME.sub("", trace).rstrip()
    return left if '  File "' in left else ""


def out(text: str) -> None:
    """Print to stdout, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def err(text: str) -> None:
    """Print to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def console(*, stderr: bool = False) -> Console:
    """A rich console; wide where nobody looks, so that lines stay whole for other programs."""
    from rich.console import Console

    screen = Console(stderr=stderr)
    return screen if screen.is_terminal else Console(stderr=stderr, width=_WIDE)


def table(titles: Iterable[str], *, numbers: Collection[str] = (), texts: Collection[str] = ()) -> Table:
    """A table without lines.

    Args:
        numbers: titles of columns that are aligned at the right.
        texts: titles of columns that may be broken where there is no room, or left out where there is none.
            The first column is always whole: it is what people copy.
    """
    from callboard.cli.listed import Listed

    made = Listed(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        justify: Literal["left", "right"] = "right" if title in numbers else "left"
        made.add_column(title, justify=justify, no_wrap=title not in texts)
    return made


def clock(unix: float) -> str:
    """A time for people, in their own zone."""
    return datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def lately(unix: float) -> str:
    """A time for people where there is little room: without the date if it is today's."""
    day, _, time = clock(unix).partition(" ")
    return time if day == datetime.now().astimezone().strftime("%Y-%m-%d") else f"{day} {time}"


def compact(data: Any) -> str:
    """JSON on one line."""
    import msgspec

    return msgspec.json.encode(data, enc_hook=str).decode()


def pretty(data: Any) -> str:
    """JSON for reading."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(data, enc_hook=str), indent=2).decode()


def cut(text: str, limit: int) -> str:
    """At most so many characters of a text."""
    return text if len(text) <= limit else f"{text[:limit]}..."
