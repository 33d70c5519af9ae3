"""What models say in a run, as a client hears it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from callboard.actors.listening import Listener, Piece

if TYPE_CHECKING:
    from callboard.actors.client import Client


async def follow_tokens(client: Client, run: str) -> AsyncIterator[Piece]:
    """See :meth:`callboard.actors.client.Client.tokens`."""
    news = asyncio.Event()
    listener = Listener(client.node.connection, run, "*", news.set)
    listener.ask()
    over = asyncio.ensure_future(client.done(run))
    over.add_done_callback(lambda _: news.set())
    try:
        while True:
            news.clear()
            while (piece := listener.take()) is not None:
                yield piece
            if over.done():
                over.result()
                return
            await news.wait()
    finally:
        listener.stop()
        over.cancel()
