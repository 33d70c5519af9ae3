"""``callboard budget``: what may be spent on models."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit, NotFound, UsageError
from callboard.cli.output import table

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.infra.messages.budget import Account, Budget


def budget(
    scope: Literal["run", "session", "key"] | None = None,
    of: str | None = None,
    /,
    *,
    calls: int | None = None,
    tokens: int | None = None,
    seconds: float | None = None,
    usd: float | None = None,
    when_spent: Literal["stop", "ask", "degrade"] = "stop",
    degrade_to: str = "",
    clear: Annotated[bool, Parameter(negative=())] = False,
    common: Common = DEFAULTS,
) -> int:
    """Say what a session, a key or a run may spend on models; without arguments, list what was spent.

    What was spent already counts. A key is what runs are submitted with (Client.submit(key=...)).

        callboard budget key team-a --usd 20 --when-spent ask
        callboard budget session anna --tokens 100000 --when-spent degrade --degrade-to mini
        callboard budget key team-a --clear

    Args:
        scope: Whose budget: a session's, a key's, or a run's that was submitted with one.
        of: The session, the key or the run.
        calls: Requests to engines.
        tokens: As engines count them, prompts included.
        seconds: That engines take; of requests side by side each its own.
        usd: By the prices that the models' hosts were given.
        when_spent: Calls fail, wait until somebody answers the question in the inbox, or go elsewhere.
        degrade_to: The cheaper model to which they go; it is not limited.
        clear: End the budget, and forget what was spent.
    """
    if scope is None or of is None:
        if scope is not None or clear:
            raise UsageError("say whose budget: run, session or key, and which")
        return _list(common)
    limits = {"calls": calls, "tokens": tokens, "seconds": seconds, "usd": usd}
    if clear:
        return _clear(scope, of, common)
    if all(limit is None for limit in limits.values()):
        raise UsageError("say what may be spent: --calls, --tokens, --seconds or --usd; or --clear")
    from callboard.infra.messages.budget import Budget

    wanted = Budget(
        calls=calls,
        tokens=tokens,
        seconds=seconds,
        usd=usd,
        when_spent=when_spent,
        degrade_to=degrade_to,
    )

    async def store() -> Account:
        async with common.client() as client:
            return await client.set_budget(wanted, **{scope: of})

    account = asyncio.run(store())
    common.output.answer(account, lambda screen: screen.print(_line(account), markup=False))
    return Exit.OK


def _clear(scope: str, of: str, common: Common) -> int:
    async def end() -> bool:
        async with common.client() as client:
            return await client.clear_budget(**{scope: of})

    if not asyncio.run(end()):
        raise NotFound(f"{scope} {of} has no budget: 'callboard budget' lists them")
    common.output.answer(
        {"scope": scope, "id": of}, lambda screen: screen.print(f"{scope} {of}: no budget", markup=False)
    )
    return Exit.OK


def _list(common: Common) -> int:
    async def look() -> list[Account]:
        async with common.client() as client:
            return await client.budgets()

    accounts = asyncio.run(look())
    common.output.answer(accounts, lambda screen: _print(accounts, screen))
    return Exit.OK


def _print(accounts: list[Account], screen: Console) -> None:
    from rich.markup import escape

    if not accounts:
        screen.print("no budgets")
        return
    listed = table(
        ("scope", "id", "calls", "tokens", "seconds", "usd", "open", "when spent"),
        numbers=("calls", "tokens", "seconds", "usd", "open"),
        texts=("id",),
    )
    for one in accounts:
        cells = (one.scope, one.id, *_amounts(one), str(len(one.open)), _when_spent(one.budget))
        listed.add_row(*map(escape, cells))
    screen.print(listed)


def _amounts(account: Account) -> list[str]:
    """What was spent of what, by unit."""
    told: list[str] = []
    for unit in ("calls", "tokens", "seconds", "usd"):
        spent, limit = getattr(account.spent, unit), getattr(account.budget, unit)
        shown = f"{spent:,.4g}" if isinstance(spent, float) else f"{spent:,}"
        told.append(shown if limit is None else f"{shown} / {limit:,}")
    return told


def _when_spent(budget: Budget) -> str:
    return f"{budget.when_spent} {budget.degrade_to}".rstrip()


def _line(account: Account) -> str:
    names = ("calls", "tokens", "seconds", "usd")
    limited = [
        f"{amount} {unit}"
        for unit, amount in zip(names, _amounts(account), strict=True)
        if getattr(account.budget, unit) is not None
    ]
    return f"{account.scope} {account.id}: {', '.join(limited)}; {_when_spent(account.budget)} when spent"
