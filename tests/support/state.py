"""What tests of managed state share: a shelf that crashes, and an actor's sessions on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from callboard.infra.settings import Settings
from callboard.state import dicts, kept, packing, splicing, tree
from callboard.state.managed import Attribute, manage, within
from callboard.state.session import Rules, Session
from callboard.state.sessions import Sessions
from callboard.state.shelf import Place, Shelf, Told
from callboard.state.turn import Turn


class Crash(Exception):
    """The process has died here."""


class CrashingShelf:
    """A shelf whose owner dies at its n-th write, before or after it is stored.

    Args:
        shelf: where what is stored is.

    Attributes:
        left: writes until then; None: it lives.
        after: the last write is stored, and nobody hears of it.
        bytes: written so far; reads: asked for so far.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.left: int | None = None
        self.after = False
        self.bytes = 0
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        """What reads, and all that is no write of a holder."""
        if name in {"last", "at", "commits", "load", "load_now"}:
            self.reads += 1
        return getattr(self._shelf, name)

    async def commit(
        self,
        place: Place,
        body: bytes,
        after: int,
        ttl: int = 0,
        *,
        alone: bool = False,
        told: Told | None = None,
    ) -> int:
        """One write."""
        self._write(len(body))
        sequence = await self._shelf.commit(place, body, after, ttl, alone=alone, told=told)
        self._written()
        return sequence

    async def store(self, place: Place, parts: Mapping[str, bytes], ttl: int = 0) -> None:
        """One write for each part."""
        for key, body in parts.items():
            self._write(len(body))
            await self._shelf.store(place, {key: body}, ttl)
            self._written()

    async def drop(self, place: Place, keys: Iterable[str], upto: int) -> None:
        """One write for each part."""
        for key in keys:
            self._write(0)
            await self._shelf.drop(place, [key], upto)
            self._written()

    def _write(self, size: int) -> None:
        self.bytes += size
        if self.left is not None:
            self.left -= 1
            if self.left < 0 or (self.left == 0 and not self.after):
                raise Crash

    def _written(self) -> None:
        if self.left == 0:
            raise Crash


class Actor:
    """An agent with managed state, and a process that runs it.

    Args:
        cls: declares the state.
        shelf: where it lies, a :class:`Shelf` or what behaves as one.
        settings: of the process.
        rules: further ones.
    """

    def __init__(self, cls: type[Any], shelf: Any, settings: Settings, **rules: Any) -> None:
        self.attributes: dict[str, Attribute] = manage(cls, cls.__name__)
        kinds = {name: one.kind for name, one in self.attributes.items()}
        self.rules = Rules(kinds, **rules)
        self.name = cls.__name__
        self.agent = cls()
        self.shelf = shelf
        self.settings = settings
        self.sessions = Sessions(shelf, settings)

    def restart(self) -> None:
        """A new process in the place of the old one, which is just gone."""
        for task in self.sessions._tasks:
            task.cancel()
        self.sessions = Sessions(self.shelf, self.settings)

    async def open(self, session: str = "s") -> Session:
        """The session, as this process has it."""
        return await self.sessions.open(self.name, session, self.rules)

    @asynccontextmanager
    async def call(self, call: str = "", session: str = "s", result: Any = None) -> AsyncIterator[Turn]:
        """Within it the attributes are those of the session; commits at its end, or rolls back."""
        opened = await self.open(session)
        turn = opened.begin()
        try:
            with within(turn):
                yield turn
            await opened.commit(call, msgspec.Raw(msgspec.msgpack.encode(result)))
        except BaseException:
            opened.rollback()
            raise


def small_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees with few items in a node, so that few items make high ones."""
    monkeypatch.setattr(splicing, "LEAF", 24)
    monkeypatch.setattr(splicing, "FAN", 4)
    for module in (tree, kept, dicts):  # and keys whose hashes are alike, over several nodes
        monkeypatch.setattr(module, "hashed", lambda key: sum(key) % 3)
    monkeypatch.setattr(packing, "TAIL", 16)
    monkeypatch.setattr(packing, "TAIL_KEPT", 8)
