"""What is published to a run's journal, ``cb.run.<run>.<kind>``; read by drivers, clients and replay."""

from __future__ import annotations

from typing import Any

import msgspec

NIL = msgspec.Raw(b"\xc0")
"""msgpack's nil: the value of a message that has none."""


class ErrorInfo(msgspec.Struct, omit_defaults=True):
    """An exception as data.

    Attributes:
        code: stable code of the Callboard error class; ``call_failed`` for a user's exception.
        message: its text.
        type: ``module:qualname`` of the exception class on the host.
        args: its arguments where they can travel.
        fields: data of a Callboard error.
        retryable: whether trying again can help.
        traceback: the remote traceback, as text.
        path: ``actor.method`` of every call from the workflow down to the failing one.
        cause: what it was raised from.
        group: the exceptions of an ``ExceptionGroup``, whose ``args`` are its text alone.
    """

    code: str
    message: str
    type: str = ""
    args: list[Any] | None = None
    fields: dict[str, Any] = {}
    retryable: bool = False
    traceback: str = ""
    path: list[str] = []
    cause: ErrorInfo | None = None
    group: list[ErrorInfo] = []


class Result(msgspec.Struct, omit_defaults=True):
    """The outcome of one call (kind ``result``). The first one in the journal wins.

    Attributes:
        future: id of the call.
        call: ``actor.method``: the call's fingerprint, held against the code on replay.
        value: the encoded value; nil when there is an error.
        blobs: digests of the parts of the value that are in the blob store.
        error: why there is no value.
        host: who ran it; attempt: which attempt (from 1); stage: its depth in the run.
        waited, took: seconds in the queue and in the handler.
        sticky: the host holds the call's session: further calls of it are best sent there.
        signal: of a wait: sequence of the signal that it has consumed.
        woven: the value is a woven form: parts of it stand in other entries of the journal.
        policy, ranked: epochs of the decisions that gave the call its lane, and its priority; 0: none did.
        placed: why its maker chose that lane, in words, where the decision leaves it a choice.
        commit: it counts only once an entry ``commit.<parent>.<this>`` says that a state's commit is stored,
            and in that one's place; empty: it counts.
    """

    future: str
    call: str
    value: msgspec.Raw = NIL
    blobs: list[str] = []
    error: ErrorInfo | None = None
    host: str = ""
    attempt: int = 1
    stage: int = 0
    waited: float = 0.0
    took: float = 0.0
    sticky: bool = False
    signal: int = 0
    woven: bool = False
    policy: int = 0
    ranked: int = 0
    placed: str = ""
    commit: str = ""


class Intent(msgspec.Struct, omit_defaults=True):
    """A handler whose effect must not happen twice is about to run (kind ``intent.<name>``).

    Attributes:
        future: id of the call; attempt: which one; call: ``actor.method``.
        key: as given by the declaration; empty if it gives none.
        arguments: SHA-256 of the call's body, 32 hex digits.
        host: who runs it; at: unix seconds.
    """

    future: str
    call: str
    attempt: int = 1
    key: str = ""
    arguments: str = ""
    host: str = ""
    at: float = 0.0


class Owner(msgspec.Struct, omit_defaults=True):
    """A driver takes the run's lease (kind ``owner``).

    Attributes:
        driver: who drives the run from here on.
        epoch: counts the owners of the run, from 1.
        request: stream sequence of the request that started the run.
        workflow, session: what is run, for whom.
        at: unix seconds.
        arguments: SHA-256 of the request's arguments, the first 32 hex digits.
        waited: seconds from the request being stored; admitted: epoch of the limit that held, 0: none.
        body: of the first owner: the request's, which goes from its stream when the run has ended.
        as_json: that is JSON; blobs: digests of its parts that are references.
        kept: digest of the blob that holds the body, where that is too long to stand here.
        seed: run whose random numbers and UUIDs it draws again; empty: it draws its own.
    """

    driver: str
    epoch: int
    request: int
    workflow: str
    session: str = ""
    at: float = 0.0
    arguments: str = ""
    waited: float = 0.0
    admitted: int = 0
    body: bytes = b""
    as_json: bool = False
    blobs: list[str] = []
    kept: str = ""
    seed: str = ""


class Announced(msgspec.Struct, omit_defaults=True):
    """One future that waits for others before its call can be sent."""

    future: str
    call: str
    deps: list[str] = []


class Pending(msgspec.Struct, omit_defaults=True):
    """Futures announced ahead of time (kind ``pending``)."""

    futures: list[Announced]


class Signal(msgspec.Struct, omit_defaults=True):
    """Something from outside reaches the run (kind ``signal``).

    Attributes:
        name: ``cancel`` ends the run, ``answer`` answers a question; all others are the workflow's own.
        reason: why; value: what comes with it.
        future: id of the question that is answered.
    """

    name: str
    reason: str = ""
    value: Any = None
    future: str = ""


class Awaited(msgspec.Struct, omit_defaults=True):
    """What a run waits for besides its calls.

    Attributes:
        future: its id; call: ``callboard.sleep``, ``callboard.signal`` or ``human.ask``.
        name: of the signal; until: unix seconds when it ends by itself; 0: never.
    """

    future: str
    call: str
    name: str = ""
    until: float = 0.0


class Aside(msgspec.Struct, omit_defaults=True):
    """The run only waits, and its driver has put it aside (kind ``aside``); written by the owner.

    Attributes:
        epoch: the owner's.
        workflow, headers, body: the request, to be published again when the run goes on.
        waits: ids of what it waits for; awaited: the same for people.
    """

    epoch: int
    workflow: str
    headers: dict[str, str] = {}
    body: bytes = b""
    waits: list[str] = []
    awaited: list[Awaited] = []


class Done(msgspec.Struct, omit_defaults=True):
    """The run is closed (kind ``done``); written once, by the owner.

    Attributes:
        status: ``completed``, ``failed`` or ``cancelled``.
        value, blobs, error: as in :class:`Result`.
        epoch: the owner's; calls: how many calls the workflow made; took: seconds.
    """

    run: str
    workflow: str
    status: str
    value: msgspec.Raw = NIL
    blobs: list[str] = []
    error: ErrorInfo | None = None
    epoch: int = 1
    calls: int = 0
    took: float = 0.0


class RunSummary(msgspec.Struct, omit_defaults=True):
    """One run at a glance: the value in bucket ``cb_runs``.

    Attributes:
        status: ``running``, ``waiting`` (put aside), ``completed``, ``failed`` or ``cancelled``.
        started, finished: unix seconds; finished is 0 while it runs.
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
    error: str = ""
