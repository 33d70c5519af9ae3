"""More than a hundred kinds of malformed message, each for every subject.

A kind is a body, a change of headers, or both, laid over a message that is right. What must become of
it depends on where it goes: :func:`buried` says which ones belong in the dead letters.
"""

from __future__ import annotations

import gzip
import pickle
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
        lines: bytes that follow the right header lines; block: bytes instead of all of them.
        reply: where an answer is wanted, if the message is one that is answered.
        dead_call: a call like this is none, so it belongs in the dead letters.
        dead_request: the same for a request.
    """

    name: str
    body: bytes | None = None
    headers: dict[str, str | None] = {}  # noqa: RUF012 - never changed
    bare: bool = False
    lines: bytes = b""
    block: bytes | None = None
    reply: str = ""
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
        "truncated name": good[:4],
        "truncated number": _encode({"number": 2**40})[:-2],
        "truncated in the middle": good[: len(good) // 2],
        "map of 16 bits": b"\xde\x00",
        "never ending binary": b"\xc6\xff\xff\xff\xffabc",
        "never ending extension": b"\xc9\xff\xff\xff\xff\x01",
        "time stamp": b"\xd6\xff" + bytes(4),
        "time stamp broken": b"\xc7\x0c\xff" + b"\xff" * 12,
        "surrogates": b"\x81\xa6number\xa3\xed\xa0\x80",
        "double keys": b"\x82\xa6number\x01\xa6number\x02",
        "nil keys": b"\x81\xc0\x01",
        "map as a key": b"\x81\x80\x01",
        "everything nil": _encode(dict.fromkeys(("number", "steps", "pause", "a", "b"))),
        "huge list": _encode({"number": [0] * 50_000}),
        "json array": b"[1, 2]",
        "json text": b'"number"',
        "json nil": b"null",
        "json nested": b'{"number": {"number": {"number": 1}}}',
        "json double keys": b'{"number": 1, "number": 2}',
        "json trailing": b'{"number": 1} {"number": 2}',
        "json nan": b'{"number": NaN}',
        "json surrogate": b'{"number": "\\ud800"}',
        "json behind a mark": b"\xef\xbb\xbf{}",
        "json deep": b'{"number":' * 50_000,
        "utf-16": '{"number": 1}'.encode("utf-16"),
        "latin-1": '{"number": "\u00e9"}'.encode("latin-1"),
        "gzip": gzip.compress(good, mtime=0),
        "a whole message": b"HPUB cb.request.chain 12 12\r\nNATS/1.0\r\n\r\n",
        "xml": b"<?xml version='1.0'?><number>1</number>",
        "pickle": pickle.dumps({"number": 1}),
        "largest": bytes(1_000_000),
        "largest text": b"x" * 1_040_000,
    }
    return [Kind(f"body: {name}", body, dead_call=not _is_msgpack(body)) for name, body in bodies.items()]


def _is_msgpack(body: bytes) -> bool:
    try:
        msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError):
        return False
    return True


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
        values = {"text": "high", "empty": "", "several": "1,2"}
        if name != "Cb-Deadline":
            values |= {"long": long, "beyond 64 bits": str(2**70), "fraction": "1.5"}
        kinds += [Kind(f"{name}: {n}", headers={name: v}, dead_call=True) for n, v in values.items()]
    kinds += [
        Kind(f"Cb-Deadline: {v}", headers={"Cb-Deadline": v}, dead_call=True)
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


def _lines() -> list[Kind]:
    """Header lines and header blocks that no client would write."""
    lines = {
        "not utf-8": b"X-Odd: \xff\xfe\r\n",
        "name not utf-8": b"\xff\xfe: odd\r\n",
        "no colon": b"this is no header\r\n",
        "no name": b": odd\r\n",
        "only a colon": b":\r\n",
        "folded": b"X-Odd: one\r\n two\r\n",
        "line feed only": b"X-Odd: one\nCb-Method: other\r\n",
        "nul": b"X-\0: \0\r\n",
        "many": b"X-Odd: y\r\n" * 5000,
        "long": b"X-Odd: " + b"y" * 300_000 + b"\r\n",
        "other case": b"cb-run: other\r\nCB-FUTURE: other:1\r\n",
        "session not utf-8": b"Cb-Session: \xff\r\n",
        "workflow not utf-8": b"Cb-Workflow: \xff\r\n",
        "trace not utf-8": b"traceparent: \xff\r\n",
    }
    kinds = [Kind(f"lines: {name}", lines=some) for name, some in lines.items()]
    deadly: dict[str, bytes] = {"future": b"Cb-Future: \xff\r\n", "future twice": b"Cb-Future: other\r\n"}
    kinds += [Kind(f"lines: {name}", lines=some, dead_call=True) for name, some in deadly.items()]
    numbers = {
        "priority not utf-8": b"Cb-Priority: \xff\r\n",
        "priority in other digits": "Cb-Priority: \u00b2\r\n".encode(),
        "deadline not utf-8": b"Cb-Deadline: \xff\r\n",
    }
    kinds += [Kind(f"lines: {name}", lines=some, dead_call=True) for name, some in numbers.items()]
    runs = {"run not utf-8": b"Cb-Run: \xff\xfe\r\n", "run twice": b"Cb-Run: a b\r\n"}
    kinds += [
        Kind(f"lines: {name}", lines=some, dead_call=True, dead_request=True) for name, some in runs.items()
    ]
    blocks = {
        "version only": b"NATS/1.0",
        "version of the future": b"NATS/9.9\r\nA: b\r\n\r\n",
        "no version": b"A: b\r\n\r\n",
        "empty lines": b"\r\n\r\n",
        "no end": b"NATS/1.0\r\nA: b",
        "status no messages": b"NATS/1.0 404 No Messages\r\n\r\n",
        "status end of batch": b"NATS/1.0 204 EOB\r\n\r\n",
        "status time-out": b"NATS/1.0 408 Request Timeout\r\n\r\n",
        "status conflict": b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
        "status no responders": b"NATS/1.0 503\r\n\r\n",
        "status heartbeat": b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        "status not utf-8": b"NATS/1.0 \xff\xff\xff\r\n\r\n",
        "not utf-8 at all": b"\xff" * 40,
    }
    return kinds + [Kind(f"block: {name}", block=some, dead_call=True) for name, some in blocks.items()]


def _ids_and_times() -> list[Kind]:
    twin: dict[str, str | None] = {"Cb-Future": "twin:1", "Cb-Run": None}
    others: dict[str, dict[str, str | None]] = {
        "far deadline": {"Cb-Deadline": "99999999999999"},
        "farthest deadline": {"Cb-Deadline": "1e300"},
        "deadline of 0": {"Cb-Deadline": "0"},
        "deadline with a unit": {"Cb-Deadline": " 1e9 "},
        "largest priority": {"Cb-Priority": str(2**31)},
        "smallest priority": {"Cb-Priority": str(-(2**31))},
        "many attempts": {"Cb-Attempt": "1000000"},
        "same message id": {"Nats-Msg-Id": "the same"},
        "message id wild": {"Nats-Msg-Id": "* > ..", "Cb-Run": "m{n}"},
        "method twice": {"Cb-Method": "call", "cb-method": "no_such"},
        "requeued never": {"Cb-Requeued": "never"},
        "rollup of nothing": {"Nats-Rollup": "nothing"},
        "ttl of nothing": {"Nats-TTL": "nothing"},
        "schedule of nothing": {"Nats-Schedule": "@at never"},
        "schedule to nowhere": {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": "a b"},
        "expected sequence": {"Nats-Expected-Last-Sequence": "nothing"},
        "increment": {"Nats-Incr": "+1"},
        "batch": {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "7", "Nats-Batch-Commit": "1"},
        "journal's own": {"Nats-Sequence": "-1", "Nats-Last-Sequence": "x", "Nats-Time-Stamp": "never"},
    }
    kinds = [Kind(f"headers: {name}", headers=headers) for name, headers in others.items()]
    kinds += [
        Kind("twin", _encode({"number": 1, "steps": 1, "pause": 0.0, "a": 1, "b": 2}), twin),
        Kind(
            "twin with another body", _encode({"number": 3, "steps": 1, "pause": 0.0, "a": 3, "b": 4}), twin
        ),
    ]
    replies = {"wild": ">", "star": "*", "empty tokens": "a..b", "dot": ".", "long": "r" * 2000}
    replies |= {"a request": "cb.request.chain", "a call": "cb.call.add.any.1", "JetStream's": "$JS.ACK.x.y"}
    return kinds + [Kind(f"reply: {name}", reply=reply) for name, reply in replies.items()]


def kinds() -> list[Kind]:
    """All of them."""
    return _bodies() + _headers() + _lines() + _ids_and_times()


class Target(NamedTuple):
    """Where malformed messages go, and what a right one looks like there.

    Attributes:
        subject: with ``{n}`` for the number of the message.
        family: ``call`` and ``request`` are pulled and come to an end each; ``stray`` is for an actor that
            the host has not; ``lost`` stays, since nobody pulls it; ``kept`` lies in a stream; ``told`` is
            heard by who listens.
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
    holds = _encode({"type": "holds", "stream": "CALLS", "consumer": "add_any_1"})
    pulse = _encode({"host": "x y", "at": 1.0, "inflight": {"CALLS": [1], "a b.c": [2]}})
    route = _encode({"actor": "add", "hosts": {"h-nobody": "much"}})
    curve = _encode({"call": "add.call", "middle": 1.0, "lines": [[7, -5.0, 1.0, 100, 1.0]], "errors": b"1"})
    return [
        Target("cb.call.add.any.1", "call", add, call),
        Target("cb.call.add.any.0", "call", add, call),
        Target("cb.call.blocking.any.2", "call", add, call),
        Target(f"cb.call.add.{host}.1", "call", add, call),
        Target(f"cb.call.add.{host}.x", "call", add, call),
        Target(f"cb.call.unheard_of.{host}.1", "stray", add, call),
        Target("cb.call.unheard_of.any.1", "lost", add, call),
        Target("cb.call.add.any.9", "lost", add, call),
        Target("cb.call.add.any.1.2", "lost", add, call),
        Target("cb.timer.m{n}", "lost", add, call),
        Target("cb.request.chain", "request", chain, request),
        Target("cb.request.unheard_of", "lost", chain, request),
        Target("cb.request.chain.more", "lost", chain, request),
        Target("cb.control.all", "told", _encode({"type": "holds", "stream": "", "consumer": 1}), {}),
        Target(f"cb.control.{host}", "told", _encode({"type": "cancel", "run": []}), {}),
        Target(f"cb.control.{host}", "told", holds, {}),
        Target("cb.control.nobody", "told", holds, {}),
        Target(f"cb.run.{run}.result", "kept", add, {}),
        Target(f"cb.run.{run}.signal", "kept", add, {}),
        Target(f"cb.run.{run}.pending", "kept", add, {}),
        Target(f"cb.run.{run}.attempt", "kept", add, {}),
        Target(f"cb.run.{run}.owner", "kept", add, {}),
        Target(f"cb.run.{run}.done", "kept", add, {}),
        Target(f"cb.run.{run}.else", "kept", add, {}),
        Target(f"cb.run.{run}.result.7", "kept", add, {}),
        Target(f"cb.run.{run}", "kept", add, {}),
        Target("cb.run.\u00fcn\u00efcode.result", "kept", add, {}),
        Target("cb.run.m{n}.owner", "kept", add, {}),
        Target(f"cb.journal.{run}.result", "told", add, republished),
        Target(f"cb.journal.{run}.owner", "told", add, republished),
        Target(f"cb.journal.{run}.signal", "told", add, republished),
        Target(f"cb.journal.{run}.done", "told", add, republished),
        Target(f"cb.journal.{run}", "told", add, republished),
        Target("cb.dead.add", "kept", add, {}),
        Target("cb.dead.a.b.c", "kept", add, {}),
        Target("cb.telemetry.m{n}", "kept", add, {}),
        Target("cb.api.submit.chain", "told", chain, {}),
        Target("cb.api.run.unheard_of", "told", chain, {}),
        Target("cb.api.status.m{n}", "told", add, {}),
        Target("cb.api.cancel.m{n}", "told", add, {}),
        Target("cb.api.result.m{n}", "told", add, {}),
        Target("cb.api.actors.all", "told", add, {}),
        Target("cb.api.unheard_of.all", "told", add, {}),
        Target(f"cb.steal.{host}", "told", _encode({"actor": "add", "by": host, "most": "all"}), {}),
        Target("cb.policy.route.m{n}", "told", route, republished),
        Target("cb.policy.m{n}", "told", add, {}),
        Target("$KV.cb_policy.route.m{n}", "kept", route, {}),
        Target("$KV.cb_policy.route.add.=m{n}", "kept", route, {}),
        Target("$KV.cb_policy.m{n}", "kept", add, {}),
        Target("$KV.cb_policy.priority.m{n}", "kept", _encode({"session": "m", "value": "high"}), {}),
        Target("cb.policy.priority.m{n}", "told", add, republished),
        Target("$KV.cb_policy.policies", "kept", add, {}),
        Target("$KV.cb_policy.decided.{n}", "kept", add, {}),
        Target("$KV.cb_runtimes.add.call.{n}", "kept", add, {}),
        Target("$KV.cb_runtimes.add.call.curve", "kept", curve, {}),
        Target(f"cb.telemetry.{host}", "kept", add, {}),
        Target("$KV.cb_inbox.m{n}", "kept", add, {}),
        Target("$KV.cb_state.add.m{n}", "kept", add, {}),
        Target("$KV.cb_runs.m{n}", "kept", add, {}),
        Target(f"$KV.cb_runs.{run}", "kept", add, {}),
        Target("$O.cb_blobs.M.m{n}", "kept", add, {}),
        Target("$KV.cb_registry.host.m{n}", "kept", pulse, {}),
        Target(f"$KV.cb_registry.host.{host}", "kept", pulse, {}),
        Target("$KV.cb_registry.actor.m{n}", "kept", add, {}),
        Target("$KV.cb_registry.takeover.m{n}", "kept", add, {}),
        Target("$KV.cb_registry.m{n}", "kept", add, {}),
    ]


