"""Exceptions as data, and back: how a failure on a host becomes an exception in the driver."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
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
_DEPTH = 8
_GROUP = 16

# An error travels in one message, together with its causes.
_TEXT_LIMIT = 8_000
_DATA_LIMIT = 16_000
_LINE_LIMIT = 2_000
_TRACEBACK_LIMIT = 16_000
_CAUSE_LIMIT = 4_000

T = TypeVar("T")


class _Note(str):
    """What Callboard has noted on an exception; it travels as a part of the traceback only."""

    __slots__ = ()


class _PathNote(_Note):
    """Names the path of a call; each host that the exception passes notes it again."""

    __slots__ = ()


_PATH, _STEP = "workflow path: ", " > "
_NOTES = "__notes__"


def describe(error: BaseException, path: Sequence[str] = (), depth: int = 0) -> ErrorInfo:
    """An exception as data.

    Args:
        path: ``actor.method`` of each call from the workflow down to the one that raised. If it came from
            a call that the raising one has made, the exception knows better.
    """
    own = error if isinstance(error, CallboardError) else None
    cause = error.__cause__
    args = list(error.args)
    if isinstance(error, OSError) and error.filename is not None and len(args) == 2:
        args.append(error.filename)
    parts = error.exceptions[:_GROUP] if isinstance(error, BaseExceptionGroup) and depth < _DEPTH else ()
    if parts:
        args = args[:1]
    fields = _attributes(error) if own is None else _fields(own)
    info = ErrorInfo(
        code=code_of(error),
        message=_cut(text_of(error)),
        type=f"{type(error).__module__}:{type(error).__qualname__}",
        args=_travelling([_cut(value) for value in args]),
        fields=_travelling({k: _cut(v) for k, v in fields.items()}) or {},
        retryable=own.retryable if own else True,
        traceback=_traceback(error, _CAUSE_LIMIT if depth else _TRACEBACK_LIMIT),
        path=path_of(error) or list(path),
    )
    if cause is not None and depth < _DEPTH:
        info.cause = describe(cause, (), depth + 1)
    info.group = [describe(part, (), _DEPTH) for part in parts]  # which are told without their causes
    return info


def path_of(error: BaseException) -> list[str]:
    """The path of the call that an exception came from, as far as it knows; else empty."""
    if isinstance(error, CallFailed) and (path := error.fields.get("path")):
        return list(path)
    noted = next((note for note in _notes(error) if isinstance(note, _PathNote)), _PathNote(_PATH))
    return [step for step in noted.removeprefix(_PATH).split(_STEP) if step]


def note_path(error: BaseException, path: Sequence[str]) -> None:
    """Note on an exception which call of which call raised it."""
    error.add_note(_PathNote(_PATH + _STEP.join(path)))


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, _NOTES, ()))


def _attributes(error: BaseException) -> dict[str, Any]:
    """The attributes of a user's exception, with the notes that are the user's own."""
    found = {name: value for name, value in vars(error).items() if name != _NOTES}
    own = [note for note in _notes(error) if not isinstance(note, _Note)]
    return {**found, _NOTES: own} if own else found


def _fields(error: CallboardError) -> dict[str, Any]:
    """The fields of an error; of a class that a user has made on top of one, its attributes beside them."""
    if type(error) is _CLASSES.get(error.code):
        return error.fields
    return {**{k: v for k, v in _attributes(error).items() if k != "fields"}, **error.fields}


def _traceback(error: BaseException, limit: int) -> str:
    """An exception's traceback and notes; of a longer one the end, where it came from."""
    told = traceback.TracebackException.from_exception(error)
    told.__notes__ = [note for note in _notes(error) if not isinstance(note, _PathNote)]
    lines = [_cut(line, _LINE_LIMIT) for line in "".join(told.format(chain=False)).splitlines(keepends=True)]
    whole = size = sum(map(len, lines))
    first = 0
    while size > limit:
        size -= len(lines[first])
        first += 1
    head = f"[... {whole - size:,} characters more ...]\n" if first else ""
    return head + "".join(lines[first:])


