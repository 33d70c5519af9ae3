"""Exceptions as data, and back: how a failure on a host becomes an exception in the driver."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from callboard.infra.errors import (
    CallboardError,
    CallCancelled,
    CallFailed,
    CallTimeout,
    DeadlineExceeded,
    Overloaded,
    Poisoned,
    by_code,
)
from callboard.infra.messages.run import ErrorInfo

_CLASSES = by_code()
_ABOUT_A_CALL = (CallTimeout, DeadlineExceeded, CallCancelled, Overloaded, Poisoned)
_TRACEBACK_LIMIT = 16_000
_DEPTH = 8

T = TypeVar("T")


def describe(error: BaseException, path: Sequence[str] = (), depth: int = 0) -> ErrorInfo:
    """An exception as data.

    Args:
        path: ``actor.method`` of each call from the workflow down to the one that raised.
    """
    own = error if isinstance(error, CallboardError) else None
    cause = error.__cause__
    info = ErrorInfo(
        code=code_of(error),
        message=text_of(error),
        type=f"{type(error).__module__}:{type(error).__qualname__}",
        args=_travelling(list(error.args)),
        fields=_travelling(own.fields if own else dict(vars(error))) or {},
        retryable=own.retryable if own else True,
        traceback="".join(traceback.format_exception(error, chain=False))[-_TRACEBACK_LIMIT:],
        path=list(path),
    )
    if cause is not None and depth < _DEPTH:
        info.cause = describe(cause, (), depth + 1)
    return info


def _travelling(values: T) -> T | None:
    try:
        msgspec.msgpack.encode(values)
    except (TypeError, ValueError, OverflowError):
        return None
    return values


def restore(info: ErrorInfo, **context: Any) -> BaseException:
    """The exception to raise in the driver.

    A Callboard error comes back as its own class. A user's exception comes back as itself when its
    module is loaded in this process (nothing is imported because a message names it); otherwise as
    :class:`CallFailed`. Either way it carries notes with the path, the actor, the attempt and the
    remote traceback, and its cause.

    Args:
        context: fields of the call: future, actor, method, attempt, host.
    """
    details = {**context, "path": info.path, "remote_type": info.type, "remote_traceback": info.traceback}
    error = _own(info, details) or _users(info)
    if error is None:
        where = f"{context.get('actor')}.{context.get('method')}"
        error = CallFailed(f"{where} raised {info.message}", **details)
    _annotate(error, info, context)
    if info.cause is not None:
        error.__cause__ = restore(info.cause)
    return error


def _own(info: ErrorInfo, details: dict[str, Any]) -> BaseException | None:
    cls = _CLASSES.get(info.code)
    if cls is None or (cls is CallFailed and not info.type.endswith(":CallFailed")):
        return None
    module, _, name = info.type.partition(":")
    if name != cls.__qualname__ and module != CallFailed.__module__:
        return None
    if issubclass(cls, CallFailed):
        return cls(info.message, **{**details, **info.fields})
    return cls(info.message, **info.fields)


def _users(info: ErrorInfo) -> BaseException | None:
    module, _, name = info.type.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, Exception)) or info.args is None:
        return None
    error = found.__new__(found, *info.args)
    error.args = tuple(info.args)
    if isinstance(error, CallboardError):
        error.fields = dict(info.fields)
    else:
        vars(error).update(info.fields)
    return error


def _annotate(error: BaseException, info: ErrorInfo, context: dict[str, Any]) -> None:
    if info.path:
        error.add_note(f"workflow path: {' > '.join(info.path)}")
    if "future" in context:
        host = context.get("host") or "?"
        error.add_note(f"call {context['future']}, attempt {context.get('attempt', 1)}, on host {host}")
    if info.traceback:
        error.add_note("remote traceback:\n" + info.traceback.rstrip())


def text_of(error: BaseException) -> str:
    """What happened, in words; a user's exception is named, since its text alone may say little."""
    if isinstance(error, CallboardError):
        return error.message
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def code_of(error: BaseException) -> str:
    """The stable code of any exception."""
    return error.code if isinstance(error, CallboardError) else CallFailed.code
