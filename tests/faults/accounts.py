"""What the scenarios of sessions run: accounts with managed state, and the business done with them.

Every operation adds a line to its account's log and answers what it saw before, see `histories`. The state
is what counts; the ledger only tells that a handler ran.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import msgspec
from tests.faults.app import Shaky, execution, place
from tests.faults.histories import Answer

import callboard
from callboard import ManagedCounter, ManagedList


class Seen(msgspec.Struct):
    """What a handler saw before it changed anything."""

    future: str
    lines: int
    balance: int
    began: float


class Short(Exception):
    """There is less than was to be taken; its arguments are those of Seen."""


def _seen(account: Any) -> Seen:
    return Seen(place()[0], len(account.log), account.balance, time.time())


def _write(account: Any, mark: str, amount: int) -> None:
    account.log.append([mark, amount])
    account.balance += amount


@callboard.agent(concurrency=16)
class Purse:
    """One account of a session."""

    log: ManagedList[list[Any]]
    balance: ManagedCounter

    @callboard.method(retries=3, backoff=0.02)
    async def append(self, mark: str, amount: int, pause: float = 0.0) -> Seen:
        """Add a line; now and then it fails first, after it has written."""
        with execution():
            seen = _seen(self)
            _write(self, mark, amount)
            await asyncio.sleep(pause)
            if amount % 5 == 0 and place()[1] == 1:
                raise Shaky(mark)
            return seen

    @callboard.method
    def increment(self, mark: str, amount: int, pause: float = 0.0) -> Seen:
        """The same, in a thread."""
        with execution():
            seen = _seen(self)
            time.sleep(pause)
            _write(self, mark, amount)
            return seen

    @callboard.method
    async def take(self, mark: str, amount: int, pause: float = 0.0) -> Seen:
        """Take (the amount is negative), unless there is less."""
        with execution():
            seen = _seen(self)
            await asyncio.sleep(pause)
            if seen.balance + amount < 0:
                raise Short(*msgspec.structs.astuple(seen))
            _write(self, mark, amount)
            return seen


@callboard.agent(concurrency=16)
class Chest:
    """Another account."""

    log: ManagedList[list[Any]]
    balance: ManagedCounter

    @callboard.method
    async def give(self, mark: str, amount: int, pause: float = 0.0) -> Seen:
        """Add a line."""
        with execution():
            seen = _seen(self)
            _write(self, mark, amount)
            await asyncio.sleep(pause)
            return seen


class _Book:
    """What one maker has made, and heard."""

    def __init__(self, maker: str, pause: float) -> None:
        self.answers: list[Answer] = []
        self.moved: list[tuple[str, str]] = []
        self._maker = maker
        self._pause = pause
        self._number = 0
        self._open: list[tuple[tuple[str, str], str, int, Any]] = []

    def make(self, actor: str, method: Any, amount: int, session: str = "") -> str:
        """Make a call, if so in another session; gives its mark."""
        self._number += 1
        mark = f"{self._maker}#{self._number}"
        with callboard.options(session=session or None):
            self._open.append(((actor, session), mark, amount, method(mark, amount, self._pause)))
        return mark

    async def settle(self) -> Answer:
        """Wait for all that was made; gives the last answer."""
        for (actor, session), mark, amount, future in self._open:
            try:
                seen, refused = await future, False
            except Short as short:
                seen, refused = Seen(*short.args), True
            self.answers.append(
                Answer(
                    actor=actor,
                    session=session,
                    mark=mark,
                    amount=amount,
                    future=seen.future,
                    seen=seen.lines,
                    balance=seen.balance,
                    began=seen.began,
                    refused=refused,
                )
            )
        self._open.clear()
        return self.answers[-1]

    async def transfer(self, amount: int, session: str) -> None:
        """Take from the one, and give what was taken to the other, which is another session's."""
        taken = self.make("Purse", Purse.take, -amount)
        if not (await self.settle()).refused:
            given = self.make("Chest", Chest.give, amount, session)
            await self.settle()
            self.moved.append((taken, given))


class Report(msgspec.Struct):
    """What a maker has heard, in the order in which it was made."""

    answers: list[Answer]
    moved: list[tuple[str, str]]


@callboard.tool
async def courier(maker: str, amount: int, session: str, pause: float) -> Report:
    """A transfer made by a handler."""
    with execution():
        book = _Book(maker, pause)
        await book.transfer(amount, session)
        return Report(book.answers, book.moved)


@callboard.workflow
async def business(maker: str, others: list[str], seed: int, steps: int, pause: float) -> Report:
    """Bursts, increments and transfers to other sessions, drawn by the seed."""
    chance = random.Random(seed)
    book = _Book(maker, pause)
    for step in range(steps):
        kind = chance.choices(("burst", "mixed", "transfer", "courier"), (4, 3, 4, 1))[0]
        if kind == "burst":
            for _ in range(chance.randint(2, 5)):
                book.make("Purse", Purse.append, chance.randint(1, 20))
        elif kind == "mixed":
            for method in (Purse.increment, Purse.append, Purse.take, Purse.increment):
                amount = chance.randint(1, 20)
                book.make("Purse", method, -amount if method is Purse.take else amount)
        elif kind == "transfer":
            await book.transfer(chance.randint(1, 40), chance.choice(others))
            continue
        else:
            amount, session = chance.randint(1, 40), chance.choice(others)
            report = await courier(f"{maker}c{step}", amount, session, pause)
            book.answers += report.answers
            book.moved += report.moved
            continue
        await book.settle()
    return Report(book.answers, book.moved)