def message(kind: Kind, target: Target, number: int) -> tuple[str, bytes, bytes | None]:
    """Subject, body and header block of a malformed message."""
    body = target.body if kind.body is None else kind.body
    return target.subject.replace("{n}", str(number)), body, _block(kind, target, number)


def _block(kind: Kind, target: Target, number: int) -> bytes | None:
    if kind.block is not None:
        return kind.block
    laid: dict[str, Any] = {**({} if kind.bare else target.headers), **kind.headers}
    lines = [f"{name}: {value}\r\n" for name, value in laid.items() if value is not None]
    block = "".join(lines).replace("{n}", str(number)).encode() + kind.lines
    return b"NATS/1.0\r\n" + block + b"\r\n" if block else None


def plan(run: str, host: str) -> list[tuple[Kind, Target]]:
    """Every kind on every subject."""
    return [(kind, target) for kind in kinds() for target in targets(run, host)]


def own_run(kind: Kind) -> bool:
    """Whether the message is of the run that is named by its number."""
    return not (kind.bare or kind.block is not None or {"Cb-Run", "Cb-Future"} & kind.headers.keys())


def buried(kind: Kind, target: Target) -> bool:
    """Whether this message belongs in the dead letters."""
    if target.family == "stray":
        return True
    return {"call": kind.dead_call, "request": kind.dead_request}.get(target.family, False)
