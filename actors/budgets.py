"""Budgets around the requests to an engine: reserved before, settled after; what a spent one leads to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from callboard.actors.budget_questions import asked
from callboard.infra import log
from callboard.infra.errors import BudgetSpent
from callboard.infra.messages.budget import Account, Amounts
from callboard.infra.subjects import NameInvalid
from callboard.state.accounts import Accounts, named
from callboard.state.charging import release, reserve, settle, spent_error

if TYPE_CHECKING:
    from callboard.actors.inbound import Call
    from callboard.actors.node import Node


class Degraded(Exception):
    """A budget is spent, and says that a cheaper model is to be asked."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model


class Budgets:
    """All that the models of a host charge.

    Args:
        node: of this process, open; spawn: runs a coroutine on the side.
    """

    def __init__(self, node: Node, spawn: Callable[..., object]) -> None:
        self.node = node
        self.spawn = spawn
        self.asking: Counter[str] = Counter()
        """Calls of this host that wait for an answer, by the question's place in the inbox."""
        self.accounts = Accounts(node.store, node.reader, node.settings.journal_max_age)
        self._free: set[str] = set()

    def takes_nothing(self, model: str) -> None:
        """A model without a price is asked under a budget of money; it is told of once."""
        if model not in self._free:
            self._free.add(model)
            log.get("budgets").warning(
                "model_has_no_price",
                model=model,
                action="budgets in dollars do not limit it",
                fix="callboard host --price INPUT,OUTPUT, or price=Price(...), if it costs anything",
            )

    def purse(self, call: Call, path: str) -> Purse | None:
        """What a call's requests are charged to; None: to nothing.

        Args:
            path: of the call with its attempt; the same again when it is delivered again.
        """
        parts = call.charged.split(",")
        names = [named("run", call.run) if part == "run" else part for part in parts if part]
        if call.session != call.run:
            with contextlib.suppress(NameInvalid):  # of so long a session nobody can have set one
                names.append(named("session", call.session))
        return Purse(self, call, path, names) if names else None


class Purse:
    """What the requests of one call are charged to.

    Args:
        budgets: of the host; names: of the accounts, in the order in which they are charged.
    """

    def __init__(self, budgets: Budgets, call: Call, path: str, names: list[str]) -> None:
        self._budgets = budgets
        self._accounts = budgets.accounts
        self._call = call
        self._path = path
        self._names = names
        self._requests = 0

    @contextlib.asynccontextmanager
    async def charged(self, model: str, estimate: Amounts) -> AsyncIterator[Reserved]:
        """Reserve what a request will take at most, and settle what it has taken.

        Args:
            model: whose request.

        Raises:
            BudgetSpent: nothing is left. Degraded: another model is to be asked.
        """
        self._requests += 1
        charge = f"{self._path}#{self._requests}"
        try:
            bounded = await self._reserve(charge, model, estimate)
        except (BudgetSpent, Degraded):
            raise
        except BaseException:  # perhaps it is reserved all the same
            self._budgets.spawn(self._release(charge, self._names))
            raise
        reserved = Reserved(bounded)
        began = time.monotonic()
        broken_off = False
        try:
            yield reserved
        except asyncio.CancelledError:  # perhaps only for a while, for a more urgent call or another host
            broken_off = True
            raise
        finally:
            reserved.used.calls = 1
            reserved.used.seconds = round(time.monotonic() - began, 6)
            await self._settle(charge, reserved.used, again=broken_off)

    async def _reserve(self, charge: str, model: str, estimate: Amounts) -> bool:
        while True:
            bounded, spent = await self._take(charge, model, estimate)
            if spent is None:
                return bounded
            account, unit = spent
            policy = account.budget.when_spent
            if policy == "degrade":
                asked_already = {where.partition(".")[0] for where in self._call.path}
                if account.budget.degrade_to in asked_already:  # another budget has degraded from it
                    raise spent_error(account, unit)
                raise Degraded(account.budget.degrade_to)
            if policy != "ask" or not await asked(self._budgets, self._call, account, unit):
                raise spent_error(account, unit)

    async def _take(
        self, charge: str, model: str, estimate: Amounts
    ) -> tuple[bool, tuple[Account, str] | None]:
        """Reserve in all accounts or in none; whether tokens count, and which account is spent."""
        bounded = False
        for place, name in enumerate(self._names):
            taken = await self._accounts.change(
                name, lambda account: reserve(account, charge, estimate, free=model)
            )
            if taken.account is None:
                continue
            if taken.unit:
                await self._release(charge, self._names[:place])
                return bounded, (taken.account, taken.unit)
            budget = taken.account.budget
            if budget.usd is not None and not estimate.usd:
                self._budgets.takes_nothing(model)
            bounded = bounded or budget.tokens is not None or budget.usd is not None
        return bounded, None

    async def _release(self, charge: str, names: list[str]) -> None:
        for name in names:
            await self._accounts.change(name, lambda account: release(account, charge))

    async def _settle(self, charge: str, used: Amounts, *, again: bool) -> None:
        over = asyncio.Event()

        def settled(account: Account | None) -> None:
            settle(account, charge, used, again=again)

        async def all_of_them() -> None:
            try:
                for name in self._names:
                    await self._accounts.change(name, settled)
            finally:
                over.set()

        self._budgets.spawn(all_of_them())  # also when the call is cancelled meanwhile
        await over.wait()


class Reserved:
    """A request under way.

    Attributes:
        bounded: tokens count, so it must say how many it takes at most.
        used: what it has taken, to be filled in.
    """

    def __init__(self, bounded: bool) -> None:  # noqa: FBT001 - its only argument
        self.bounded = bounded
        self.used = Amounts()
