"""The state of one session at one actor: a log of commits, written by one holder at a time.

Each commit is one message, accepted only if the commit before it is still the last. It holds what has
changed, with the id and the result of the call that changed it. Now and then it also holds a head, the
whole state with everything long in parts that were stored before. The state is the newest head and
the changes after it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from zlib import crc32

import msgspec

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.direct import Stored
from callboard.infra.errors import Fenced, StateDamaged, StateIncompatible, StateTooLarge
from callboard.infra.messages.run import NIL
from callboard.infra.messages.state import Applied, Change, Commit
from callboard.infra.settings import Settings
from callboard.state import packing
from callboard.state.folding import FREED, Base, Fold, anew, listed_in, settled
from callboard.state.items import Codec
from callboard.state.kept import Kept, apply, unread_for
from callboard.state.packing import Packer
from callboard.state.reading import Parts
from callboard.state.shelf import Place, Shelf, Told
from callboard.state.tree import Unread, unread_between
from callboard.state.turn import Turn

_MOST_CHANGES = 128 * 1024
"""Bytes of one commit's changes, and twice as many of all since the last head."""
_FEW = 8
"""Commits after a head that whoever opens a session may have to read while it rests."""
_RENEWED = 0.25
"""What is older than this part of the ``ttl`` is stored anew; by as much, messages outlive it."""

_EVER = 2**62

Background = Callable[[Callable[[], Coroutine[None, None, None]]], None]
"""Runs what nobody waits for."""


class Rules(msgspec.Struct, frozen=True):
    """What an actor says of its state.

    Attributes:
        kinds: its attributes: ``list``, ``dict``, ``value`` or ``counter``, by name.
        ttl: seconds that a state is kept after its last commit; 0: for ever.
        max_bytes: that a state may have; 0: no limit.
    """

    kinds: Mapping[str, str] = {}
    ttl: float = 0.0
    max_bytes: int = 0


