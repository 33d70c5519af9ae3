"""Following entries of the bucket of decisions: each in the order of the stream, and none is missed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from callboard.infra import headers as H
from callboard.infra import log, subjects
from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from callboard.actors.node import Node

STREAM = f"KV_{subjects.POLICY_BUCKET}"
PREFIX = f"$KV.{subjects.POLICY_BUCKET}."


class Entries:
    """Entries of the bucket as they are now.

    The server repeats what it has stored; the bucket is read at the beginning, after each lost connection,
    and when an entry says that one before it was missed.

    Args:
        node: of this process, open.
        pattern: which entries: ``route.>``, or ``>`` for all.
        take: told of each new one: its subject in the bucket, and its body; an empty one is gone.
        spawn: runs a coroutine on the side.
    """

    def __init__(
        self,
        node: Node,
        pattern: str,
        take: Callable[[str, bytes], None],
        spawn: Callable[..., object],
    ) -> None:
        self._node = node
        self._pattern = pattern
        self._taker = take
        self._spawn = spawn
        self._sid = 0
        self._reading = 0
        self._gone: set[str] = set()
        self._known: dict[str, int] = {}  # by subject: the place of the last entry in the stream
        self.last = 0
        """Place in the stream of the last one that was heard."""
        self._log = log.get("entries").bind(entries=pattern)

    async def start(self) -> None:
        """Hear of entries from now on, and read what there is. Idempotent."""
        if self._sid:
            return
        self._sid = self._node.connection.subscribe(subjects.policy(self._pattern), self._on_entry)
        self._node.connection.on_reconnect(self._read_again)
        await self._read()

    def stop(self) -> None:
        """Idempotent."""
        if self._sid:
            self._node.connection.unsubscribe(self._sid)
            self._sid = 0

    def _on_entry(self, subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        # What the server repeats was stored, in the order of the stream.
        key = subject.decode("utf-8", "replace").split(".", 2)[2]
        stored = f"{PREFIX}{key}"
        if H.find_int(head, b"Nats-Last-Sequence") > self._known.get(stored, 0):
            self._read_again()  # something was missed
        self._take(stored, H.find_int(head, b"Nats-Sequence"), data)
        if not self._reading:
            self._forget_gone()

    def _read_again(self) -> None:
        if self._sid:
            self._spawn(self._read_safely())

    async def _read_safely(self) -> None:
        try:
            await self._read()
        except CallboardError as error:  # at the next connection
            self._log.warning("policy_unread", error=str(error))

    async def _read(self) -> None:
        before = dict(self._known)
        self._reading += 1
        try:
            found = await self._node.reader.read(STREAM, f"{PREFIX}{self._pattern}")
        finally:
            self._reading -= 1
        for entry in found:
            self._take(entry.subject, entry.sequence, entry.body)
        for subject in before.keys() - {entry.subject for entry in found}:
            if self._known.get(subject) == before[subject]:  # gone from the stream without a word
                self._take(subject, before[subject] + 1, b"")
        if not self._reading:
            self._forget_gone()

    def _take(self, subject: str, sequence: int, body: bytes) -> None:
        if sequence <= self._known.get(subject, 0):
            return
        self.last = max(self.last, sequence)
        self._known[subject] = sequence
        (self._gone.discard if body else self._gone.add)(subject)
        self._taker(subject, body)

    def _forget_gone(self) -> None:
        """While the bucket is read, an entry that is gone must not come back; after that it is nothing."""
        for subject in self._gone:
            self._known.pop(subject, None)
        self._gone.clear()


class Decision(Protocol):
    """What an entry says.

    Attributes:
        epoch: of two about the same, the one of the greater epoch holds.
    """

    epoch: int


D = TypeVar("D", bound=Decision)


class Newest(Generic[D]):
    """The decisions of one kind that hold now, by what they are about.

    Args:
        node: of this process, open.
        kind: what keys begin with, and the log calls them.
        about: which calls a key is about.
        read: the decision in an entry; None for what is none, whoever has put it there.
        spawn: runs a coroutine on the side.
        heard: told of each new one; gone: told what one was about that holds no more.
    """

    def __init__(
        self,
        node: Node,
        kind: str,
        about: Callable[[str], tuple[str, str]],
        read: Callable[[str, bytes], D | None],
        spawn: Callable[..., object],
        heard: Callable[[D], None] | None = None,
        gone: Callable[[tuple[str, str]], None] | None = None,
    ) -> None:
        self._gone = gone
        self.held: dict[tuple[str, str], D] = {}
        self._kind, self._about, self._decode, self._heard = kind, about, read, heard
        self._entries = Entries(node, f"{kind}.>", self._take, spawn)
        self._log = log.get("entries")

    async def start(self) -> None:
        """Hear of them from now on, and read what there is. Idempotent."""
        await self._entries.start()

    def stop(self) -> None:
        """Idempotent."""
        self._entries.stop()

    def _take(self, subject: str, body: bytes) -> None:
        where = self._about(subject)
        if not body:
            if self.held.pop(where, None) is not None and self._gone is not None:
                self._gone(where)
            return
        found = self._decode(subject, body)
        if found is None:
            action = "going on with the one before"
            self._log.warning(f"{self._kind}_unreadable", subject=subject, action=action)
            return
        known = self.held.get(where)
        if known is not None and known.epoch > found.epoch:
            told = {"subject": subject, "epoch": found.epoch, "known": known.epoch}
            self._log.warning(f"{self._kind}_outdated", **told)
            return
        self.held[where] = found
        if self._heard is not None:
            self._heard(found)
