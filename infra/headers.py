"""The headers of a call and of a request, and their bytes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

FUTURE = "Cb-Future"
RUN = "Cb-Run"
SESSION = "Cb-Session"
WORKFLOW = "Cb-Workflow"
METHOD = "Cb-Method"
DEPS = "Cb-Deps"
CREATOR = "Cb-Creator"
HEARS = "Cb-Hears"
EXECUTOR = "Cb-Executor"
PRIORITY = "Cb-Priority"
DEADLINE = "Cb-Deadline"
ATTEMPT = "Cb-Attempt"
EXCUSED = "Cb-Excused"
EXCUSED_SINCE = "Cb-Excused-Since"
STAGE = "Cb-Stage"
POLICY = "Cb-Policy"
RANKED = "Cb-Ranked"
PLACED = "Cb-Placed"
BUDGET = "Cb-Budget"
BLOBS = "Cb-Blobs"
WOVEN = "Cb-Woven"
SIZE = "Cb-Size"
PATH = "Cb-Path"
AGAIN = "Cb-Again"
STOLEN = "Cb-Stolen"
DELIVERIES = "Cb-Deliveries"
REQUEUED = "Cb-Requeued"
RESUME = "Cb-Resume"
SEED = "Cb-Seed"
EPOCH = "Cb-Epoch"
TRACEPARENT = "traceparent"

MESSAGE_ID = "Nats-Msg-Id"
CONTENT_TYPE = "Content-Type"
EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"
SCHEDULE = "Nats-Schedule"
SCHEDULE_TARGET = "Nats-Schedule-Target"
TTL = "Nats-TTL"
ROLLUP = "Nats-Rollup"
SEQUENCE = "Nats-Sequence"
LAST_SEQUENCE = "Nats-Last-Sequence"
TIME_STAMP = "Nats-Time-Stamp"
SUBJECT = "Nats-Subject"

JSON = "application/json"
MSGPACK = "application/msgpack"

_CHARGED = re.compile(r"(?:run|key\.=?[A-Za-z0-9_\-]{1,170})(?:,(?:run|key\.=?[A-Za-z0-9_\-]{1,170}))*")
GREATEST = 2**31
"""Whole numbers in headers are at most so far from 0, where nothing else is said of them."""
_DIGITS = 19
_VERSION = b"NATS/1.0"
_FORBIDDEN = str.maketrans({"\r": " ", "\n": " "})


def encode(items: Iterable[tuple[str, str]]) -> bytes:
    """The header block of a message, its closing empty line included."""
    items = list(items)
    text = "".join([f"{name}: {value}\r\n" for name, value in items])
    if text.count("\n") != len(items) or text.count("\r") != len(items):
        text = "".join(f"{name}: {value.translate(_FORBIDDEN)}\r\n" for name, value in items)
    return f"NATS/1.0\r\n{text}\r\n".encode()


def decode(raw: bytes | None) -> dict[str, str]:
    """The headers of a message; the last one wins where a name is repeated.

    Bytes that are not UTF-8 are replaced, never raised over: a header is somebody else's text.
    """
    if not raw:
        return {}
    found: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found


def epoch(headers: Mapping[str, str], name: str) -> int:
    """The epoch, or another count, in a header; 0 if there is none, or what is there is none."""
    value = headers.get(name, "")
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < _DIGITS else 0


def whole(
    headers: Mapping[str, str], name: str, default: int = 0, least: int = -GREATEST, most: int = GREATEST
) -> int:
    """The value of an integer header.

    Raises:
        ValueError: it is no integer, or out of bounds.
    """
    text = headers.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise ValueError(f"{name} is {text[:40]!r}: expected a whole number, {least} to {most}")
    return value


def charged(headers: Mapping[str, str], name: str = BUDGET) -> str:
    """What calls are charged to; empty: to nothing.

    Raises:
        ValueError: it names no budgets.
    """
    text = headers.get(name, "")
    if text and not _CHARGED.fullmatch(text):
        raise ValueError(f"{name} is {text[:80]!r}: expected 'run' or 'key.NAME', comma-separated")
    return text


def moment(headers: Mapping[str, str], name: str) -> float:
    """The value of a header that is a time, in unix seconds; 0 if there is none.

    Raises:
        ValueError: it is no number, or no finite one.
    """
    text = headers.get(name)
    if text is None:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text[:40]!r}: expected unix seconds")
    return value


def status(raw: bytes | None) -> int:
    """The status code of a message from the server itself (408, 404, 100...); 0 if it has none."""
    if not raw or not raw.startswith(_VERSION) or raw[8:9] != b" ":
        return 0
    digits = raw[9:12]
    return int(digits) if digits.isdigit() else 0


def find_int(raw: bytes | None, name: bytes) -> int:
    """The value of one integer header without decoding the others; 0 if it is not there."""
    value = _find(raw, name)
    return int(value) if value.isdigit() else 0


def find_text(raw: bytes | None, name: bytes) -> str:
    """The value of one header without decoding the others; empty if it is not there."""
    return _find(raw, name).decode("utf-8", "replace")


def _find(raw: bytes | None, name: bytes) -> bytes:
    """The last one of this name: the server puts its own behind what the publisher has sent."""
    if not raw:
        return b""
    start = raw.rfind(b"\r\n" + name + b":")
    if start < 0:
        return b""
    return raw[start + len(name) + 3 : raw.find(b"\r\n", start + 2)].strip()
