"""What stands in a run's journal already: where its long texts lie, and reading them from there.

An entry of a journal is never changed, and kept for as long as its run may last. So the place of a text in it
(sequence, offset, length) is as good as the text for everything that belongs to the run.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from callboard.infra import subjects
from callboard.infra.direct import DirectReader
from callboard.infra.errors import ValueMissing
from callboard.infra.settings import MIB
from callboard.state.texts import long_texts

_PAGE = 512
_SINGLY = 16
_LAGGING = (0.02, 0.05, 0.1, 0.2)
"""Seconds to wait for a server of a cluster that has not got yet what another has stored."""
_CACHE = 64 * MIB


class Range(NamedTuple):
    """A part of an entry of a run's journal.

    Attributes:
        sequence: of the entry in the stream; start: in its body; length: in bytes.
    """

    sequence: int
    start: int
    length: int


def digest_of(text: bytes) -> bytes:
    """What a text is known by."""
    return blake2b(text, digest_size=16).digest()


class Known:
    """The long texts of one run's journal, as far as they have been read.

    Args:
        reader: of this process.
        run: whose journal.
    """

    def __init__(self, reader: DirectReader, run: str) -> None:
        self._reader = reader
        self._subject = subjects.run(run, ">")
        self._where: dict[bytes, Range] = {}
        self._met: set[bytes] = set()
        self._after = 0
        self._lock = asyncio.Lock()

    async def read_on(self) -> None:
        """Read what has come since; of a long journal one page at a time, so that nobody waits long."""
        async with self._lock:
            for entry in await self._reader.read(subjects.RUNS, self._subject, self._after, _PAGE):
                self._after = entry.sequence
                for start, end in long_texts(entry.body):
                    where = Range(entry.sequence, start, end - start)
                    self._where.setdefault(digest_of(entry.body[start:end]), where)

    def find(self, digest: bytes) -> Range | None:
        """Where a text stands, if it is known."""
        return self._where.get(digest)

    def meet(self, digest: bytes) -> bool:
        """Whether something has been met in this run before; from now on it has."""
        if digest in self._met:
            return True
        self._met.add(digest)
        return False


class Entries:
    """Reads parts of journals' entries, and keeps the entries for the next time.

    Args:
        reader: of this process.
    """

    def __init__(self, reader: DirectReader) -> None:
        self._reader = reader
        self._cache: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._cached = 0

    async def read(self, run: str, ranges: Iterable[Range]) -> list[bytes]:
        """The texts that stand there.

        Raises:
            ValueMissing: there is no such entry of this run any more, or it is shorter.
        """
        ranges = list(ranges)
        entries = await self._entries(run, {one.sequence for one in ranges})
        texts = [entries.get(one.sequence, b"")[one.start : one.start + one.length] for one in ranges]
        for one, text in zip(ranges, texts, strict=True):
            if len(text) != one.length:
                raise ValueMissing(
                    f"a part of a value is not in the journal of run {run} any more (sequence "
                    f"{one.sequence}): a journal is kept for as long as a run may last",
                    run=run,
                    sequence=one.sequence,
                )
        return texts

    async def _entries(self, run: str, sequences: set[int]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for wait in (*_LAGGING, None):
            for sequence in sequences - found.keys():
                if (run, sequence) in self._cache:
                    self._cache.move_to_end((run, sequence))
                    found[sequence] = self._cache[run, sequence]
            missing = sequences - found.keys()
            if not missing:
                break
            for sequence, body in (await self._fetched(run, missing)).items():
                found[sequence] = body
                self._remember((run, sequence), body)
            if wait is None or not sequences - found.keys():
                break
            await asyncio.sleep(wait)
        return found

    async def _fetched(self, run: str, sequences: set[int]) -> dict[int, bytes]:
        if len(sequences) <= _SINGLY:
            own = subjects.run(run, "")
            singly = await asyncio.gather(*(self._reader.at(subjects.RUNS, one) for one in sequences))
            return {
                one.sequence: one.body for one in singly if one is not None and one.subject.startswith(own)
            }
        found: dict[int, bytes] = {}
        after, last = min(sequences) - 1, max(sequences)
        while after < last:
            page = await self._reader.read(subjects.RUNS, subjects.run(run, ">"), after, _PAGE)
            found |= {one.sequence: one.body for one in page if one.sequence in sequences}
            if not page:
                break
            after = page[-1].sequence
        return found

    def _remember(self, key: tuple[str, int], body: bytes) -> None:
        if key in self._cache or len(body) > _CACHE // 4:
            return
        self._cache[key] = body
        self._cached += len(body)
        while self._cached > _CACHE:
            self._cached -= len(self._cache.popitem(last=False)[1])
