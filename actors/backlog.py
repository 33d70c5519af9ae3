"""The requests that no driver has taken yet, found by their run."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from callboard.actors.node import Node
from callboard.actors.shared import Shared
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.direct import Stored

_LOOKED_AT = 2048
"""So many of the newest sequences are looked at; what lies further back was seen before, or is not found."""
_PAGE = 64
_REMEMBERED = 65_536


class Backlog:
    """Where in the stream of requests a run's request lies, as far as somebody has asked.

    A stream cannot be asked for a header, nor for headers alone, so requests are read whole, but each once.

    Args:
        node: of this process.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._places: OrderedDict[str, int] = OrderedDict()
        self._after = 0
        self._catch_up = Shared(self._read_on)

    async def find(self, run: str) -> Stored | None:
        """The request of a run if it is in the stream now; it goes from there when its run has ended."""
        found = await self._at_its_place(run)
        if found is None:
            await self._catch_up()
            found = await self._at_its_place(run)
        return found

    async def state(self) -> dict[str, Any]:
        """The stream's state."""
        answer = await self._node.topology.api(f"STREAM.INFO.{subjects.REQUESTS}")
        state: dict[str, Any] = answer.get("state", {})
        return state

    async def _at_its_place(self, run: str) -> Stored | None:
        place = self._places.get(run)
        if place is None:
            return None
        stored = await self._node.reader.at(subjects.REQUESTS, place)
        if stored is not None and _run_of(stored) == run:
            return stored
        if self._places.get(run) == place:
            del self._places[run]
        return None

    async def _read_on(self) -> None:
        """Read what has been stored since the last time."""
        last = int((await self.state()).get("last_seq", 0))
        if last < self._after:  # the stream was made anew
            self._after = 0
            self._places.clear()
        self._after = max(self._after, last - _LOOKED_AT)
        while True:
            page = await self._node.reader.read(
                subjects.REQUESTS, subjects.request("*"), self._after, limit=_PAGE
            )
            for stored in page:
                self._remember(stored)
            if len(page) < _PAGE:
                return

    def _remember(self, stored: Stored) -> None:
        self._after = stored.sequence
        run = _run_of(stored)
        if run:
            self._places[run] = stored.sequence
            self._places.move_to_end(run)
        if len(self._places) > _REMEMBERED:
            self._places.popitem(last=False)


def _run_of(stored: Stored) -> str:
    """The id of a request's run, as its driver reads it; empty where the request has none that can be."""
    given = stored.headers.get(H.RUN) or stored.headers.get(H.MESSAGE_ID) or ""
    return given if subjects.is_token(given) else ""