class Session(Parts):
    """A session's state at an actor, as this process knows it.

    Args:
        place: whose it is; shelf: where it lies.
        rules: of the actor; settings: of this process.
        background: runs what nobody waits for.

    Attributes:
        version: commits so far; sequence: of the last one.
        epoch: of the holder; holder: its name.
        kept: the attributes as they were last committed.
        lost: another holder has written, or it is not known what was stored: open it anew.
        read_at: seconds of the monotonic clock when what is stored was read; 0: there was nothing.
        written_at: unix seconds of the last commit.
        untold: the last commit's call, and its result, as they were read.
        told: set when the outcome of the last commit made here is in the journal.
        committed_at: monotonic seconds when a call was last committed here; 0: none since it was taken.
    """

    def __init__(
        self, place: Place, shelf: Shelf, rules: Rules, settings: Settings, background: Background
    ) -> None:
        super().__init__(place, shelf)
        self.actor, self.id = place
        self.rules = rules
        self.inline_limit = settings.inline_limit
        self._history = settings.state_history
        # Not all sessions at the same time, where many begin together.
        self._head_every = self._history // 2 - crc32(self.id.encode()) % max(1, self._history // 8)
        self._background = background
        self._start()

    def _start(self) -> None:
        self.version = self.epoch = self.sequence = 0
        self.holder = ""
        self.kept: dict[str, Kept] = {}
        self.fitting: dict[str, Codec] = {}  # by which annotations attributes were found to fit, see Turn.fit
        self.lost = False
        self.read_at = self.written_at = 0.0
        self.untold: tuple[str, msgspec.Raw] | None = None
        self.told: asyncio.Event | None = None
        self._base = Base()
        self._commits = self._bytes = 0  # since the base
        self._applied: OrderedDict[bytes, int] = OrderedDict()
        self._opened: int | None = None  # the sequence, until the first head after that
        self._removed: set[int] = set()
        self._turn: Turn | None = None
        self.committed_at = 0.0
        self._folding: asyncio.Event | None = None

    # -- opening -----------------------------------------------------------------------------------

    async def load(self) -> Session:
        """Read what is stored; anew where somebody writes meanwhile, and removes what was being read.

        Raises:
            StateIncompatible: an attribute is of another kind in the code.
            StateDamaged: something is missing.
        """
        while True:
            began = time.monotonic()
            last = await self._shelf.last(self.place)
            self._start()
            try:
                if last is not None:
                    await self._load(last, began)
                break
            except StateDamaged:
                if await self._is_last(0 if last is None else last.sequence):
                    raise
        self._opened = self.sequence
        self._check_kinds()
        return self

    async def _load(self, last: Stored, began: float) -> None:
        self.read_at = began
        newest = self.decoded(last)
        if newest.call:
            self.untold = newest.call, newest.result
        try:
            await self.replay(
                [last] if newest.head else await self._shelf.commits(self.place, newest.base - 1)
            )
        except StateDamaged:
            if not _outlived(last):
                raise
            self.version, self.epoch, self.holder = newest.version, newest.epoch, newest.holder
            self.sequence = last.sequence
            self._expire()
        self.written_at = last.at
        if self.expired:
            self._expire()

    async def _is_last(self, sequence: int) -> bool:
        last = await self._shelf.last(self.place)
        return sequence == (0 if last is None else last.sequence)

    async def is_newest(self) -> bool:
        """Whether nobody else has written since this was read. During a call, in which it is not folded."""
        await self.folded()
        return not self.lost and await self._shelf.is_newest(self.place, self.sequence)

    @asynccontextmanager
    async def as_read(self) -> AsyncIterator[None]:
        """What is missing may have gone because somebody else has written: that is no damage.

        Raises:
            Fenced: somebody has. The session is lost.
            StateDamaged: nobody has.
        """
        try:
            yield
        except StateDamaged as error:
            if await self._is_last(self.sequence):
                raise
            self.lost = True
            raise Fenced(
                f"session {self.id} of {self.actor} has another holder",
                subject=subjects.state(self.actor, subjects.session_token(self.id)),
            ) from error

    async def replay(self, stored: Sequence[Stored]) -> None:
        """Make the state from commits, from its base on.

        Raises:
            StateDamaged: something is missing.
        """
        pending: dict[str, Change] = {}
        for one in stored:
            commit = self.decoded(one)
            if commit.head is None and commit.version != self.version + 1:
                raise self.damaged(f"version {commit.version}", "the commits before it are not kept any more")
            if commit.head is not None:
                self._based(Base(one.sequence, commit.head))
                self._applied = OrderedDict((a.digest, a.sequence) for a in commit.head.applied)
                self.kept = dict(self._base.kept)
                pending.clear()
            else:
                self._commits += 1
                self._bytes += len(one.body)
                for name, change in commit.changes.items():
                    if not packing.appended(pending.get(name), change):
                        if name in pending:
                            await self._apply(name, pending[name])
                        pending[name] = change
            self.version, self.epoch, self.holder = commit.version, commit.epoch, commit.holder
            self.sequence = one.sequence
            self._remember(commit.call)
        for name, change in pending.items():
            await self._apply(name, change)

    def decoded(self, stored: Stored) -> Commit:
        """A commit.

        Raises:
            StateDamaged: it is none.
        """
        try:
            return packing.decode_commit(stored.body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise self.damaged(f"sequence {stored.sequence}", str(error)) from error

    async def _apply(self, name: str, change: Change) -> None:
        kept = self.kept.get(name) or Kept(change.kind)
        while missing := list(dict.fromkeys(unread_for(kept, change))):
            await self.read(missing)
        # Where one change follows another in the middle of a list, more is met on the way.
        while True:
            try:
                self.kept[name] = apply(kept, change, _wanting)
                break
            except _Unread as met:
                await self.read(met.nodes)
        self._base.fresh |= packing.large_of(change)

    def _expire(self) -> None:
        """The last commit is older than the state is kept: what follows builds on nothing."""
        self.kept = {}
        self._based(Base())
        self._base.sequence = -1
        self._applied.clear()

    def _based(self, base: Base) -> None:
        self._base = base
        self._commits = self._bytes = 0

    def _check_kinds(self) -> None:
        for name, kind in self.rules.kinds.items():
            known = self.kept.get(name)
            if known is not None and known.kind != kind:
                raise StateIncompatible(
                    f"{self.actor}.{name} of session {self.id} is stored as a {known.kind}, and the code "
                    f"says {kind}: give the attribute another name, or delete the state",
                    actor=self.actor,
                    session=self.id,
                    attribute=name,
                )

    # -- calls -------------------------------------------------------------------------------------

    def has_applied(self, call: str) -> bool:
        """Whether a call may have been applied already; :meth:`applied` says what it gave."""
        return _digest(call) in self._applied

    async def applied(self, call: str) -> msgspec.Raw | None:
        """What a call gave that has been applied already; None if it has not been.

        Raises:
            Fenced: somebody else has written since.
            StateDamaged: it has been, and its result is not kept any more.
        """
        sequence = self._applied.get(_digest(call))
        if sequence is None:
            return None
        async with self.as_read():
            stored = await self._shelf.at(self.place, sequence)
            if stored is None:
                raise self.damaged(
                    f"sequence {sequence}", f"call {call} was applied there, and it is not kept any more"
                )
        commit = self.decoded(stored)
        return commit.result if commit.call == call else None

    def begin(self, *, beside: bool = False) -> Turn:
        """Begin a call; one at a time. It ends with :meth:`commit` or :meth:`rollback`.

        Args:
            beside: it is one of a batch.
        """
        self.rollback()
        self._turn = Turn(self, beside=beside)
        return self._turn

    @property
    def base_sequence(self) -> int:
        """Sequence of the commit whose head what came after builds on; 0 if there is none."""
        return max(self._base.sequence, 0)

    @property
    def ttl(self) -> float:
        """Seconds that what is stored is kept after its last commit; 0: for ever."""
        return self._base.ttl

    @property
    def expired(self) -> bool:
        """Whether its last commit is older than the state is kept."""
        return self.ttl > 0 and time.time() > self.written_at + self.ttl

    @property
    def busy(self) -> bool:
        """Whether a call has begun and not ended."""
        return self._turn is not None

    def rollback(self) -> None:
        """Drop what the call that has begun has changed. Idempotent."""
        if self._turn is not None:
            self._turn.open = False
            self._turn = None

    async def commit(self, call: str = "", result: msgspec.Raw = NIL, told: Told | None = None) -> int:
        """Store what the call that has begun has changed, with its result; returns the commit's sequence.

        Args:
            call: its id; result: msgpack; told: the outcome that is held for this commit.

        Raises:
            Fenced: another holder has written: nothing of this is stored. The session is lost.
            StateTooLarge: the state would be above the actor's ``max_bytes``.
            ItemInvalid: an item that was fetched and changed does not fit its annotation any more.
            StateIncompatible: in a batch something was put beside what does not fit.
        """
        if self.folding:
            await self.folded()
        turn = self._turn
        assert turn is not None, "begin() comes before commit()"
        if turn.unseen:
            async with self.as_read():
                await turn.look()
        turn.settle()
        packer = Packer()
        changes = turn.changes(packer)
        self._check_size(turn.kept, changes)
        commit = self._next(call=call, result=result, changes=changes)
        await self._write(commit, turn.kept, packer, told=told)
        self.committed_at = time.monotonic()
        self.rollback()
        return self.sequence

    async def take(self, holder: str) -> None:
        """Let this host be the holder: whoever was it before cannot commit any more.

        What was changed since :meth:`begin` is stored with it.

        Raises:
            Fenced: somebody else was faster. The session is lost.
        """
        await self.folded()
        self.committed_at = 0.0  # from now on it may be another's
        packer, turn = Packer(), self._turn
        changes = {} if turn is None else turn.changes(packer)
        kept = dict(self.kept) if turn is None else turn.kept
        await self._write(self._next(epoch=self.epoch + 1, holder=holder, changes=changes), kept, packer)
        self.rollback()

    async def overwrite(self, kept: dict[str, Kept]) -> int:
        """Store other attributes in the place of all; returns the commit's sequence.

        Raises:
            Fenced: somebody else has written meanwhile. The session is lost.
        """
        await self._write(self._next(), kept, Packer(), whole=True)
        return self.sequence

    @property
    def to_fold(self) -> bool:
        """Whether it would be opened faster if it were folded, and may be, once nobody uses it."""
        return (
            self._commits >= _FEW and self.committed_at > 0 and not (self.lost or self.expired or self._old)
        )

    def rests(self, since: float) -> bool:
        """Whether it is to be folded now.

        Args:
            since: seconds of the monotonic clock; no call has been committed after that.
        """
        told = self.untold is None and (self.told is None or self.told.is_set())
        idle = self.committed_at <= since and not self.busy and not self.folding
        return idle and told and self.to_fold

    async def fold(self) -> None:
        """Store a head: whoever opens the session next has to read nothing else. Not during a call.

        A call may begin meanwhile; its commit waits.

        Raises:
            Fenced: somebody else has written meanwhile. The session is lost.
        """
        self._folding = folded = asyncio.Event()
        try:
            await self._write(self._next(), self.kept, Packer(), whole=True)
        finally:
            self._folding = None
            folded.set()

    @property
    def folding(self) -> bool:
        """Whether it is being folded."""
        return self._folding is not None

    async def folded(self) -> None:
        """Wait while it is being folded."""
        while self._folding is not None:
            await self._folding.wait()

    def _next(self, **fields: Any) -> Commit:
        given = {"epoch": self.epoch, "holder": self.holder, **fields}
        return Commit(self.version + 1, base=self._base.sequence, **given)

    def _check_size(self, kept: Mapping[str, Kept], changes: Mapping[str, Change]) -> None:
        limit = self.rules.max_bytes
        if not limit or not changes:
            return
        size = sum(one.size for one in kept.values())
        if size > limit and size > sum(one.size for one in self.kept.values()):
            raise StateTooLarge(
                f"the state of session {self.id} at {self.actor} would have {size:,} bytes, and {limit:,} "
                "are allowed (state_max_bytes of the agent): keep less of it, or raise the limit",
                actor=self.actor,
                session=self.id,
                size=size,
                limit=limit,
            )

    # -- writing -----------------------------------------------------------------------------------

    async def _write(
        self,
        commit: Commit,
        kept: dict[str, Kept],
        packer: Packer,
        *,
        whole: bool = False,
        told: Told | None = None,
    ) -> None:
        left: list[str] = []
        commit.size = sum([one.size for one in kept.values()])
        body = packing.encode(commit)
        base = None
        try:
            if whole or self._folds(len(body)):
                async with self.as_read():
                    kept, base = await self._fold(commit, kept, packer)
                left = await self._left_behind()
                if len(body) > _MOST_CHANGES:
                    commit.changes = {}
                body = packing.encode(commit)
            sequence = await self._store(body, packer, told, anew=base is not None and base.anew)
        except BaseException as error:
            self.lost = True  # also where nobody knows what was stored
            packer.take_back()
            if isinstance(error, Fenced):
                own = [packing.part_key(part) for part in packer.parts]
                self._background(lambda: self._shelf.drop(self.place, own, _EVER))
            raise
        self.version, self.epoch, self.holder = commit.version, commit.epoch, commit.holder
        self.sequence, self.kept, self.written_at = sequence, kept, time.time()
        self._remember(commit.call)
        if base is None:
            self._commits += 1
            self._bytes += len(body)
            self._base.fresh |= packer.large.keys()
        else:
            base.sequence = sequence
            self._based(base)
            self._background(lambda: self._clean(sequence, left))

    def _folds(self, size: int) -> bool:
        """Whether a commit has a head: well before the last one is not kept any more, or much has changed."""
        base = self._base
        return (
            base.sequence < 0
            or self._commits + 1 >= self._head_every
            or size > _MOST_CHANGES
            or self._bytes + size > 2 * _MOST_CHANGES
            or self._old
        )

    @property
    def _old(self) -> bool:
        """Whether messages of the state would go before it does, or long after."""
        ttl, base = self.rules.ttl, self._base
        return base.ttl != ttl or (ttl > 0 and time.time() - base.since > ttl * _RENEWED)

    async def _fold(
        self, commit: Commit, kept: dict[str, Kept], packer: Packer
    ) -> tuple[dict[str, Kept], Base]:
        old = self._old
        if old:
            for one in kept.values():
                while missing := unread_between(one.root, 0, one.count):
                    await self.read(missing)
            kept = anew(kept)
        kept = settled(kept)
        fold = Fold(self._base, kept)
        while missing := fold.unread():
            await self.read(missing)
        applied = [Applied(*one) for one in self._applied.items()][-self._history :]
        commit.head = fold.head(packer, commit.version, applied, self._removed)
        commit.head.since = time.time() if old else self._base.since
        commit.head.ttl = self.rules.ttl
        commit.base = 0
        base = Base(0, commit.head)
        base.kept, base.anew = kept, old
        return kept, base

    async def _store(self, body: bytes, packer: Packer, told: Told | None, *, anew: bool) -> int:
        """Store the parts that a commit refers to, then the commit."""
        base = self._base
        ttl = math.ceil(self.rules.ttl * (1 + _RENEWED))
        if packer.parts or packer.large:
            parts = {key: one for key, one in packer.contents().items() if anew or not base.has(key)}
            await self._shelf.store(self.place, parts, ttl)
        # What is kept longer than this commit must not be taken for the state when this one is gone.
        alone = anew and self.rules.ttl > 0 and not 0 < base.ttl <= self.rules.ttl
        return await self._shelf.commit(self.place, body, self.sequence, ttl, alone=alone, told=told)

    def _remember(self, call: str) -> None:
        if call:
            self._applied[_digest(call)] = self.sequence
            while len(self._applied) > self._history:
                self._applied.popitem(last=False)

    # -- what is not needed any more -----------------------------------------------------------------

    async def _left_behind(self) -> list[str]:
        """Parts that somebody else stored after the commit that this session was opened with."""
        opened, self._opened = self._opened, None
        if opened is None:
            return []
        return [
            key for key, _ in await self._shelf.parts_after(self.place, opened) if not self._base.has(key)
        ]

    async def _clean(self, upto: int, left: list[str]) -> None:
        """Remove parts that no kept commit refers to.

        Args:
            upto: sequence of the last commit: what is stored later is not touched.
            left: parts whose commit never came, and cannot come any more.
        """
        base, oldest = self._base, self.version - self._history
        due = [one for one in base.freed if one.version <= oldest and one.version not in self._removed]
        keys = [*left, *(key for one in due for key in one.keys)]
        for key in [key for key in keys if key.startswith(FREED)]:
            keys += await listed_in(self._shelf, self.place, key)
        await self._shelf.drop(self.place, [key for key in dict.fromkeys(keys) if not base.has(key)], upto)
        self._removed |= {one.version for one in due}


class _Unread(Exception):
    def __init__(self, nodes: Sequence[Unread]) -> None:
        self.nodes = nodes


def _wanting(nodes: Sequence[Unread]) -> None:
    raise _Unread(nodes)


def _outlived(last: Stored) -> bool:
    """Whether a state was to be kept until now only, so that what its last commit builds on may have gone."""
    ttl = float(last.headers.get(H.TTL, 0)) / (1 + _RENEWED)
    return ttl > 0 and time.time() > last.at + ttl


@lru_cache(64)
def _digest(call: str) -> bytes:
    return blake2b(call.encode(), digest_size=8).digest()
