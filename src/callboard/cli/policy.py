"""``callboard policy``: which policies controllers follow."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from callboard.cli.admit import told_rate
from callboard.cli.common import DEFAULTS, Common, Count
from callboard.cli.exits import Exit, UsageError
from callboard.cli.output import clock, err, table

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.infra.messages.policy import Admission, Deciding, Decision, Round

LOOKED_AT = 50_000
"""Entries of the bucket of decisions that 'policy log' looks through, from the end."""
What = Literal["route", "priority", "admit", "clear", "migrate", "kill", "provision"]

app = App(name="policy", help="Say which policies controllers follow.", result_action="return_value")


@app.command(name="list")
def list_(*, common: Common = DEFAULTS) -> int:
    """List the policies that are followed, those that there are, and how they stand."""

    async def look() -> tuple[list[str] | None, Deciding | None, list[Admission], str]:
        from callboard.controller import decisions, lease

        async with common.client() as client:
            chosen, running = await decisions.chosen(client.node), await decisions.running(client.node)
            return chosen, running, await client.admissions(), await lease.leader(client.node)

    from callboard.controller import loading

    chosen, running, limits, leader = asyncio.run(look())
    data = {
        "chosen": chosen, "running": running, "leader": leader, "known": loading.names(), "admitted": limits,
    }  # fmt: skip

    def show(screen: Console) -> None:
        _show(screen, chosen, running, loading.names())
        if not leader:
            screen.print("no controller leads: what was decided stays. Start one: callboard controller")
        for one in limits:
            screen.print(f"{one.workflow} accepts {told_rate(one)}: {one.policy} {one.reason}", markup=False)

    common.output.answer(data, show)
    return Exit.OK


def _show(screen: Console, chosen: list[str] | None, running: Deciding | None, known: list[str]) -> None:
    from rich.markup import escape

    if running is None or not running.policies:
        screen.print("no policies")
    else:
        listed = table(("policy", "state", "problem"), texts=("problem",))
        for one in running.policies:
            listed.add_row(escape(one.name), one.state, escape(one.problem))
        screen.print(listed)
    if chosen is not None and (running is None or [one.name for one in running.policies] != chosen):
        screen.print(f"chosen: {', '.join(chosen) or 'none'}; no controller has taken it up", markup=False)
    screen.print(f"to choose from: {', '.join(known)}, FILE:CLASS", markup=False)


def check(policies: Sequence[str]) -> None:
    """See that there are such policies; whether a FILE:CLASS can be used its controller finds out.

    Raises:
        UsageError: there is none of this name.
    """
    if not policies:  # what decides takes a while to import
        return
    from callboard.controller import loading

    for one in policies:
        if ":" not in one and one not in loading.names():
            raise UsageError(
                f"there is no policy {one!r}: give FILE:CLASS, or one of {', '.join(loading.names())}"
            )


@app.command(name="set")
def set_(*policy: str, common: Common = DEFAULTS) -> int:
    """Have controllers follow these policies from now on, and no others.

    What others have decided is cleared. It counts until 'clear' or 'reset', whatever controllers are started
    with. A file is read anew, on the machine of the controller: where it is here, too, it has to be usable.

        callboard policy set srtf /etc/callboard/own.py:Own

    Args:
        policy: Its name, or FILE:CLASS; the first goes before the others.
    """
    check(policy)
    if not policy:
        raise UsageError("name a policy; 'callboard policy clear' ends all, 'reset' goes back to --policy")
    chosen = list(dict.fromkeys(policy))
    away = _away(chosen)
    for one in away:
        err(f"warning: there is no file for {one} here; 'callboard policy list' tells if controllers have it")
    _store(chosen, common)
    told = ", ".join(chosen)
    common.output.answer(
        {"chosen": chosen, "not_here": away}, lambda screen: screen.print(told, markup=False)
    )
    return Exit.OK


def _away(policies: Sequence[str]) -> list[str]:
    """Those whose file is not on this machine.

    Raises:
        PolicyUnusable: one that is here cannot be loaded.
    """
    from callboard.controller import loading

    away: list[str] = []
    for one in policies:
        file, colon, _ = one.rpartition(":")
        if colon and Path(file).is_file():
            loading.load(one)
        elif colon:
            away.append(one)
    return away


@app.command
def log(
    *,
    last: Annotated[Count, Parameter(alias="-n")] = 50,
    what: Annotated[list[What] | None, Parameter(negative=())] = None,
    common: Common = DEFAULTS,
) -> int:
    """List what policies have decided lately, and why; decisions are kept for an hour.

        callboard policy log --what kill --what provision

    Args:
        last: How many, the latest.
        what: Only these; may be given again.
    """

    async def look() -> list[Round]:
        from callboard.controller import decisions

        async with common.client() as client:
            return await decisions.rounds(client.node, LOOKED_AT)

    found = [
        Decided(one.at, one.epoch, decision)
        for one in asyncio.run(look())
        for decision in one.decisions
        if not what or decision.what in what
    ][-max(0, last) :]
    common.output.answer(found, lambda screen: _show_decided(screen, found))
    return Exit.OK


@dataclass(frozen=True)
class Decided:
    """A decision, with when it was made and its epoch."""

    at: float
    epoch: int
    decision: Decision


def _show_decided(screen: Console, found: list[Decided]) -> None:
    from rich.markup import escape

    if not found:
        screen.print("no decisions")
        return
    listed = table(
        ("time", "epoch", "policy", "decision", "reason"), numbers=("epoch",), texts=("decision", "reason")
    )
    for one in found:
        told = f"{one.decision.what} {_of(one.decision)}"
        texts = (one.decision.policy, told, one.decision.reason)
        listed.add_row(clock(one.at), str(one.epoch), *map(escape, texts))
    screen.print(listed)


def _of(decision: Decision) -> str:
    """What a decision is about, in words."""
    tokens = decision.key.removeprefix("$KV.").split(".")
    hosts = ", ".join(
        host if weight == 1 else f"{host}={weight:g}" for host, weight in decision.hosts.items()
    )
    match decision.what:
        case "kill":
            return tokens[-1]
        case "provision":
            return f"{tokens[-1]} at {decision.where}"
        case "migrate":
            return f"{tokens[1]} {_session(tokens[2])}: {decision.source} to {hosts}"
        case "clear":
            return f"{tokens[1]} {_entry(tokens)}"
        case _:
            values = {"priority": f"{decision.value}", "route": hosts, "admit": f"{decision.rate:g} a second"}
            return f"{_entry(tokens)}: {values.get(decision.what, '')}"


def _entry(tokens: Sequence[str]) -> str:
    """What an entry of the bucket is about."""
    if tokens[1] == "priority":
        return " at ".join([_session(tokens[2]), *tokens[3:]])
    return " ".join([tokens[2], *map(_session, tokens[3:])])


def _session(token: str) -> str:
    from callboard.infra import subjects

    return subjects.session_of(token)


@app.command
def clear(*, common: Common = DEFAULTS) -> int:
    """Follow no policy: what policies have decided is cleared, what people have decided stays.

    That counts whatever controllers are started with; 'callboard policy reset' goes back to it.
    """
    _store([], common)
    common.output.answer({"chosen": []}, lambda screen: screen.print("no policies"))
    return Exit.OK


@app.command
def reset(*, common: Common = DEFAULTS) -> int:
    """Go back to what controllers were started with (--policy), as if nobody had said 'set' or 'clear'."""
    _store(None, common)
    told = "controllers follow what they were started with"
    common.output.answer({"chosen": None}, lambda screen: screen.print(told))
    return Exit.OK


def _store(names: list[str] | None, common: Common) -> None:
    async def store() -> None:
        from callboard.controller import decisions

        async with common.client() as client:
            if names is None:
                await decisions.reset(client.node)
            else:
                await decisions.choose(client.node, names)

    asyncio.run(store())
