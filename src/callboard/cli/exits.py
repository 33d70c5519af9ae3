"""What each exit code means, and which error ends with which."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

from callboard.infra.errors import CallboardError, by_code


class Exit(IntEnum):
    """The exit codes of every command."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_SERVER = 3
    NOT_FOUND = 4
    TIMED_OUT = 5
    INTERRUPTED = 130


MEANING = {
    Exit.OK: "it worked",
    Exit.FAILED: "the run failed, or a problem was found",
    Exit.USAGE: "the command was not understood, or its arguments do not fit",
    Exit.NO_SERVER: "no NATS server could be used",
    Exit.NOT_FOUND: "what was named does not exist",
    Exit.TIMED_OUT: "no result in time; the run goes on",
    Exit.INTERRUPTED: "interrupted",
}

_BY_CODE = {
    "usage": Exit.USAGE,
    "settings_invalid": Exit.USAGE,
    "invalid_arguments": Exit.USAGE,
    "name_invalid": Exit.USAGE,
    "run_id_taken": Exit.USAGE,
    "connect_failed": Exit.NO_SERVER,
    "connection_lost": Exit.NO_SERVER,
    "request_timeout": Exit.NO_SERVER,
    "server_start_failed": Exit.NO_SERVER,
    "server_unsuitable": Exit.NO_SERVER,
    "run_unknown": Exit.NOT_FOUND,
    "journal_incomplete": Exit.NOT_FOUND,
    "fork_refused": Exit.USAGE,
    "unknown_actor": Exit.NOT_FOUND,
    "state_unknown": Exit.NOT_FOUND,
    "item_invalid": Exit.USAGE,
    "answer_invalid": Exit.USAGE,
    "question_unknown": Exit.NOT_FOUND,
    "route_invalid": Exit.USAGE,
    "admission_invalid": Exit.USAGE,
    "budget_invalid": Exit.USAGE,
    "load_invalid": Exit.USAGE,
    "recording_invalid": Exit.USAGE,
    "policy_unusable": Exit.USAGE,
    "future_unknown": Exit.NOT_FOUND,
    "not_found": Exit.NOT_FOUND,
    "result_timeout": Exit.TIMED_OUT,
}


def exit_for(error: CallboardError) -> Exit:
    """How a command ends that ran into this error."""
    if error.fields.get("reason") == "missing":  # an application that is not there
        return Exit.NOT_FOUND
    return _BY_CODE.get(error.code, Exit.FAILED)


def restored(code: str, message: str, fields: Mapping[str, Any]) -> CallboardError:
    """An error that was told as data, as an error again that ends with the same exit code."""
    known = {cls.code: cls for cls in (UsageError, NotFound)}
    return {**by_code(), **known}.get(code, CallboardError)(message, **fields)


class UsageError(CallboardError):
    """The command line does not fit. Fields: as the case needs."""

    code = "usage"


class NotFound(CallboardError):
    """What a command names does not exist. Fields: what, name."""

    code = "not_found"


def write(file: Path, text: str) -> None:
    """Write what a command was asked to write.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error


def end_within(seconds: float, code: int) -> None:
    """End the process by then, although somebody's thread may not."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
