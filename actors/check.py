"""Before a deployment: whether runs go on under other code, found by replaying each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.actors.record import Record, read
from callboard.actors.replay import Replay, go_over
from callboard.actors.run import Known
from callboard.infra.errors import CallboardError, RunUnknown

if TYPE_CHECKING:
    from callboard.actors.client import Client
    from callboard.actors.declared import Workflow
    from callboard.infra.messages.run import RunSummary

_AT_ONCE = 64
_TELL_WITHIN = 0.3
_OPEN = frozenset({"running", "waiting"})
_SHOWN = 5


class Checked(msgspec.Struct, frozen=True):
    """A run, held against code.

    Attributes:
        status: as it is recorded; steps: outcomes on record.
        problem: why the run would not go on under the code, or, if it has ended, how it would have gone
            otherwise; empty: the code does what is on record.
    """

    run: str
    workflow: str
    status: str
    steps: int
    problem: str = ""


async def check(
    client: Client,
    workflows: Sequence[Workflow[Any, Any]],
    ended: int,
    patience: float,
    on_run: Callable[[Checked, int], None] | None = None,
) -> list[Checked]:
    """See :meth:`callboard.actors.client.Client.check`.

    Args:
        on_run: told of each run when it was checked, and of how many there are.
    """
    code = {workflow.name: workflow for workflow in workflows}
    chosen = _chosen([one for one in await client.runs() if one.workflow in code], ended)
    few = asyncio.Semaphore(_AT_ONCE)
    found: list[Checked] = []

    async def one(summary: RunSummary) -> None:
        async with few:
            checked = await _check(client, summary, code[summary.workflow], patience)
        if checked is not None:
            found.append(checked)
            if on_run is not None:
                on_run(checked, len(chosen))

    async with asyncio.TaskGroup() as group:
        for summary in chosen:
            group.create_task(one(summary))
    return sorted(found, key=lambda checked: checked.run)


def _chosen(runs: list[RunSummary], ended: int) -> list[RunSummary]:
    """The runs that have not ended, and of each workflow the latest that have."""
    chosen = [one for one in runs if one.status in _OPEN]
    left = dict.fromkeys((one.workflow for one in runs), ended)
    for one in sorted(runs, key=lambda one: one.started, reverse=True):
        if one.status not in _OPEN and left[one.workflow] > 0:
            left[one.workflow] -= 1
            chosen.append(one)
    return chosen


async def _check(
    client: Client, summary: RunSummary, workflow: Workflow[Any, Any], patience: float
) -> Checked | None:
    """None: the run is gone meanwhile."""
    try:
        # In this order: what waits now is in the record, or its outcome is, unless the code has cancelled it.
        waits = await _under_way(client, summary.run) if summary.status == "running" else {}
        record = await read(client, summary.run)
        waits |= _awaited(record)
        known = {one.result.future for one in record.outcomes}
        waits = {future: call for future, call in waits.items() if future not in known}
        replayed = await go_over(client, record, workflow, expected=waits, patience=patience)
        if _lost(replayed, waits) and record.status == "running":
            still = await _under_way(client, summary.run)
            waits = {future: call for future, call in waits.items() if future in still}
    except RunUnknown:
        return None
    except CallboardError as error:
        return Checked(summary.run, summary.workflow, summary.status, 0, f"it cannot be checked: {error}")
    problem = _problem(replayed, waits, patience)
    return Checked(record.run, record.workflow, record.status, len(record.outcomes), problem)


async def _under_way(client: Client, run: str) -> dict[str, str]:
    """What hosts say the workflow itself waits for: calls by their futures' ids."""
    told = await client.running(run, _TELL_WITHIN)
    sent = {one.future: one.call for of in told for one in of.sent}
    waits = {one.future: one.call for of in told for one in of.waits}
    return {future: call for future, call in (sent | waits).items() if "." not in future.partition(":")[2]}


def _awaited(record: Record) -> dict[str, str]:
    """What it was put aside for."""
    aside = Known(record.entries).aside
    return {one.future: one.call for one in aside.awaited} if aside is not None else {}


def _lost(replayed: Replay, waits: dict[str, str]) -> dict[str, str]:
    """What the run waits for and the code does not, each with what the code does there."""
    made = {one.future: one.call for one in replayed.open}
    return {
        future: f"calls {made[future]}" if future in made else "does not"
        for future, call in waits.items()
        if made.get(future) != call
    }


def _problem(replayed: Replay, waits: dict[str, str], patience: float) -> str:
    """Why a run does not go on under the code that was replayed; empty: it does."""
    lost = _lost(replayed, waits)
    if replayed.is_late and (lost or replayed.unused):
        return (
            f"it cannot be told: in {patience:g} s the code, which sleeps or computes, has not come to where "
            "the run stands; give it more (--patience)"
        )
    if replayed.recorded_outcome is not None:
        # Code that was stopped may have cleaned up then, which nobody makes it do here.
        if replayed.is_as_recorded or (replayed.was_stopped and replayed.ending == "stands"):
            return ""
        return f"it would have gone otherwise: {_otherwise(replayed)}"
    if replayed.ending == "diverged" or replayed.unused:
        return _otherwise(replayed)
    error = replayed.error.message if replayed.error is not None else ""
    if lost:
        future, does = next(iter(lost.items()))
        text = f"at {future} the run waits for {waits[future]}, the code {does}"
        return f"{text}: {error}" if error else text
    return f"it would fail: {error}" if error else ""


def _otherwise(replayed: Replay) -> str:
    error = replayed.error.message if replayed.error is not None else ""
    if not replayed.unused or replayed.ending == "diverged":
        return error or (
            "it waits for what is not on record" if replayed.ending == "stands" else "with another result"
        )
    paths = [future.partition(":")[2] for future in replayed.unused]
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    text = f"the code does not come to what is on record at {', '.join(paths[:_SHOWN])}{more}"
    return f"{text}: {error}" if error else text
