"""What the demo prints, and what it suggests to type."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

_WIDEST = 110

screen = Console(highlight=False)
screen.width = min(screen.width, _WIDEST) if screen.is_terminal else _WIDEST


def say(what: RenderableType = "") -> None:
    """Print, a string as rich markup; through `print`, so that it stands above a live table, not in it."""
    with screen.capture() as captured:
        screen.print(what, soft_wrap=isinstance(what, (str, Text)))
    print(captured.get(), end="", flush=True)


def title(text: str) -> None:
    """Print a heading."""
    say(f"\n[bold cyan]{text}[/]\n")


def parts(rows: Sequence[tuple[str, str, str]]) -> None:
    """Print what the demo consists of: each part's kind, its name, and what it does."""
    table = Table.grid("", "", "", padding=(0, 3, 0, 0))
    for kind, name, does in rows:
        table.add_row(f"[bold]{kind}[/]", name, f"[dim]{does}[/]")
    say(table)


def report(markdown: str, name: str) -> None:
    """Print a report: formatted on a terminal, as it is elsewhere."""
    if screen.is_terminal:
        framed = Panel(Markdown(markdown), title=Text(name), border_style="cyan", padding=(1, 2))
        say(Padding(framed, (1, 0)))
    else:
        print(f"\n{markdown}", flush=True)


def what_next(app: Path) -> None:
    """Suggest what to do after the demo."""
    title("What next")
    _commands(
        ("make demo ARGS=--kill", "kill -9 the agents' host in mid-run; the run completes all the same"),
        ("make demo ARGS=--stay", "it stays up: publish questions of your own, kill hosts at will"),
        (f"{_callboard()} dev {typed(app)}", "the same without this script, reloaded when you save"),
    )


def offer(url: str, app: Path, pid: int) -> None:
    """Suggest what to do from another terminal while the demo stays up."""
    callboard, nats = _callboard(), f"--nats {url}"
    body = shlex.quote(json.dumps({"question": "How did Google do since 2005?"}))
    title("All this is up until Ctrl-C. From another terminal:")
    _commands(
        (f'{callboard} run research --question "IBM in 2008" --watch {nats}', "ask"),
        (f"nats pub -s {url} cb.request.research {body}", "ask from any NATS client; see the answer here"),
        (f"kill -9 {pid}", "the host of the agents, in mid-run; another one is started here"),
        (f"{callboard} host {typed(app)}:StockAnalyst {nats}", "one more of these"),
        (f"{callboard} runs {nats}", "what has run; then: show RUN"),
        (f"{callboard} actors {nats}", "who is there"),
    )


def _commands(*rows: tuple[str, str]) -> None:
    for command, does in rows:
        say(f"[dim]# {does}[/]")
        print(f"{command}\n", flush=True)


def typed(path: Path) -> str:
    """A path as one would type it here."""
    relative = os.path.relpath(path)
    return shlex.quote(str(path) if relative.startswith("..") else relative)


def _callboard() -> str:
    """The command as one would type it here."""
    beside = Path(sys.executable).with_name("callboard")
    return "callboard" if shutil.which("callboard") == str(beside) else typed(beside)
