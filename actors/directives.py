"""Directives: what a declaration tells the runtime besides its types."""

from __future__ import annotations

from typing import Any

import msgspec

from callboard.actors import sandbox
from callboard.actors.sandbox import Sandbox
from callboard.infra.errors import DeclarationInvalid


class Directives(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the runtime may and must do with a method or an actor. Times in seconds.

    Attributes:
        stateful: a session's calls go to one instance, one at a time, in order; one instance serves all
            sessions. A call that the running one has made, at any depth, may enter while that one waits.
        batchable: the handler takes lists, one item a caller; up to ``max_batch`` calls that wait are
            handed over together, the first waiting at most ``max_wait``.
        preemptable: a running call may be stopped for one of a more urgent band, up to three times, and
            runs again from the top when there is a slot: an async handler is cancelled, a ``cpu`` one's
            process ended, a blocking one stops at its next call or ``checkpoint()``.
        min_instances, max_instances: how many hosts should, and how many may, run the actor at once;
            hosts above the maximum stand by.
        resources: what an instance needs, by name: ``cpu`` (cores), ``memory_gb`` (10**9 bytes), and
            whatever a host is said to have, as ``gpu``. Of the instance as a whole, not of each call; a
            host serves an actor only if it has so much beside what its other instances need.
        concurrency: slots of an instance: how many handlers may run at once; None: 256 for async
            handlers, 16 for blocking ones, the number of cores for ``cpu`` ones. A handler that waits for
            calls of its own lends its slot meanwhile, even the only one: what must never be entered
            twice needs a lock of its own.
        timeout: the longest a handler may run.
        retries: how often a call that failed with a retryable error is run again.
        backoff: before the first retry; doubled for each further one, up to ``backoff_max``.
        retry_on: names of exception classes to retry; empty: all but ``Terminal`` ones.
        idempotent: running it again does no harm, so it is also retried after a time-out.
        effect: what the handler does outside of Callboard must not happen twice: it is announced in the
            journal before it runs, and does not run again while its outcome is unknown.
        cpu: the handler computes; it runs in a process of its own, and cannot make calls there.
        sandbox: the handler is not trusted, or may crash: it runs in a process of its own for each call,
            within these limits. What is said of ``cpu`` handlers holds for it.
        max_queue: calls that may wait in a lane; more are refused with ``Overloaded``.
        state_ttl: how long the managed state of a session is kept after its last change; 0: for ever.
        state_max_bytes: what the managed state of a session may have; 0: no limit.
    """

    stateful: bool = False
    batchable: bool = False
    max_batch: int = 32
    max_wait: float = 0.005
    preemptable: bool = False
    min_instances: int = 0
    max_instances: int | None = None
    resources: dict[str, float] = {}
    concurrency: int | None = None
    timeout: float | None = None
    retries: int = 0
    backoff: float = 0.2
    backoff_max: float = 60.0
    retry_on: tuple[str, ...] = ()
    idempotent: bool = False
    effect: bool = False
    cpu: bool = False
    sandbox: Sandbox | None = None
    max_queue: int | None = None
    state_ttl: float = 0.0
    state_max_bytes: int = 0


PER_ACTOR = frozenset(
    {
        "stateful",
        "min_instances",
        "max_instances",
        "resources",
        "concurrency",
        "max_queue",
        "state_ttl",
        "state_max_bytes",
    }
)


def _unknown(names: list[str]) -> str:
    import difflib

    every = Directives.__struct_fields__
    close = difflib.get_close_matches(names[0], every, n=1)
    if len(names) == 1 and close:
        return f"unknown directive {names[0]}: did you mean {close[0]!r}?"
    return (
        f"unknown directive{'s' if len(names) > 1 else ''} {', '.join(names)}; there are {', '.join(every)}"
    )


def directives_from(base: Directives, options: dict[str, Any], where: str) -> Directives:
    """The base with some directives replaced.

    Raises:
        DeclarationInvalid: one is unknown, or its value cannot be used.
    """
    if "retry_on" in options:
        options = {**options, "retry_on": _names(options["retry_on"], where)}
    unknown = set(options) - set(Directives.__struct_fields__)
    if unknown:
        raise DeclarationInvalid(f"{where}: {_unknown(sorted(unknown))}")
    given = {**msgspec.structs.asdict(base), **options}
    try:
        directives = msgspec.convert(given, Directives)
    except msgspec.ValidationError as error:
        raise DeclarationInvalid(f"{where}: {error}") from error
    if directives.sandbox is not None:
        sandbox.check(directives.sandbox, where)
        directives = msgspec.structs.replace(directives, cpu=True)
    _check(directives, where)
    if directives.effect:
        _check_effect(directives, where)
    if directives.stateful:
        directives = msgspec.structs.replace(directives, max_instances=1)
    return directives


def _check(directives: Directives, where: str) -> None:
    """Raise DeclarationInvalid if a value makes no sense, by itself or beside another.

    Comparisons are written so that what is no number (nan) fails them.
    """
    positive = ("max_batch", "max_instances", "concurrency", "timeout", "max_queue")
    for name in positive:
        value = getattr(directives, name)
        if value is not None and not value > 0:
            raise DeclarationInvalid(f"{where}: {name} must be above 0, not {value}")
    for name in (
        "max_wait",
        "min_instances",
        "retries",
        "backoff",
        "backoff_max",
        "state_ttl",
        "state_max_bytes",
    ):
        if not getattr(directives, name) >= 0:
            raise DeclarationInvalid(f"{where}: {name} must be 0 or more, not {getattr(directives, name)}")
    wrong = [name for name, amount in directives.resources.items() if not amount >= 0]
    if wrong:
        raise DeclarationInvalid(f"{where}: resources must be 0 or more: {', '.join(wrong)}")
    if directives.max_instances is not None and directives.min_instances > directives.max_instances:
        raise DeclarationInvalid(
            f"{where}: min_instances ({directives.min_instances}) is above max_instances "
            f"({directives.max_instances})"
        )
    if directives.cpu and directives.batchable:
        raise DeclarationInvalid(f"{where}: a cpu handler cannot be batchable: leave one of them out")
    if directives.stateful and directives.max_instances not in {None, 1}:
        raise DeclarationInvalid(
            f"{where}: it is stateful, so one instance serves all sessions: leave max_instances out"
        )


def _check_effect(directives: Directives, where: str) -> None:
    """What runs again by itself, or in a process that may die alone, cannot be an effect."""
    for name in ("idempotent", "preemptable", "batchable", "cpu"):
        if getattr(directives, name):
            raise DeclarationInvalid(f"{where}: an effect cannot be {name}: leave one of them out")


def _names(kinds: Any, where: str) -> tuple[str, ...]:
    """The names of exception classes, given as classes or names."""
    if not isinstance(kinds, list | tuple | set | frozenset) or not all(
        isinstance(kind, str) or (isinstance(kind, type) and issubclass(kind, BaseException))
        for kind in kinds
    ):
        raise DeclarationInvalid(f"{where}: retry_on must be a list of exception classes or their names")
    return tuple(kind if isinstance(kind, str) else kind.__qualname__ for kind in kinds)