def _cut(value: T, limit: int = _TEXT_LIMIT) -> T | str:
    """A text above the limit without its middle; anything else as it is."""
    if not isinstance(value, str) or len(value) <= limit:
        return value
    return f"{value[: limit // 2]} [... {len(value) - limit:,} more ...] {value[-limit // 2 :]}"


def _travelling(values: T) -> T | None:
    try:
        size = len(msgspec.msgpack.encode(values))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    return values if size <= _DATA_LIMIT else None


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
        where = f"{context['actor']}.{context['method']} raised " if "actor" in context else ""
        error = CallFailed(f"{where}{info.message}", **details)
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
    error = cls(info.message)
    error.fields = {**details, **info.fields} if issubclass(cls, CallFailed) else dict(info.fields)
    return error


def _users(info: ErrorInfo) -> BaseException | None:
    module, _, name = info.type.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, Exception)) or info.args is None:
        return None
    if issubclass(found, ExceptionGroup):
        return _regrouped(found, info)
    # Without its constructor first, which may take other arguments than ``args`` holds; some classes
    # have their text from it, though.
    made: BaseException | None = None
    for make in (found.__new__, _construct):
        error = _remade(make, found, info)
        if error is not None and text_of(error) == info.message:
            return error
        made = error if made is None else made
    return made


def _regrouped(cls: Any, info: ErrorInfo) -> BaseException | None:
    try:
        error: BaseException = cls(*(info.args or ()), [restore(part) for part in info.group])
        vars(error).update(_settable(info))
    except Exception:  # noqa: BLE001 - whatever a user's class demands, or a group of none
        return None
    return error


def _construct(cls: type[Exception], *args: Any) -> Exception:
    return cls(*args)


def _remade(make: Callable[..., Exception], cls: type[Exception], info: ErrorInfo) -> Exception | None:
    args = info.args or ()
    try:
        error = make(cls, *args)
        if not (isinstance(error, OSError) and error.args):  # its own args leave the file name out
            error.args = tuple(args)
        attributes = _settable(info)
        if isinstance(error, CallboardError):
            error.fields = {k: v for k, v in info.fields.items() if k != _NOTES}
            taken = {"fields", *dir(type(error))}
            attributes = {k: v for k, v in attributes.items() if k == _NOTES or k not in taken}
        vars(error).update(attributes)
    except Exception:  # noqa: BLE001 - whatever a user's class demands: it is told in another way
        return None
    return error


def _settable(info: ErrorInfo) -> dict[str, Any]:
    """Attributes as they came; notes that are none would make it impossible to add one."""
    return {k: v for k, v in info.fields.items() if k != _NOTES or isinstance(v, list)}


def _annotate(error: BaseException, info: ErrorInfo, context: dict[str, Any]) -> None:
    if info.path:
        note_path(error, info.path)
    if "future" in context:
        host = context.get("host") or "?"
        attempt = context.get("attempt", 1)
        error.add_note(_Note(f"call {context['future']}, attempt {attempt}, on host {host}"))
    if info.traceback:
        error.add_note(_Note("remote traceback:\n" + info.traceback.rstrip()))


def text_of(error: BaseException) -> str:
    """What happened, in words; a user's exception is named, since its text alone may say little."""
    if isinstance(error, CallboardError):
        return error.message
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a user's class
        text = "its text cannot be told"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def code_of(error: BaseException) -> str:
    """The stable code of any exception."""
    return error.code if isinstance(error, CallboardError) else CallFailed.code


def call_in_thread(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call it; what a future cannot carry, or would end the loop with, is raised as an ordinary error."""
    try:
        return function(**arguments)
    except (StopIteration, SystemExit) as error:
        raise RuntimeError(text_of(error)) from error
