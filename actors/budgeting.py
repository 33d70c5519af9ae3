"""Setting, listing and ending budgets, as clients do."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING

import msgspec

from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.errors import BudgetInvalid, Fenced
from callboard.infra.messages.budget import Account, Budget
from callboard.state.accounts import STREAM, Accounts, named
from callboard.state.charging import UNITS, limit
from callboard.state.journal import read_entries

if TYPE_CHECKING:
    from callboard.actors.node import Node

WHEN_SPENT = ("stop", "ask", "degrade")
_TRIES = 100


def whose(session: str | None, key: str | None, run: str | None) -> tuple[str, str]:
    """The scope and the id, of which one is given.

    Raises:
        BudgetInvalid: none, or more than one.
    """
    given = [
        (scope, of) for scope, of in (("session", session), ("key", key), ("run", run)) if of is not None
    ]
    if len(given) != 1:
        raise BudgetInvalid("say whose budget it is: session=, key= or run=", budget="")
    return given[0]


def check(budget: Budget) -> None:
    """Raise BudgetInvalid if it makes no sense."""
    for unit in UNITS:
        limit = getattr(budget, unit)
        if limit is not None and not 0 <= limit < math.inf:
            raise BudgetInvalid(f"a budget of {limit} {unit}: give 0 or more, or no limit", budget=unit)
    if budget.when_spent not in WHEN_SPENT:
        text = f"when_spent={budget.when_spent!r}: there are {', '.join(WHEN_SPENT)}"
        raise BudgetInvalid(text, budget="when_spent")
    if (budget.when_spent == "degrade") != bool(budget.degrade_to):
        text = "when_spent='degrade' and degrade_to=, the name of the cheaper model, need each other"
        raise BudgetInvalid(text, budget="degrade_to")


async def charged(node: Node, run: str, budget: Budget | None, key: str | None) -> str:
    """The header of a request that is charged to these; the run's own budget is stored, if it is not yet."""
    parts: list[str] = []
    if budget is not None:
        check(budget)
        account = Account("run", run, budget, at=time.time())
        limit(account, budget)
        with contextlib.suppress(Fenced):  # the same request again
            await _accounts(node).put(named("run", run), account, 0)
        parts.append("run")
    if key is not None:
        parts.append(named("key", key))
    return ",".join(parts)


async def put(node: Node, scope: str, of: str, budget: Budget) -> Account:
    """Store a budget; what was spent under the one before it counts.

    Raises:
        BudgetInvalid: it makes no sense. Fenced: others change it all the time.
    """
    check(budget)
    name, accounts = named(scope, of), _accounts(node)
    for tried in range(_TRIES):
        account, place = await accounts.read(name)
        account = account or Account(scope, of, budget)
        limit(account, budget)
        account.at = time.time()
        try:
            await accounts.put(name, account, place)
        except Fenced:
            if tried == _TRIES - 1:
                raise
        else:
            return account
    raise AssertionError("unreachable")


async def clear(node: Node, scope: str, of: str) -> bool:
    """End a budget; whether there was one."""
    name = named(scope, of)
    account, _ = await _accounts(node).read(name)
    if account is not None:
        # A mark stays for a day: hosts that knew the account find that it is gone.
        head = H.encode([("KV-Operation", "DEL"), (H.TTL, "86400")])
        await node.store.stored(subjects.budget(name), b"", head)
    return account is not None


async def every(node: Node) -> list[Account]:
    """All budgets, by scope and id."""
    stored = await node.reader.read(STREAM, subjects.budget(">"))
    decode = msgspec.msgpack.Decoder(Account).decode
    found = [one for _, one in read_entries(decode, [entry for entry in stored if entry.body])]
    return sorted(found, key=lambda one: (one.scope, one.id))


def _accounts(node: Node) -> Accounts:
    return Accounts(node.store, node.reader, node.settings.journal_max_age)
