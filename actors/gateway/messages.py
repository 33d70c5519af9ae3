"""What is asked and answered on ``cb.api.<verb>.<name>``: subjects, bodies and errors of the gateway."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from callboard.infra.errors import CallboardError
from callboard.infra.messages.registry import ActorInfo

PREFIX = "cb.api"
GROUP = "gateway"
"""The queue group: each request goes to one of the gateways that run."""
ALL = "all"


def subject(verb: str, name: str) -> str:
    """Where a gateway is asked."""
    return f"{PREFIX}.{verb}.{name}"


# -- answers -----------------------------------------------------------------------------------------


class Error(msgspec.Struct, omit_defaults=True):
    """Why there is no answer, or why a run has no value.

    Attributes:
        code: stable; programs match on it.
        message: what happened, to what, and what to do next.
        fields: the data of the error.
        retryable: whether the same request can succeed later.
    """

    code: str
    message: str
    fields: dict[str, Any] = {}
    retryable: bool = False


class Failure(msgspec.Struct):
    """The request was not done.

    Attributes:
        run: the run that it was about, where there is one.
    """

    error: Error
    run: str | UnsetType = UNSET


class Submitted(msgspec.Struct):
    """The request is stored: it will be run, come what may."""

    run: str


class Outcome(msgspec.Struct):
    """How a run stands or has ended.

    Attributes:
        status: ``completed`` with a value; ``failed`` or ``cancelled`` with an error; ``running`` with
            the error ``result_timeout``: the run goes on, only the waiting has ended.
    """

    run: str
    workflow: str | UnsetType
    status: str
    value: Any | UnsetType = UNSET
    error: Error | UnsetType = UNSET


class RunStatus(msgspec.Struct):
    """One run at a glance.

    Attributes:
        status: ``accepted`` while no driver has taken it, ``running``, ``waiting`` while it is put
            aside, ``completed``, ``failed`` or ``cancelled``.
        started, finished: unix seconds; finished is 0 while it runs, started where it is not told yet.
        calls: how many calls it has made.
        reason: why it failed, in words.
    """

    run: str
    workflow: str
    status: str
    session: str = ""
    driver: str = ""
    epoch: int = 1
    started: float = 0.0
    finished: float = 0.0
    calls: int = 0
    reason: str = ""


class Cancelled(msgspec.Struct):
    """What came of cancelling a run.

    Attributes:
        status: ``cancelled``; ``cancelling`` when no driver has reacted yet; ``completed`` or ``failed``
            when it had ended before.
    """

    run: str
    status: str


class Actors(msgspec.Struct):
    """What there is.

    Attributes:
        actors: as their hosts have announced them.
        hosts: of every host alive, what it runs.
    """

    actors: list[ActorInfo]
    hosts: dict[str, list[str]]


class Health(msgspec.Struct):
    """How the gateway that answers, and the board, are.

    Attributes:
        status: ``ok``; ``degraded``: see the problems.
        gateway: its id; version: Callboard's; server: NATS's version.
        waiting: requests that wait here for the end of a run.
        requests: runs that have not ended yet, anywhere.
        hosts: how many are alive; workflows: those that a living host drives.
        problems: in words.
    """

    status: str
    gateway: str
    version: str
    server: str
    waiting: int
    requests: int = 0
    hosts: int = 0
    workflows: list[str] = []
    problems: list[str] = []


Answer = Submitted | Outcome | RunStatus | Cancelled | Actors | Health | Failure


# -- errors ------------------------------------------------------------------------------------------


class NotStored(CallboardError):
    """JetStream has not acknowledged the request in time; it may yet. Fields: run, timeout (s)."""

    code = "not_stored"
    retryable = True


class Internal(CallboardError):
    """Something unforeseen happened in the gateway; its log has the traceback."""

    code = "internal"
    retryable = True


STATUS_OF = {
    "request_undecodable": 400,
    "header_invalid": 400,
    "name_invalid": 400,
    "invalid_arguments": 400,
    "unknown_actor": 404,
    "run_unknown": 404,
    "run_cancelled": 409,
    "run_id_taken": 409,
    "value_too_large": 413,
    "overloaded": 503,
    "connection_lost": 503,
    "store_full": 503,
    "not_stored": 504,
    "request_timeout": 504,
    "result_timeout": 504,
    "deadline_exceeded": 504,
}
"""The number that stands for an error in header ``Nats-Service-Error-Code``; 500 for any other."""
