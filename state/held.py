"""Outcomes that are held: each counts once the ack of a state's commit stands in the journal, too.

A call that changes a session's state has an outcome only if its commit is stored. Its host need not wait for
that before it tells the outcome: it stores the outcome with a name, and sends the commit with a subject of
the journal as the place where the server is to answer. So the server itself writes there, right after the
commit, whether it was stored. The outcome counts in the place of that entry, whatever becomes of the host.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from callboard.infra import subjects
from callboard.infra.direct import Stored
from callboard.infra.messages.run import Result

_COMMIT = b"\xa6commit"
"""How the field begins in an outcome that is held: what does not have it need not be decoded."""


class _Answer(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    error: msgspec.Raw | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_results = msgspec.msgpack.Decoder(Result | list[Result]).decode
_encode = msgspec.msgpack.Encoder().encode


def is_stored(body: bytes) -> bool:
    """Whether a server's answer says that a commit is stored."""
    try:
        answer = _answer(body)
    except (ValueError, RecursionError):
        return False
    return answer.error is None and answer.seq > 0 and answer.stream == f"KV_{subjects.STATE_BUCKET}"


def has_held(entries: Iterable[Stored]) -> bool:
    """Whether there may be an outcome among these entries that is held."""
    return any(_COMMIT in entry.body for entry in entries)


def commits_of(kind: str) -> str:
    """The kinds of the acks that outcomes of a kind (``*``: the workflow's own) are held for; empty: none."""
    if kind == "*":
        return subjects.commit_kind("result", ">")
    return subjects.commit_kind(kind, ">") if kind.partition(".")[0] == "result" else ""


def settled(run: str, entries: Iterable[Stored]) -> tuple[list[Stored], bool]:
    """Entries in journal order, each outcome that was held in the place where it counts.

    Returns:
        the entries, acks left out, and what does not count for want of a commit, too; what may still count
        stands where it was stored. And whether there was an ack whose outcome was not among them.
    """
    prefix = len(subjects.run(run, ""))
    held: dict[str, tuple[int, Stored]] = {}
    found: list[Stored | None] = []
    alone = False
    for entry in entries:
        kind = entry.subject[prefix:]
        first = kind.partition(".")[0]
        if first == "commit":
            place, outcome = held.pop(kind, (0, None))
            if outcome is None:
                alone = True
                continue
            found[place] = None
            if is_stored(entry.body):
                found.append(Stored(outcome.subject, entry.sequence, entry.at, {}, _counting(outcome)))
        elif first == "result" and _COMMIT in entry.body:
            for one in _each(entry):
                if name := _read(one.body)[0].commit:
                    held[subjects.commit_kind(kind, name)] = (len(found), one)
                found.append(one)
        else:
            found.append(entry)
    return [entry for entry in found if entry is not None], alone


def _each(entry: Stored) -> list[Stored]:
    """An entry for each of the outcomes in one."""
    return [
        Stored(entry.subject, entry.sequence, entry.at, entry.headers, _encode(one))
        for one in _read(entry.body)
    ]


def _counting(entry: Stored) -> bytes:
    (result,) = _read(entry.body)
    result.commit = ""
    return _encode(result)


def _read(body: bytes) -> Sequence[Result]:
    try:
        said = _results(body)
    except (ValueError, RecursionError):
        return ()
    return said if isinstance(said, list) else (said,)
