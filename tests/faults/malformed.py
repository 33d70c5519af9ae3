"""A hundred kinds of malformed message, each for every subject.

A kind is a body, a change of headers, or both, laid over a message that is right. What must become of
it depends on where it goes: :func:`buried` says which ones belong in the dead letters.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import msgspec

_encode = msgspec.msgpack.encode


class Kind(NamedTuple):
    """One way of being wrong.

    Attributes:
        name: for reports.
        body: instead of the right one; None keeps that.
        headers: laid over the right ones; None removes one; with ``bare``, instead of them.
        dead_call: a call like this is none, so it belongs in the dead letters.
        dead_request: the same for a request.
    """

    name: str
    body: bytes | None = None
    headers: dict[str, str | None] = {}  # noqa: RUF012 - never changed
    bare: bool = False
    dead_call: bool = False
    dead_request: bool = False


def _nested(open_: bytes, depth: int, close: bytes = b"") -> bytes:
    return open_ * depth + close * depth


def _bodies() -> list[Kind]:
    chance = random.Random(100)
    good = _encode({"number": 1, "steps": 2, "pause": 0.0, "a": 1, "b": 2})
    bodies: dict[str, bytes] = {
        "empty": b"",
        "nul": b"\0",
        "nuls": bytes(1000),
        "newlines": b"\r\n" * 50,
        "text": b"this is no message",
        "protocol": b"PUB cb.call.add.any.1 3\r\nabc\r\n",
        "not utf-8": b"\xff\xfe\xfa" * 20,
        "never used byte": b"\xc1" * 5,
        "truncated": good[:-3],
        "trailing bytes": good + b"\x00\x00",
        "two values": good + good,
        "array": _encode([1, 2]),
        "number": _encode(7),
        "huge number": _encode(2**64 - 1),
        "nil": b"\xc0",
        "true": b"\xc3",
        "string": _encode("number"),
        "wrong keys": _encode({"x": 1}),
        "integer keys": _encode({1: 2}),
        "wrong types": _encode({"number": "one", "steps": [], "pause": {}, "a": "x", "b": None}),
        "missing": _encode({"number": 1}),
        "nan": _encode(
            {"number": 1, "steps": float("nan"), "pause": float("nan"), "a": 1.5, "b": float("inf")}
        ),
        "extension": b"\xc7\x05\x01abcde",
        "blob reference": b"\xc7\x20\x01" + bytes(32),
        "long string header": b"\xdb\xff\xff\xff\xff",
        "long array header": b"\xdd\xff\xff\xff\xff",
        "long map header": b"\xdf\xff\xff\xff\xff",
        "deep msgpack": _nested(b"\x91", 100_000),
        "deep map": _nested(b"\x81\xa1a", 50_000),
        "deep json": _nested(b"[", 100_000, b"]"),
        "json": b'{"number": "x"}',
        "json broken": b'{"number": ',
        "json huge number": b'{"number": 1e999, "steps": 123456789012345678901234567890}',
        "json not utf-8": b'{"number": "\xff"}',
        "random 1": chance.randbytes(10),
        "random 2": chance.randbytes(1000),
        "random 3": chance.randbytes(60_000),
        "largest": bytes(1_000_000),
        "largest text": b"x" * 1_040_000,
    }
    return [Kind(f"body: {name}", body) for name, body in bodies.items()]


def _headers() -> list[Kind]:
    long = "9" * 5000
    kinds = [Kind("no headers", bare=True, dead_call=True)]
    # What cannot be a future's id is no call.
    futures = {
        "absent": None,
        "empty": "",
        "no colon": "abc",
        "no path": "abc:",
        "no run": ":1",
        "spaces": "a b:1 2",
        "wildcards": "*:>",
        "dots": "a.b.c:1",
        "empty tokens": "a..b:1",
        "unicode": "é:1",
        "long": f"run:{'1.' * 2000}1",
        "long run": f"{'r' * 3000}:1",
        "slashes": "a/b:1",
        "dollar": "$JS.API.STREAM.PURGE.RUNS:1",
        "tab": "a\tb:1",
        "letters": "run:one",
        "empty steps": "run:1..2",
    }
    kinds += [Kind(f"future: {n}", headers={"Cb-Future": v}, dead_call=True) for n, v in futures.items()]
    runs = {"spaces": "a b", "wildcard": "*", "more": ">", "dots": "a.b", "unicode": "é", "long": "r" * 3000}
    kinds += [
        Kind(f"run: {n}", headers={"Cb-Run": v}, dead_call=True, dead_request=True) for n, v in runs.items()
    ]
    for name in ("Cb-Priority", "Cb-Deadline", "Cb-Attempt", "Cb-Stage"):
        request = name in {"Cb-Priority", "Cb-Deadline"}
        values = {"text": "high", "empty": "", "several": "1,2"}
        if name != "Cb-Deadline":
            values |= {"long": long, "beyond 64 bits": str(2**70), "fraction": "1.5"}
        kinds += [
            Kind(f"{name}: {n}", headers={name: v}, dead_call=True, dead_request=request)
            for n, v in values.items()
        ]
    kinds += [
        Kind(f"Cb-Deadline: {v}", headers={"Cb-Deadline": v}, dead_call=True, dead_request=True)
        for v in ("nan", "inf", "-inf", "1e999")
    ]
    kinds += [
        Kind(f"Cb-Attempt: {v}", headers={"Cb-Attempt": v}, dead_call=True) for v in ("0", "-1", "-1000000")
    ]
    methods = {"absent": "no_such", "private": "__init__", "long": "m" * 5000, "dots": "add.call"}
    kinds += [Kind(f"method: {n}", headers={"Cb-Method": v}, dead_call=True) for n, v in methods.items()]
    others: dict[str, dict[str, str | None]] = {
        "past deadline": {"Cb-Deadline": "1"},
        "negative deadline": {"Cb-Deadline": "-5"},
        "blobs that are none": {"Cb-Blobs": "zzz"},
        "blobs not there": {"Cb-Blobs": "ab" * 32},
        "blobs wild": {"Cb-Blobs": "*,>,a b"},
        "blobs many": {"Cb-Blobs": ",".join(["ab" * 32] * 50)},
        "workflow wild": {"Cb-Workflow": "a b *.>"},
        "session wild": {"Cb-Session": "a b *.>"},
        "creator wild": {"Cb-Creator": "> $JS"},
        "executor wild": {"Cb-Executor": "a b"},
        "deps wild": {"Cb-Deps": ",,,*"},
        "path wild": {"Cb-Path": ",,\u2028,"},
        "path long": {"Cb-Path": ",".join(["a.b"] * 3000)},
        "trace wild": {"traceparent": "zz-zz"},
        "content type": {"Content-Type": "text/html"},
        "content type json": {"Content-Type": "application/json"},
        "reply wild": {"Cb-Reply": "a b *.>"},
        "reply to a stream": {"Cb-Reply": "cb.run.x.owner"},
        "unknown headers": {f"X-{n}": "y" * 50 for n in range(100)},
        "expectations": {"Nats-Expected-Stream": "NOPE"},
    }
    kinds += [Kind(f"headers: {name}", headers=headers) for name, headers in others.items()]
    return kinds


def kinds() -> list[Kind]:
    """All of them."""
    return _bodies() + _headers()


class Target(NamedTuple):
    """Where malformed messages go, and what a right one looks like there.

    Attributes:
        subject: with ``{n}`` for the number of the message.
        family: ``call``, ``request`` or whatever else is not kept for anybody.
    """

    subject: str
    family: str
    body: bytes
    headers: dict[str, str]


def targets(run: str, host: str) -> list[Target]:
    """The subjects, given a run that is in progress and a host that lives."""
    call = {"Cb-Future": "m{n}:1", "Cb-Run": "m{n}", "Cb-Method": "call", "Cb-Workflow": "chain"}
    request = {"Cb-Run": "m{n}", "Content-Type": "application/msgpack"}
    add = _encode({"a": 1, "b": 2})
    chain = _encode({"number": 1, "steps": 1, "pause": 0.0})
    republished = {"Nats-Sequence": "99999999", "Nats-Last-Sequence": "0"}
    pulse = _encode({"host": "x y", "at": 1.0, "inflight": {"CALLS": [1], "a b.c": [2]}})
    return [
        Target("cb.call.add.any.1", "call", add, call),
        Target("cb.call.add.any.0", "call", add, call),
        Target("cb.call.blocking.any.2", "call", add, call),
        Target(f"cb.call.add.{host}.1", "call", add, call),
        Target("cb.request.chain", "request", chain, request),
        Target("cb.control.all", "told", _encode({"type": "holds", "stream": "", "consumer": 1}), {}),
        Target(f"cb.control.{host}", "told", _encode({"type": "cancel", "run": []}), {}),
        Target(f"cb.run.{run}.result", "kept", add, {}),
        Target(f"cb.run.{run}.signal", "kept", add, {}),
        Target(f"cb.run.{run}.pending", "kept", add, {}),
        Target(f"cb.run.{run}.attempt", "kept", add, {}),
        Target(f"cb.run.{run}.owner", "kept", add, {}),
        Target(f"cb.run.{run}.done", "kept", add, {}),
        Target(f"cb.run.{run}.else", "kept", add, {}),
        Target("cb.run.m{n}.owner", "kept", add, {}),
        Target(f"cb.journal.{run}.result", "told", add, republished),
        Target(f"cb.journal.{run}.owner", "told", add, republished),
        Target(f"cb.journal.{run}.signal", "told", add, republished),
        Target(f"cb.journal.{run}.done", "told", add, republished),
        Target("$KV.cb_registry.host.m{n}", "kept", pulse, {}),
        Target(f"$KV.cb_registry.host.{host}", "kept", pulse, {}),
        Target("$KV.cb_registry.actor.m{n}", "kept", add, {}),
        Target("$KV.cb_registry.takeover.m{n}", "kept", add, {}),
        Target("$KV.cb_registry.m{n}", "kept", add, {}),
    ]


def message(kind: Kind, target: Target, number: int) -> tuple[str, bytes, dict[str, str]]:
    """Subject, body and headers of a malformed message."""
    right = {} if kind.bare else {k: v.format(n=number) for k, v in target.headers.items()}
    laid: dict[str, Any] = {**right, **kind.headers}
    headers = {name: value for name, value in laid.items() if value is not None}
    return target.subject.format(n=number), target.body if kind.body is None else kind.body, headers


def buried(kind: Kind, target: Target) -> bool:
    """Whether this message belongs in the dead letters."""
    return {"call": kind.dead_call, "request": kind.dead_request}.get(target.family, False)
