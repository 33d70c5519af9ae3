"""The body of a request that cannot be used: what it looks like, and where it breaks."""

from __future__ import annotations

import re

import msgspec

from callboard.infra import headers as H
from callboard.infra.errors import CallboardError, InvalidArguments, RequestUndecodable

_INSTEAD = (
    f"send the arguments as a JSON object, or as a msgpack map (with {H.CONTENT_TYPE}: {H.MSGPACK}), by name"
)
_BYTE = re.compile(r" \(byte (\d+)\)$")
_MALFORMED = re.compile(r"^(JSON|MessagePack data) is malformed: ")
_SHOWN = 40
_MAPS = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])
_ERRORS = (msgspec.DecodeError, ValueError, RecursionError)


def unreadable(workflow: str, body: bytes, *, as_json: bool, said: str) -> CallboardError | None:
    """What is wrong with a body that could not be decoded into arguments.

    Args:
        as_json: what it was taken for; else msgpack.
        said: header ``Content-Type``, empty if there was none.

    Returns:
        An error that says what it looks like; None if it is an object, whose parts do not fit.
    """
    kind, decode = ("JSON", msgspec.json.decode) if as_json else ("msgpack", msgspec.msgpack.decode)
    try:
        decoded = decode(body)
    except _ERRORS as error:
        return _undecodable(workflow, body, error, as_json=as_json, said=said)
    if isinstance(decoded, dict):
        return None
    if not as_json and _is_text(body):  # one letter is a number in msgpack, too
        return _undecodable(workflow, body, ValueError(""), as_json=as_json, said=said)
    return _nameless(workflow, kind)


def _nameless(workflow: str, kind: str) -> InvalidArguments:
    what = "no object" if kind == "JSON" else "no map"
    text = f"workflow {workflow}: the body is {kind}, but {what} with a name for each argument: {_INSTEAD}"
    return InvalidArguments(text, actor=workflow, method="run")


def _undecodable(workflow: str, body: bytes, error: Exception, *, as_json: bool, said: str) -> CallboardError:
    is_json = _why_no_json(body) is None
    looks, what = _looks(body, error, as_json=as_json, is_json=is_json, said=said)
    text = f"workflow {workflow} was not run: the body of the request {what}; {_INSTEAD}"
    return RequestUndecodable(text, looks=looks)


def _looks(body: bytes, error: Exception, *, as_json: bool, is_json: bool, said: str) -> tuple[str, str]:
    """What a body looks like, and what is wrong with it then."""
    if not body.strip():
        return "", f"is empty, but header {H.CONTENT_TYPE} says {said}" if said else "is empty"
    if is_json:
        return "json", f"looks like JSON, but header {H.CONTENT_TYPE} says {said}"
    if body.lstrip()[:1] in {b"{", b"[", b'"'}:
        return "json", f"looks like JSON, which {_broken(body, _why_no_json(body) or error)}"
    if _is_text(body):
        shown = body.decode().strip()
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        return "text", f"looks like plain text ({shown!r}), not like JSON or msgpack"
    if body[0] in _MAPS and not as_json:
        return "msgpack", f"looks like msgpack, which {_broken(body, error)}"
    return "", f"is neither JSON nor msgpack: it begins with {body[:8].hex(' ')}"


def _why_no_json(body: bytes) -> Exception | None:
    try:
        msgspec.json.decode(body)
    except _ERRORS as error:
        return error
    return None


def _is_text(body: bytes) -> bool:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return False
    return bool(text.strip()) and all(one.isprintable() or one.isspace() for one in text)


def _broken(body: bytes, error: Exception) -> str:
    """Where it breaks, for people who look at it in an editor, and why."""
    text = str(error)
    if isinstance(error, RecursionError):
        return "is nested too deep"
    if isinstance(error, msgspec.ValidationError):
        return f"cannot be read: {text[:1].lower()}{text[1:].partition(' - at ')[0]}"
    found = _BYTE.search(text)
    place = int(found[1]) if found else len(body)
    if isinstance(error, UnicodeDecodeError):  # which knows the part that was to be a text only
        place = body.find(error.object) + error.start
    if place >= len(body):
        return f"breaks off at its end, after {len(body):,} bytes"
    line, column = body.count(b"\n", 0, place) + 1, place - body.rfind(b"\n", 0, place)
    rest = body[place : place + _SHOWN].decode("utf-8", "backslashreplace")
    at = f" (line {line}, column {column}), at {rest!r}" if _is_text(body) else ""
    return f"breaks at byte {place}{at}: {_MALFORMED.sub('', _BYTE.sub('', text))}"
