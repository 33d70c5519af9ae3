"""``callboard runs``, ``show`` and ``cancel``: what has run, what happened in it, and ending it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from callboard.cli.common import DEFAULTS, Common, Count
from callboard.cli.exits import Exit, UsageError
from callboard.cli.history import History, errors, line
from callboard.cli.outcome import ended, explained, shortened
from callboard.cli.output import clock, lately, table
from callboard.infra.durations import seconds
from callboard.infra.errors import ResultTimeout
from callboard.infra.messages.run import ErrorInfo, RunSummary

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.actors.client import Client

_COLORS = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan", "waiting": "blue"}
_TELL_WITHIN = 0.3
_VALUE_SHOWN = 2_000
_ENDS_WITHIN = 5.0


def runs(
    *,
    workflow: str | None = None,
    status: Literal["running", "waiting", "completed", "failed", "cancelled"] | None = None,
    limit: Count = 20,
    common: Common = DEFAULTS,
) -> int:
    """List runs, the latest last.

    What happened in one of them is told by 'callboard show'.

        callboard runs --status failed
        callboard runs --json | jq -r '.[].run'

    Args:
        workflow: Only this workflow's.
        status: Only those with this status.
        limit: How many at most.
    """

    async def look() -> list[RunSummary]:
        async with common.client() as client:
            every = await client.runs()
        fitting = (r for r in every if workflow in {None, r.workflow} and status in {None, r.status})
        return sorted(fitting, key=lambda r: r.started)[-limit:]

    found = asyncio.run(look())
    common.output.answer(found, lambda screen: _print_runs(found, screen))
    return Exit.OK


def _print_runs(found: list[RunSummary], screen: Console) -> None:
    from rich.markup import escape

    if not found:
        screen.print("no runs; start one with: callboard run WORKFLOW")
        return
    titles = ("run", "workflow", "status", "started", "took", "calls", "error")
    listed = table(titles, numbers=("took", "calls"), texts=("error",))
    for one in found:
        took = seconds(one.finished - one.started) if one.finished else ""
        state = f"[{_COLORS.get(one.status, 'default')}]{one.status}[/]"
        listed.add_row(
            one.run, one.workflow, state, lately(one.started), took, str(one.calls), escape(one.error)
        )
    screen.print(listed)


def show(run: str, /, *, common: Common = DEFAULTS) -> int:
    """Show what happened in a run: its calls as a tree, who waited for whom, errors, and who drove it.

        callboard show 01JD0000000000000000000000

    Args:
        run: Its id; 'callboard runs' lists them.
    """
    its, colon, _ = run.partition(":")
    if colon:
        raise UsageError(f"{run} is a call: see 'callboard show {its}', or 'callboard why {run}'")

    async def look() -> tuple[RunSummary, History, list[str], Any]:
        history = History()
        async with common.client() as client:
            summary = await client.status(run)
            async for event in client.events(run, follow=False):
                history.add(event)
            if summary.status == "running":
                history.hosts_have(await client.running(run, _TELL_WITHIN))
            unserved = await _unserved(client, summary, history)
            completed = history.done is not None and history.done["status"] == "completed"
            return summary, history, unserved, await client.result(run) if completed else None

    summary, history, unserved, value = asyncio.run(look())
    data = {
        **msgspec.structs.asdict(summary),
        "owners": history.owners,
        "signals": history.signals,
        "value": value,
        "error": (history.done or {}).get("error"),
        "calls": [vars(call) for call in history.sorted()],
        "unserved": unserved,
        "afterwards": [vars(call) for call in history.afterwards],
    }
    common.output.answer(data, lambda screen: _print_run(summary, history, unserved, value, screen))
    return Exit.OK


async def _unserved(client: Client, summary: RunSummary, history: History) -> list[str]:
    """The actors that what has not ended waits for, and that no living host runs."""
    from callboard.controller.look import living

    if summary.finished:
        return []
    wanted = {call.name.partition(".")[0] for call in history.calls.values() if call.state == "sent"}
    serving = {actor for host in await living(client.node) for actor in host.instances}
    return sorted({summary.workflow, *wanted} - serving - {"?"})


def _print_run(
    summary: RunSummary, history: History, unserved: list[str], value: Any, screen: Console
) -> None:
    color = _COLORS.get(summary.status, "default")
    took = f", took {seconds(summary.finished - summary.started)}" if summary.finished else ""
    screen.print(f"[bold]{summary.run}[/]  {summary.workflow}  [{color}]{summary.status}[/]")
    began = "stored" if summary.status == "accepted" else "started"
    screen.print(f"{began} {clock(summary.started)}{took}, session {summary.session}", highlight=False)
    for owner in history.owners:
        screen.print(
            f"driven by {owner['driver']} (epoch {owner['epoch']}) from {clock(owner['at'])}",
            highlight=False,
        )
    for signal in history.signals:
        to, reason = signal.get("future", ""), signal["reason"]
        told = f"{signal['name']}{f' of {to}' if to else ''} at {clock(signal['at'])}"
        screen.print(f"{told}: {reason}" if reason else told, markup=False, highlight=False)
    if history.calls:
        screen.print()
        screen.print(history.table(start=summary.started))
    for actor in unserved:
        screen.print(f"\nno host runs {actor}: callboard host APP:{actor}", markup=False, highlight=False)
    _print_outcome(history, value, screen)
    for call in history.afterwards:
        screen.print(f"\nrun afterwards: {line(call)}", markup=False, highlight=False, soft_wrap=True)


def _print_outcome(history: History, value: Any, screen: Console) -> None:
    failed = errors(history.sorted())
    texts = [_explained(error, f"{call.path} {call.name} failed on {call.host}") for call, error in failed]
    if history.done is not None and history.done.get("error"):
        error, status = history.done["error"], history.done["status"]
        texts.append(_explained(error, f"the run {ended(status)}", trace=not failed))
    elif history.done is not None:
        texts.append(f"result:\n{shortened(value, _VALUE_SHOWN, '--json')}")
    for text in texts:
        screen.print(f"\n{text}", markup=False, highlight=False, soft_wrap=True)


def _explained(error: dict[str, Any], what: str, *, trace: bool = True) -> str:
    return explained(msgspec.convert(error, ErrorInfo), what, trace=trace)


def cancel(run: str, /, *, reason: str = "asked for by an operator", common: Common = DEFAULTS) -> int:
    """Cancel a run and all its calls, in other agents too.

    Args:
        run: Its id; 'callboard runs --status running' lists them.
        reason: Told to whoever waits for the run.
    """

    async def end() -> str:
        async with common.client() as client:
            summary = await client.status(run)
            if summary.status in {"accepted", "running", "waiting"}:
                await client.cancel(run, reason)
                try:
                    return (await client.done(run, _ENDS_WITHIN)).status
                except ResultTimeout as error:
                    raise ResultTimeout(
                        f"run {run} was asked to stop, and will when a driver has it; none has reacted "
                        f"within {_ENDS_WITHIN:g} s: is there a host for {summary.workflow}?",
                        **error.fields,
                    ) from error
            return summary.status

    status = asyncio.run(end())
    text = f"run {run} is cancelled" if status == "cancelled" else f"run {run} had ended before: {status}"
    common.output.answer({"run": run, "status": status}, lambda screen: screen.print(text, highlight=False))
    return Exit.OK if status == "cancelled" else Exit.FAILED
