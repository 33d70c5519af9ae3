"""What is stored already: where long texts lie in a run's journal and in a session's state, and reading them.

An entry of a journal is never changed, and kept for as long as its run may last. So the place of a text in it
is as good as the text for everything that belongs to the run. A part or a commit of a state stays for as long
as kept versions need it, which is long enough for the calls of a handler that holds the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from callboard.infra import subjects
from callboard.infra.direct import DirectReader, Stored
from callboard.state.packing import part_key
from callboard.state.shelf import Place, Shelf
from callboard.state.texts import long_texts

if TYPE_CHECKING:
    from callboard.state.session import Session
    from callboard.state.tree import Node

PAGE = 512
"""Messages that are read at once."""
_MOST = 100_000
"""Texts of one run that are known."""
_COMMIT = "@"
_SPARSE = 4
"""An outcome that refers to many others has little between its texts."""
_ASIDE = 256 * 1024
"""Bytes above which the event loop does not wait until they have been looked through."""


class Spot(NamedTuple):
    """A part of a stored message.

    Attributes:
        source: of a run's journal the sequence of the entry; of a state the name of a part, or ``@`` and the
            sequence of a commit.
        start: in its body; length: in bytes.
    """

    source: int | str
    start: int
    length: int


def digest_of(text: bytes) -> bytes:
    """What a text is known by."""
    return sha256(text).digest()[:16]


def commit_source(sequence: int) -> str:
    """How a spot names a commit."""
    return f"{_COMMIT}{sequence}"


def committed(source: str) -> int:
    """The sequence of the commit that a spot names; 0 if it names none."""
    digits = source.removeprefix(_COMMIT)
    return int(digits) if digits != source and digits.isdecimal() and digits.isascii() else 0


class Met:
    """What has been met before."""

    def __init__(self) -> None:
        self._met: set[bytes] = set()

    def meet(self, digest: bytes) -> bool:
        """Whether something has been met before; from now on it has."""
        if digest in self._met:
            return True
        self._met.add(digest)
        return False


class KnownJournal(Met):
    """The long texts of one run's journal, as far as they have been read.

    Args:
        reader: of this process.
        run: whose journal.
    """

    def __init__(self, reader: DirectReader, run: str) -> None:
        super().__init__()
        self._reader = reader
        self._subject = subjects.run(run, ">")
        self._where: dict[bytes, Spot] = {}
        self._after = 0
        self._lock = asyncio.Lock()

    async def read_on(self) -> None:
        """Read what has come since; of a long journal one page at a time, so that nobody waits long."""
        async with self._lock:
            page = await self._reader.read(subjects.RUNS, self._subject, self._after, PAGE)
            if sum(len(entry.body) for entry in page) > _ASIDE:
                await asyncio.to_thread(self._take, page)
            else:
                self._take(page)

    def _take(self, page: Sequence[Stored]) -> None:
        for entry in page:
            self._after = entry.sequence
            if len(self._where) < _MOST:
                for digest, spot in _spots(entry.sequence, entry.body):
                    self._where.setdefault(digest, spot)

    def find(self, digest: bytes) -> Spot | None:
        """Where a text stands, if it is known."""
        return self._where.get(digest)


class KnownState(Met):
    """The long texts of a session's state, as far as this process has read the state.

    Args:
        shelf: where it lies; place: whose it is.
    """

    def __init__(self, shelf: Shelf, place: Place) -> None:
        super().__init__()
        self._shelf = shelf
        self._place = place
        self._sources: dict[str, dict[bytes, Spot]] = {}
        self._where: dict[bytes, Spot] = {}
        self._after = 0
        self._lock = asyncio.Lock()

    async def read_on(self, session: Session) -> None:
        """Follow the state: only what it needs now is known, since that is what stays.

        Args:
            session: as it is held here.
        """
        async with self._lock:
            base = session.base_sequence
            leaves = {name for one in session.kept.values() for name in _leaves(one.root)}
            keys = [part_key(name) for name in leaves - self._sources.keys()][:PAGE]
            bodies, commits = await asyncio.gather(
                self._shelf.load(self._place, keys),
                self._shelf.commits(self._place, max(self._after, base - 1) if base else 0),
            )
            found: dict[str, bytes] = {key.partition(".")[2]: body for key, body in bodies.items()}
            for commit in commits:
                self._after = commit.sequence
                found[commit_source(commit.sequence)] = commit.body
            if commit_source(session.sequence) in self._sources.keys() | found.keys():
                self._follow(found, leaves, base)
            else:  # what is held here was deleted meanwhile, or is another one's
                self._follow({}, set(), 0)

    def _follow(self, found: Mapping[str, bytes], leaves: set[str], base: int) -> None:
        # Where there is no head yet nothing tells whether commits are those of a state that was deleted.
        gone = [one for one in self._sources if one not in leaves and (committed(one) < base or not base)]
        for source in gone:
            del self._sources[source]
        for source, body in found.items():
            self._sources[source] = dict(_spots(source, body))
        if gone:
            self._where = {}
        for source in self._sources if gone else found:
            for digest, spot in self._sources[source].items():
                self._where.setdefault(digest, spot)

    def find(self, digest: bytes) -> Spot | None:
        """Where a text stands, if it is known."""
        return self._where.get(digest)


def _spots(source: int | str, body: bytes) -> Iterator[tuple[bytes, Spot]]:
    for start, end in long_texts(body, _SPARSE):
        yield digest_of(body[start:end]), Spot(source, start, end - start)


def _leaves(root: Node | None) -> Iterator[str]:
    """The parts that hold items which this process has read."""
    waiting = [root] if root is not None else []
    while waiting:
        node = waiting.pop()
        waiting += node.nodes or ()
        if node.part and node.items is not None:
            yield node.part
