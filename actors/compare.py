"""Two runs side by side: the first step in which they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from callboard.actors import values
from callboard.actors.record import Outcome, Record, equal, plain, read
from callboard.actors.replay import go_over
from callboard.infra.errors import CallboardError

if TYPE_CHECKING:
    from callboard.actors.client import Client
    from callboard.actors.declared import Workflow
    from callboard.infra.messages.run import Done, ErrorInfo, Result

_TIME = "callboard.now"
Arguments = dict[str, Any]
"""Of calls, by their paths."""


class Side(msgspec.Struct, frozen=True):
    """One of two runs.

    Attributes:
        steps: outcomes that its code was given; took: seconds.
        arguments: of the run, as plain values; None if they cannot be read.
    """

    run: str
    workflow: str
    status: str
    steps: int
    took: float
    arguments: Any = None


class Difference(msgspec.Struct, frozen=True):
    """Where two runs part.

    Attributes:
        what: ``step`` (only one has it), ``call``, ``arguments``, ``outcome``, or ``result`` (of the runs).
        path: the step's place in the code.
        number: its place among the outcomes of the first run that has it, from 1.
        call: ``actor.method``, as the first run that has the step calls it.
        one, other: what the runs have there: a call's name, arguments, a value or an error; None: nothing.
    """

    what: Literal["step", "call", "arguments", "outcome", "result"]
    path: str = ""
    number: int = 0
    call: str = ""
    one: Any = None
    other: Any = None


class Diff(msgspec.Struct, frozen=True):
    """Two runs, and where they differ.

    Attributes:
        first: the first difference of what they did; None: there is none.
        same_workflow: they are runs of one workflow; same_arguments: and were given the same.
    """

    one: Side
    other: Side
    same_workflow: bool
    same_arguments: bool
    first: Difference | None = None

    @property
    def alike(self) -> bool:
        """Whether nothing differs but times."""
        return self.first is None and self.same_workflow and self.same_arguments


async def compare(client: Client, run: str, other: str, workflow: Workflow[Any, Any] | None = None) -> Diff:
    """See :meth:`callboard.actors.client.Client.diff`."""
    records = await read(client, run), await read(client, other)
    sides = await _side(client, records[0]), await _side(client, records[1])
    return Diff(
        *sides,
        sides[0].workflow == sides[1].workflow,
        equal(sides[0].arguments, sides[1].arguments),
        await _first(client, *records, workflow),
    )


async def _side(client: Client, record: Record) -> Side:
    request = record.request
    try:
        body = await values.expand(request.body, request.blobs, client.node.blobs)
        given = msgspec.json.decode(body or b"{}") if request.as_json else msgspec.msgpack.decode(body)
    except (CallboardError, ValueError):
        given = None
    return Side(record.run, record.workflow, record.status, len(record.outcomes), record.took, given)


async def _first(
    client: Client, one: Record, other: Record, workflow: Workflow[Any, Any] | None
) -> Difference | None:
    arguments: tuple[Arguments, Arguments] | None = None
    if workflow is not None:
        arguments = await _arguments(client, one, workflow), await _arguments(client, other, workflow)
    theirs = {outcome.path: outcome for outcome in other.outcomes}
    for number, mine in enumerate(one.outcomes, 1):
        found = await _at(client, (one.run, mine), (other.run, theirs.pop(mine.path, None)), arguments)
        if found is not None:
            return msgspec.structs.replace(found, number=number)
    if theirs:
        path, extra = next(iter(theirs.items()))
        number = other.outcomes.index(extra) + 1
        return Difference("step", path, number, extra.result.call, other=extra.result.call)
    return await _of_ends(client, one, other)


async def _at(
    client: Client,
    mine: tuple[str, Outcome],
    theirs: tuple[str, Outcome | None],
    arguments: tuple[Arguments, Arguments] | None,
) -> Difference | None:
    """How one step differs from what the other run has at its place."""
    (run, one), (other_run, other) = mine, theirs
    call = one.result.call
    if other is None:
        return Difference("step", one.path, call=call, one=call)
    if call != other.result.call:
        return Difference("call", one.path, call=call, one=call, other=other.result.call)
    if arguments is not None:
        given = arguments[0].get(one.path), arguments[1].get(one.path)
        if None not in given and not equal(*given):
            return Difference("arguments", one.path, 0, call, *given)
    if call == _TIME:  # it is another one each time
        return None
    return await _of_outcomes(client, (run, one.result), (other_run, other.result), one.path, call)


async def _of_ends(client: Client, one: Record, other: Record) -> Difference | None:
    if one.done is None or other.done is None:
        return (
            Difference("result", one=one.status, other=other.status) if one.done is not other.done else None
        )
    found = await _of_outcomes(client, (one.run, one.done), (other.run, other.done))
    return None if found is None else msgspec.structs.replace(found, what="result")


async def _of_outcomes(
    client: Client,
    one: tuple[str, Result | Done],
    other: tuple[str, Result | Done],
    path: str = "",
    call: str = "",
) -> Difference | None:
    given = [await _given(client, run, outcome) for run, outcome in (one, other)]
    if equal(given[0], given[1]):
        return None
    return Difference("outcome", path, 0, call, *given)


async def _given(client: Client, run: str, outcome: Result | Done) -> Any:
    if outcome.error is not None:
        return _error(outcome.error, run)
    return await plain(client.node, run, outcome)


def _error(error: ErrorInfo, run: str) -> dict[str, str]:
    """What tells an error from another one: its text but for the run's id, which differs anyway."""
    return {"error": error.message.replace(run, "RUN"), "code": error.code, "type": error.type}


async def _arguments(client: Client, record: Record, workflow: Workflow[Any, Any]) -> Arguments:
    """The arguments of a run's calls, which stand in no journal: its code makes them again."""
    replayed = await go_over(client, record, workflow)
    made = {step.path: step.arguments for step in replayed.steps}
    return {path: arguments for path, arguments in made.items() if arguments is not None}
