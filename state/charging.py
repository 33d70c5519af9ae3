"""What is done to an account: reserving, settling, raising. All of it is harmless when done twice."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import msgspec

from callboard.infra.errors import BudgetSpent
from callboard.infra.messages.budget import Account, Amounts, Budget, Reservation

UNITS: Final = ("calls", "tokens", "seconds", "usd")
SETTLED: Final = 500
"""How many requests that have ended an account knows, so that none of them is charged twice."""
RESERVED_FOR: Final = 3600.0
"""Seconds after which a reservation is void: its call has died with its host, and nobody makes it again."""


class Taken(NamedTuple):
    """What came of reserving.

    Attributes:
        unit: of which nothing is left; empty: it is reserved, or there is no budget.
        account: as it is; None: there is none.
    """

    unit: str
    account: Account | None


def reserve(account: Account | None, charge: str, estimate: Amounts, *, free: str) -> Taken:
    """Reserve for a request, if something is left of everything that is limited.

    So of all requests of all processes one at most goes beyond a limit, by no more than its estimate.

    Args:
        free: name of its model, which the budget does not limit if it degrades to it.
    """
    if account is None or charge in account.open or charge in account.settled:
        return Taken("", account)
    now = time.time()
    for old in [name for name, one in account.open.items() if now - one.at > RESERVED_FOR]:
        del account.open[old]
    budget = account.budget
    if not (budget.when_spent == "degrade" and budget.degrade_to == free):
        taken = total(account)
        for unit in UNITS:
            allowed = getattr(budget, unit)
            if allowed is not None and getattr(taken, unit) >= allowed:
                return Taken(unit, account)
    e = estimate
    account.open[charge] = Reservation(e.calls, e.tokens, e.seconds, e.usd, now)
    return Taken("", account)


def release(account: Account | None, charge: str) -> None:
    """The request is not made."""
    if account is not None:
        account.open.pop(charge, None)


def settle(account: Account | None, charge: str, used: Amounts, *, again: bool = False) -> None:
    """The request has ended: what it has taken counts in the place of what was reserved.

    Args:
        again: it was broken off, and may be made again under the same name; that is charged, too.
    """
    if account is None:
        return
    reserved = account.open.pop(charge, None)
    if reserved is None and (again or charge in account.settled):
        return
    account.spent = plus(account.spent, used)
    if again:
        return
    account.settled[charge] = round(time.time(), 3)
    for old in list(account.settled)[:-SETTLED]:
        del account.settled[old]


def limit(account: Account, budget: Budget) -> None:
    """From now on these limits hold."""
    account.budget = budget
    account.limits_at = max(account.limits_at + 1, time.time_ns() // 1_000_000)


def raise_by(account: Account | None, limits_at: int, percent: int) -> None:
    """Raise all limits, unless they were changed since ``limits_at``."""
    if account is None or account.limits_at != limits_at or percent <= 0:
        return
    b, more = account.budget, 1 + percent / 100
    budget = Budget(
        calls=None if b.calls is None else max(b.calls + 1, round(b.calls * more)),
        tokens=None if b.tokens is None else max(b.tokens + 1, round(b.tokens * more)),
        seconds=None if b.seconds is None else b.seconds * more,
        usd=None if b.usd is None else b.usd * more,
        when_spent=b.when_spent,
        degrade_to=b.degrade_to,
    )
    limit(account, budget)


def plus(one: Amounts, other: Amounts) -> Amounts:
    """The sum."""
    return Amounts(
        one.calls + other.calls,
        one.tokens + other.tokens,
        round(one.seconds + other.seconds, 6),
        round(one.usd + other.usd, 12),
    )


def total(account: Account) -> Amounts:
    """What was spent and what is reserved."""
    calls, tokens, seconds, usd = msgspec.structs.astuple(account.spent)
    for one in account.open.values():  # there may be a thousand, and this is asked for each
        calls += one.calls
        tokens += one.tokens
        seconds += one.seconds
        usd += one.usd
    return Amounts(calls, tokens, round(seconds, 6), round(usd, 12))


def spent_error(account: Account, unit: str) -> BudgetSpent:
    """That nothing is left of a budget."""
    allowed, taken = getattr(account.budget, unit), getattr(total(account), unit)
    what = f"${allowed:g}" if unit == "usd" else f"{allowed:,g} {unit}"
    return BudgetSpent(
        f"the budget of {account.scope} {account.id} is spent: {what} for models, and {taken:,g} are spent "
        "or reserved",
        scope=account.scope,
        id=account.id,
        unit=unit,
        allowed=allowed,
        spent=taken,
    )
