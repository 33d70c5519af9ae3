"""How a run ended, and how that is told."""

from __future__ import annotations

from typing import Any

import msgspec

from callboard.cli.common import Common
from callboard.cli.exits import Exit
from callboard.cli.output import compact, err, out, own_lines, pretty
from callboard.infra.errors import CallFailed, RunCancelled
from callboard.infra.messages.run import ErrorInfo

LOCAL = "local"
"""What stands for the run's id where there is no server."""


class Outcome(msgspec.Struct):
    """The end of a run.

    Attributes:
        status: ``completed``, ``failed`` or ``cancelled``.
        value: plain values; error: why there is none.
    """

    run: str
    workflow: str
    status: str
    value: Any = None
    error: ErrorInfo | None = None


def tell(outcome: Outcome, common: Common, *, as_line: bool = False) -> int:
    """Print an outcome; returns the exit code.

    Args:
        as_line: as one line of JSON, at the end of a stream of them.
    """
    if common.json:
        data: dict[str, Any] = {"run": outcome.run, "status": outcome.status}
        data |= {"value": outcome.value} if outcome.error is None else {"error": outcome.error}
        out((compact if as_line else pretty)(data))
    elif outcome.error is None:
        out(shown(outcome.value))
    else:
        what = f"run {outcome.run} of {outcome.workflow} {ended(outcome.status)}"
        err(explained(outcome.error, f"error: {what}"))
        if outcome.run != LOCAL:
            common.output.hint(f"see: callboard show {outcome.run}")
    return Exit.OK if outcome.error is None else Exit.FAILED


def ended(status: str) -> str:
    """How a run ended that has no value, as a verb."""
    return "was cancelled" if status == "cancelled" else status


def shown(value: Any) -> str:
    """A value for people: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else pretty(value)


def shortened(value: Any, limit: int, option: str) -> str:
    """A value for people, at most so many characters of it.

    Args:
        option: which shows it whole.
    """
    text = shown(value)
    left_out = len(text) - limit
    return text if left_out <= 0 else f"{text[:limit]}... {left_out:,} more characters ({option})"


def explained(error: ErrorInfo, what: str, *, trace: bool = True) -> str:
    """An error for people: where it happened, because of what, and the remote traceback of user code.

    Args:
        what: begins the text; trace: with the traceback.
    """
    reason = str(error.fields.get("reason") or "") if error.code == RunCancelled.code else ""
    lines = [f"{what}: {reason or error.message}"]
    deepest, path = error, list[str]()
    while True:
        if deepest.path and deepest.path != path:
            path = deepest.path
            lines.append(f"  in {' > '.join(path)}")
        if deepest.cause is None:
            break
        if not _is_said(deepest.cause, deepest):
            lines.append(f"  because of {deepest.cause.message}")
        deepest = deepest.cause
    left = own_lines(deepest.traceback)
    if trace and left and deepest.code not in {"run_cancelled", "invalid_arguments"}:
        lines += ["", left]
    return "\n".join(lines)


def _is_said(cause: ErrorInfo, error: ErrorInfo) -> bool:
    """Whether an error of Callboard's own says already what it was raised from."""
    if cause.message in {"CancelledError", "TimeoutError"}:
        return True
    words = cause.message.partition(": ")[2] if cause.code == CallFailed.code else cause.message
    return error.code != CallFailed.code and bool(words) and words in error.message
