"""The live view of ``callboard run --watch``."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable

from callboard.actors.client import Client
from callboard.cli.history import Call, History, line
from callboard.cli.output import Output, console, err
from callboard.cli.saying import Saying, tell
from callboard.infra.durations import seconds

_EVERY = 0.1
_ASK_EVERY = 0.5
_LAST_WORDS = 2.0
_MARGIN = 4
"""Lines of the terminal that are not the table's."""


async def watch(client: Client, run: str, output: Output) -> None:
    """Show the calls of a run until it ends: JSON lines, a live table on a terminal, or a line for each."""
    saying = Saying()
    live = sys.stderr.isatty() and not output.as_json
    async with _hearing(tell(client, run, saying, output, live=live)):
        await _show(client, run, output, saying, live=live)


async def _show(client: Client, run: str, output: Output, saying: Saying, *, live: bool) -> None:
    if output.as_json:
        async for event in client.events(run):
            what = {"event": event.kind, "sequence": event.sequence, "at": event.at, "data": event.data}
            output.line(what, "")
        return
    history = History()
    if live:
        async with _live(history, saying, run), _asking(client, run, history, lambda _: None):
            async for event in client.events(run):
                history.add(event)
        return
    async with _asking(client, run, history, _print):
        async for event in client.events(run):
            _print(history.add(event))


@contextlib.asynccontextmanager
async def _hearing(telling: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Meanwhile tell what models say; it ends with the run, or with whoever watches."""
    task = asyncio.create_task(telling)
    try:
        yield
        await asyncio.wait([task], timeout=_LAST_WORDS)
    finally:
        task.cancel()


def _print(calls: Iterable[Call]) -> None:
    for call in calls:
        err(line(call))


@contextlib.asynccontextmanager
async def _asking(
    client: Client, run: str, history: History, on_begun: Callable[[list[Call]], None]
) -> AsyncIterator[None]:
    """Meanwhile ask the hosts what they run: the journal tells of a call only when it is over."""

    async def ask() -> None:
        while True:
            on_begun(history.hosts_have(await client.running(run, _ASK_EVERY)))

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()


@contextlib.asynccontextmanager
async def _live(history: History, saying: Saying, run: str) -> AsyncIterator[None]:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    screen = console(stderr=True)
    begun = time.monotonic()

    def view() -> Group:
        head = f"{run}  {seconds(time.monotonic() - begun)}  {history.counts()}"
        said = saying.last(screen.width, max(1, screen.height // 4))
        rows = max(3, screen.height - _MARGIN - len(said))
        return Group(
            Text(head, style="bold"), history.table(rows), *(Text(one, style="cyan") for one in said)
        )

    with Live(view(), console=screen, auto_refresh=False) as live:
        drawing = asyncio.create_task(_draw(lambda: live.update(view(), refresh=True)))
        try:
            yield
        finally:
            drawing.cancel()
            live.update(view(), refresh=True)


async def _draw(draw: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_EVERY)
        draw()
