"""``callboard replay``: run a workflow's code here against what is on record of a run."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from callboard.cli.common import DEFAULTS, Common, Count
from callboard.cli.exits import Exit, end_within
from callboard.cli.outcome import ended, explained, shortened, shown
from callboard.cli.output import compact, cut
from callboard.infra.durations import seconds

if TYPE_CHECKING:
    from callboard.actors.app import App
    from callboard.actors.record import Record
    from callboard.actors.replay import Open, Replay, Step
    from callboard.cli.output import Output

_LINGER = 1.0
_ARGUMENTS_SHOWN = 80
_VALUE_SHOWN = 100
_RESULT_SHOWN = 2_000
_FUTURE = re.compile(r'"(<[\d./~]+>)"')


def replay(
    run: str,
    app: str,
    /,
    *,
    until: Count | None = None,
    common: Common = DEFAULTS,
) -> int:
    """Run a workflow's code in this process against a run's record: nothing is called, sent or stored.

    Every call gets its recorded outcome, and so does every wait, time and answer. The code is that of APP as
    it is now: a breakpoint() in it works. The run may go on elsewhere, or have ended.

        callboard replay 01JD0000000000000000000000 app.py
        callboard replay 01JD0000000000000000000000 app.py --until 7
        callboard replay 01JD0000000000000000000000 app.py --json | jq -c 'select(.error)'

    It fails if the code does anything else than was recorded, and says where.

    Args:
        run: Its id; 'callboard runs' lists them.
        app: A file or module, then optionally ':' and names of actors, as for 'callboard host'.
        until: Stop after this step.
    """
    from callboard.actors.app import load
    from callboard.actors.local import leave_to_board

    common.log("error")
    loaded = load(app)
    leave_to_board()  # what the code calls outside of the run is refused, as in a host
    try:
        replayed = asyncio.run(_replay(run, loaded, until, common))
    finally:
        end_threads([one.name for one in loaded.declarations])
    return _tell(replayed, common.output)


async def _replay(run: str, app: App, until: int | None, common: Common) -> Replay:
    from callboard.actors.record import read
    from callboard.actors.replay import go_over

    output = common.output
    async with common.client() as client:
        record = await read(client, run)
        workflow = app.workflow(record.workflow)
        _begin(record, until, output)
        return await go_over(client, record, workflow, until, lambda step: _step(step, output))


def end_threads(workflows: Sequence[str]) -> None:
    """A plain workflow's thread ends when its calls are cancelled; one that computes may not, on Ctrl-C."""
    names = tuple(f"callboard-{one}_" for one in workflows)
    threads = [one for one in threading.enumerate() if one.name.startswith(names)]
    for one in threads:
        one.join(_LINGER)
    if any(one.is_alive() for one in threads):
        end_within(_LINGER, Exit.INTERRUPTED)


def _begin(record: Record, until: int | None, output: Output) -> None:
    number = len(record.outcomes)
    some = f", to be stopped after {until}" if until is not None and until < number else ""
    steps = "1 step" if number == 1 else f"{number} steps"
    output.plain(f"{record.run}  {record.workflow}  {record.status}: {steps} on record{some}")


def _step(step: Step, output: Output) -> None:
    data = {"event": "step", "path": step.path, **msgspec.structs.asdict(step)}
    output.line(data, "")
    output.plain(described(step))


def described(step: Step) -> str:
    """A step in one line."""
    if step.error is not None:
        gave = f"raised {cut(step.error.message.splitlines()[0], _VALUE_SHOWN)}"
    elif step.call == "callboard.now":
        gave = f"= {datetime.fromtimestamp(step.value, UTC).isoformat()}"
    else:
        gave = f"= {one_line(step.value, _VALUE_SHOWN)}"
    took = f"  ({seconds(step.took)})" if step.host else ""
    call = f"{step.call}{_arguments(step.arguments)}"
    return f"{step.number:>4}  {step.path:<6} {call} {gave}{took}"


def _arguments(arguments: dict[str, Any] | None) -> str:
    if arguments is None:
        return ""
    given = ", ".join(f"{name}={one_line(value, _ARGUMENTS_SHOWN)}" for name, value in arguments.items())
    given = _FUTURE.sub(r"\1", given)
    return f"({cut(given, _ARGUMENTS_SHOWN)})"


def one_line(value: Any, limit: int) -> str:
    """A value as JSON, at most so many characters of it."""
    try:
        text = compact(value)
    except (TypeError, ValueError):  # with keys that JSON does not know
        text = repr(value)
    return cut(text, limit)


def _tell(replayed: Replay, output: Output) -> int:
    data = {"event": "ended", **msgspec.structs.asdict(replayed)}
    for name in ("steps", "outcome", "recorded_outcome"):
        del data[name]
    data["steps"] = len(replayed.steps)
    data["recorded_error"] = replayed.recorded_outcome.error if replayed.recorded_outcome else None
    data["as_recorded"] = replayed.is_as_recorded
    output.line(data, "")
    for line in _ending(replayed):
        output.plain(line)
    return Exit.OK if replayed.is_as_recorded else Exit.FAILED


def _ending(replayed: Replay) -> list[str]:
    if replayed.ending == "diverged" and replayed.error is not None:
        return [f"the code diverges from the record: {replayed.error.message}"]
    if replayed.ending == "stands":
        return _standing(replayed)
    if replayed.ending == "left":
        return ["left from the debugger"]
    if replayed.ending == "same":
        return [f"it ends as recorded: {_result(replayed, recorded=True)}"]
    if replayed.ending == "ended":
        return [f"it ends: {_result(replayed)}", "the run itself has no end on record yet"]
    return [
        "it ends otherwise than recorded",
        f"recorded: {_result(replayed, recorded=True)}",
        f"replayed: {_result(replayed)}",
    ]


def _result(replayed: Replay, *, recorded: bool = False) -> str:
    done = replayed.recorded_outcome if recorded else replayed.outcome
    value = replayed.recorded_value if recorded else replayed.value
    assert done is not None
    if done.error is not None:
        return explained(done.error, f"the run {ended(done.status)}")
    return shortened(value, _RESULT_SHOWN, "--json") if not isinstance(value, str) else shown(value)


def _standing(replayed: Replay) -> list[str]:
    if replayed.is_cut:
        lines = [f"stopped after step {replayed.recorded}; then there were under way:"]
    elif replayed.is_as_recorded:
        lines = ["it stands, since these have no outcome on record:"]
    else:
        lines = ["the code diverges from the record, which has no outcome of what it waits for:"]
    lines += [f"      {_open(one)}" for one in replayed.open] or ["      nothing that can be seen"]
    if replayed.recorded_outcome is not None and replayed.recorded_outcome.error is not None:
        error = replayed.recorded_outcome.error
        lines.append(explained(error, f"the run {ended(replayed.status)}", trace=False))
    if replayed.unused:
        paths = ", ".join(future.partition(":")[2] for future in replayed.unused)
        lines.append(f"on record, but not come to: {paths}")
    return lines


def _open(one: Open) -> str:
    waits = "" if one.state == "sent" else f"  ({one.state})"
    return f"{one.path:<6} {one.call}{_arguments(one.arguments)}{waits}"
