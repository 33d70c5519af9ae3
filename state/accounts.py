"""Accounts of budgets: read, changed and stored so that no two processes change the same one at once.

An account is one message. A change is accepted only if nobody else has changed it since it was read; else
it is made again on what is there now. All changes that come while one is stored go into the next one
together, so that the many calls of a process cost few writes. What a change does must be harmless when done
twice.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.direct import DirectReader
from callboard.infra.errors import Fenced
from callboard.infra.messages.budget import Account
from callboard.infra.store import Store
from callboard.infra.subjects import NameInvalid

T = TypeVar("T")
Change = Callable[[Account | None], Any]
"""Changes an account, or is told that there is none; gives whatever its maker wants to know."""

STREAM = f"KV_{subjects.BUDGET_BUCKET}"
NOTHING_FOR = 5.0
"""Seconds for which it is believed that there is no budget, where none was found."""
LONGEST_KEY = 127
"""Bytes: it travels in a header of every call."""
_KEPT = 1000
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Account).decode


class _Page:
    """One account as it was last seen, and the changes that wait for it."""

    def __init__(self) -> None:
        self.account: Account | None = None
        self.sequence = -1
        """Place of its message; 0: there is none; below: not known."""
        self.read_at = 0.0
        self.waiting: list[tuple[Change, asyncio.Future[Any]]] = []
        self.worker: asyncio.Task[None] | None = None


class Accounts:
    """The accounts that a process has to do with.

    Args:
        store, reader: of this process.
        run_ttl: seconds that the account of a run is kept after its last change.
    """

    def __init__(self, store: Store, reader: DirectReader, run_ttl: float) -> None:
        self._store = store
        self._reader = reader
        self._run_ttl = run_ttl
        self._pages: dict[str, _Page] = {}

    async def change(self, name: str, change: Callable[[Account | None], T]) -> T:
        """Change an account; gives what the change gave when it was stored.

        Args:
            name: ``<scope>.<token>``, see :func:`named`.
            change: is given a copy; may be called several times, and counts once.

        Raises:
            CallboardError: it cannot be read or stored.
        """
        page = self._pages.get(name)
        if page is None:
            self._forget()
            page = self._pages[name] = _Page()
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        page.waiting.append((change, done))
        if page.worker is None:
            # In no scope: a branch made here would take a number from the code that happens to cause it.
            empty = contextvars.Context()
            page.worker = asyncio.get_running_loop().create_task(self._work(name, page), context=empty)
        return await done

    async def put(self, name: str, account: Account, after: int) -> int:
        """Store an account as it is; returns its place.

        Args:
            after: place of what it replaces; 0: there is nothing.

        Raises:
            Fenced: something else is there.
        """
        head = [(H.EXPECTED_SEQUENCE, str(after))]
        if account.scope == "run" and self._run_ttl:  # else journals stay, and so do their budgets
            head.append((H.TTL, f"{max(1, round(self._run_ttl))}"))
        return await self._store.stored(subjects.budget(name), _encode(account), H.encode(head))

    async def read(self, name: str) -> tuple[Account | None, int]:
        """An account and its place; None and the place of what was last there, if it is gone."""
        stored = await self._reader.last(STREAM, subjects.budget(name))
        if stored is None:
            return None, 0
        return (_decode(stored.body) if stored.body else None), stored.sequence

    async def _work(self, name: str, page: _Page) -> None:
        batch: list[tuple[Change, asyncio.Future[Any]]] = []
        try:
            while page.waiting:
                batch, page.waiting = page.waiting, []
                results = await self._apply(name, page, [change for change, _ in batch])
                for (_, done), result in zip(batch, results, strict=True):
                    if not done.done():
                        done.set_result(result)
        except BaseException as error:
            page.sequence = -1
            left, page.waiting = [*batch, *page.waiting], []
            for _, done in left:
                if not done.done():
                    (done.set_exception(error) if isinstance(error, Exception) else done.cancel())
            if not isinstance(error, Exception):
                raise
        finally:
            page.worker = None

    async def _apply(self, name: str, page: _Page, changes: list[Change]) -> list[Any]:
        fresh = False
        while True:
            stale = page.account is None and time.monotonic() - page.read_at > NOTHING_FOR
            if page.sequence < 0 or stale:
                page.account, page.sequence = await self.read(name)
                page.read_at, fresh = time.monotonic(), True
            if page.account is None:
                return [change(None) for change in changes]
            before = _encode(page.account)
            account = _decode(before)
            results = [change(account) for change in changes]
            if _encode(account) == before:  # refused, or done before: by what is there now?
                if fresh:
                    return results
                page.sequence = -1
                continue
            account.at = time.time()
            try:
                page.sequence = await self.put(name, account, page.sequence)
            except Fenced:
                page.sequence = -1
                continue
            page.account, page.read_at = account, time.monotonic()
            return results

    def _forget(self) -> None:
        """Keep no more than a thousand in memory."""
        if len(self._pages) < _KEPT:
            return
        for name in [name for name, page in self._pages.items() if page.worker is None][: _KEPT // 2]:
            del self._pages[name]


def named(scope: str, of: str) -> str:
    """The name of an account: its key in the bucket.

    Raises:
        NameInvalid: the id is empty or too long.
    """
    if scope == "key" and not 0 < len(of.encode()) <= LONGEST_KEY:
        raise NameInvalid(
            f"key {of[:140]!r} can have no budget: give it 1 to {LONGEST_KEY} bytes",
            what="key",
            value=of[:140],
        )
    return f"{scope}.{subjects.session_token(of)}"


def key_of(charged: str) -> str:
    """The key among the names of a header, the first if there are several; empty: there is none."""
    tokens = (name.removeprefix("key.") for name in charged.split(",") if name.startswith("key."))
    token = next(tokens, "")
    try:
        return subjects.session_of(token)
    except ValueError:  # anybody may have written it
        return token
