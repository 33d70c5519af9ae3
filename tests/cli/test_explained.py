"""An error as people read it: nothing twice, nothing that says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.terminal import Typed

from callboard.cli.common import Common
from callboard.cli.outcome import Outcome, explained, tell
from callboard.infra.messages.run import ErrorInfo

TRACE = 'Traceback (most recent call last):\n  File "app.py", line 3, in flow\n    raise\nValueError: no\n'


def test_a_cause_that_says_the_same_is_not_told_again() -> None:
    """Callboard's own errors say what they come from."""
    cause = ErrorInfo("call_failed", "ValidationError: Expected `int` - at `$.n`", "msgspec:ValidationError")
    error = ErrorInfo("invalid_arguments", "add.call: Expected `int` - at `$.n` (called at app.py:3)")
    error.cause = cause
    assert explained(error, "error") == f"error: {error.message}"
    error.cause = ErrorInfo("call_failed", "KeyError: 'x'", "builtins:KeyError")
    assert explained(error, "error").endswith("\n  because of KeyError: 'x'")


@pytest.mark.parametrize("text", ["CancelledError", "TimeoutError"])
def test_what_is_only_how_it_was_done_is_not_told(text: str) -> None:
    """The error above says what that means."""
    error = ErrorInfo("call_timeout", "slow.call took longer than its timeout", path=["flow", "slow.call"])
    error.cause = ErrorInfo("call_failed", text, cause=ErrorInfo("call_failed", text))
    assert explained(error, "error") == f"error: {error.message}\n  in flow > slow.call"


def test_a_users_cause_is_told_with_its_line() -> None:
    """Which is in the traceback."""
    error = ErrorInfo("call_failed", "RuntimeError: no", cause=ErrorInfo("call_failed", "ValueError: no"))
    assert error.cause is not None
    error.cause.traceback = TRACE
    assert explained(error, "error").splitlines()[:2] == [
        "error: RuntimeError: no",
        "  because of ValueError: no",
    ]
    assert 'File "app.py", line 3' in explained(error, "error")


def test_a_traceback_without_a_line_of_the_users_is_left_out() -> None:
    """It would say the text once more."""
    own = 'Traceback (most recent call last):\n  File "/x/callboard/actors/driver.py", line 1, in f\n    raise\nOdd: no\n'
    assert explained(ErrorInfo("header_invalid", "no", traceback=own), "error") == "error: no"


def test_frames_that_are_not_the_users_are_left_out() -> None:
    """Of Callboard, and of what it uses to run the code."""
    inner = '  File "/lib/python3.11/concurrent/futures/_base.py", line 1, in result\n    raise\n    ^^^^^\n'
    trace = TRACE.replace("last):\n", f"last):\n{inner}")
    text = explained(ErrorInfo("call_failed", "ValueError: no", traceback=trace), "error")
    assert text == f"error: ValueError: no\n\n{TRACE.rstrip()}"


def test_an_application_that_cannot_be_imported(typed: Typed, tmp_path: Path) -> None:
    """Its own lines, and the error once more as a text."""
    app = tmp_path / "odd.py"
    app.write_text(
        "from callboard import tool\n@tool(timeot=3)\nasync def odd(x: int) -> int:\n    return x\n"
    )
    err = typed("run", "go", "--local", app).err
    assert f'File "{app}", line 2' in err
    assert "directives.py" not in err
    assert err.rstrip().endswith("odd: unknown directive timeot: did you mean 'timeout'?")


def test_a_cancelled_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Is said to be cancelled once."""
    error = ErrorInfo(
        "run_cancelled", "run r1 was cancelled: no more", fields={"run": "r1", "reason": "no more"}
    )
    tell(Outcome("r1", "flow", "cancelled", error=error), Common())
    assert capsys.readouterr().err.splitlines()[0] == "error: run r1 of flow was cancelled: no more"
