"""Reading parts of stored messages: of journals' entries, and of the parts and commits of states."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection

from callboard.infra import subjects
from callboard.infra.direct import DirectReader
from callboard.infra.errors import ValueMissing
from callboard.infra.settings import MIB
from callboard.state.known import PAGE, Spot, commit_source, committed
from callboard.state.packing import part_key
from callboard.state.shelf import Place, Shelf

_SINGLY = 16
_LAGGING = (0.02, 0.05, 0.1, 0.2)
"""Seconds to wait for a server of a cluster that has not got yet what another has stored."""
_CACHE = 64 * MIB

Key = tuple[str | Place, int | str]
Bodies = dict[int | str, bytes]


class Spots:
    """Reads spots, and keeps the messages for the next time.

    Args:
        reader, shelf: of this process.
    """

    def __init__(self, reader: DirectReader, shelf: Shelf) -> None:
        self._reader = reader
        self._shelf = shelf
        self._cache: OrderedDict[Key, bytes] = OrderedDict()
        self._cached = 0

    async def read(self, run: str, place: Place | None, spots: Collection[Spot]) -> list[bytes]:
        """The texts that stand there.

        Args:
            run: whose journal; place: whose state.

        Raises:
            ValueMissing: there is no such message any more, or it is shorter.
        """
        in_journal: set[int | str] = {one.source for one in spots if isinstance(one.source, int)}
        in_state: set[int | str] = {one.source for one in spots if isinstance(one.source, str)}
        found = await self._bodies(run, in_journal, lambda missing: self._entries(run, missing))
        if place is not None and in_state:
            found |= await self._bodies(place, in_state, lambda missing: self._parts(place, missing))
        texts = [found.get(one.source, b"")[one.start : one.start + one.length] for one in spots]
        for one, text in zip(spots, texts, strict=True):
            if len(text) != one.length:
                raise ValueMissing(
                    f"a part of a value is not stored any more: {one.source} of run {run}: journals are kept "
                    "for as long as a run may last, states until they change",
                    run=run,
                    source=str(one.source),
                )
        return texts

    async def _bodies(
        self, of: str | Place, sources: set[int | str], fetch: Callable[[set[int | str]], Awaitable[Bodies]]
    ) -> Bodies:
        found: Bodies = {}
        for wait in (*_LAGGING, None):
            for source in sources - found.keys():
                if (of, source) in self._cache:
                    self._cache.move_to_end((of, source))
                    found[source] = self._cache[of, source]
            if missing := sources - found.keys():
                for source, body in (await fetch(missing)).items():
                    found[source] = body
                    self._remember((of, source), body)
            if wait is None or len(found) == len(sources):
                break
            await asyncio.sleep(wait)
        return found

    async def _entries(self, run: str, missing: set[int | str]) -> Bodies:
        sequences = sorted(one for one in missing if isinstance(one, int))
        if len(sequences) <= _SINGLY:
            own = subjects.run(run, "")
            singly = await asyncio.gather(*(self._reader.at(subjects.RUNS, one) for one in sequences))
            of_run = [one for one in singly if one is not None and one.subject.startswith(own)]
            return {one.sequence: one.body for one in of_run}
        found: Bodies = {}
        after, last = sequences[0] - 1, sequences[-1]
        while after < last:
            page = await self._reader.read(subjects.RUNS, subjects.run(run, ">"), after, PAGE)
            found |= {one.sequence: one.body for one in page if one.sequence in missing}
            if not page:
                break
            after = page[-1].sequence
        return found

    async def _parts(self, place: Place, missing: set[int | str]) -> Bodies:
        names = [one for one in missing if isinstance(one, str)]
        sequences = [number for one in names if (number := committed(one))]
        keys = {part_key(one): one for one in names if not committed(one)}
        bodies = await self._shelf.load(place, keys)
        found: Bodies = {keys[key]: body for key, body in bodies.items()}
        if sequences:
            for commit in await self._shelf.commits(place, min(sequences) - 1):
                found[commit_source(commit.sequence)] = commit.body
        return {source: body for source, body in found.items() if source in missing}

    def _remember(self, key: Key, body: bytes) -> None:
        if key in self._cache or len(body) > _CACHE // 4:
            return
        self._cache[key] = body
        self._cached += len(body)
        while self._cached > _CACHE:
            self._cached -= len(self._cache.popitem(last=False)[1])
