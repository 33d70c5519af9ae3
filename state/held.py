"""Outcomes that are held: each counts once the ack of a state's commit stands in the journal, too.

A call that changes a session's state has an outcome only if its commit is stored. Its host need not wait for
that before it tells the outcome: it stores the outcome with a name, and sends the commit with a subject of
the journal as the place where the server is to answer. So the server itself writes there, right after the
commit, whether it was stored. The outcome counts in the place of that entry, whatever becomes of the host.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from callboard.infra import subjects
from callboard.infra.direct import Stored
from callboard.infra.messages.run import Result

_COMMIT = b"\xa6commit"
"""How the field begins in an outcome that is held: what does not have it need not be decoded."""


class _Error(msgspec.Struct):
    code: int = 0


class _Answer(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    error: _Error | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_result = msgspec.msgpack.Decoder(Result).decode
_encode = msgspec.msgpack.Encoder().encode


def is_stored(body: bytes) -> bool | None:
    """Whether a server's answer says that a commit is stored; None if it is no such answer."""
    try:
        answer = _answer(body)
    except (ValueError, RecursionError):
        return None
    if answer.error is not None:
        return False if answer.error.code else None
    return True if answer.seq > 0 and answer.stream == f"KV_{subjects.STATE_BUCKET}" else None


def has_held(entries: Iterable[Stored]) -> bool:
    """Whether there may be an outcome among these entries that is held."""
    return any(_COMMIT in entry.body for entry in entries)


def commits_of(kind: str) -> str:
    """The kinds of the acks that outcomes of a kind (``*``: the workflow's own) are held for; empty: none."""
    if kind == "*":
        return subjects.commit_kind("result", ">")
    return subjects.commit_kind(kind, ">") if kind.partition(".")[0] == "result" else ""


class Counting:
    """Puts the outcomes of a journal where they count.

    Args:
        run: whose journal.

    Attributes:
        alone: there was an ack whose outcome was not among the entries.
    """

    def __init__(self, run: str) -> None:
        self.alone = False
        self._prefix = len(subjects.run(run, ""))
        self._held: dict[str, tuple[Stored, Result]] = {}

    def take(self, entries: Iterable[Stored]) -> list[Stored]:
        """The next entries in journal order, each outcome that was held in the place where it counts.

        Acks are left out, and so is what does not count for want of a commit. An outcome that may still count
        stands where it was stored; once its ack is taken, it comes in that one's place.
        """
        found: list[Stored | None] = []
        places: dict[str, int] = {}
        for entry in entries:
            kind = entry.subject[self._prefix :]
            first = kind.partition(".")[0]
            if first == "commit":
                if (stored := is_stored(entry.body)) is None:
                    continue  # anybody can publish there
                if kind in places:
                    found[places.pop(kind)] = None
                outcome, result = self._held.pop(kind, (None, None))
                self.alone = self.alone or outcome is None
                if stored and outcome is not None and result is not None:
                    body = _encode(msgspec.structs.replace(result, commit=""))
                    found.append(Stored(outcome.subject, entry.sequence, entry.at, {}, body))
                continue
            result = _held(entry) if first == "result" else None
            if result is not None:
                name = subjects.commit_kind(kind, result.commit)
                self._held[name], places[name] = (entry, result), len(found)
            found.append(entry)
        return [entry for entry in found if entry is not None]


def _held(entry: Stored) -> Result | None:
    """The outcome in an entry if it is held; those that are stored together are not."""
    if _COMMIT not in entry.body:
        return None
    try:
        result = _result(entry.body)
    except (ValueError, RecursionError):
        return None
    return result if result.commit else None
