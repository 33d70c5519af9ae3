"""The offline checker: holds what is left after a scenario against the guarantees.

A pure function of the evidence, so that it is itself tested with planted faults (`test_checker`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from tests.faults import ledger

from callboard.infra.messages.dead import DeadLetter
from callboard.infra.messages.run import Done, Owner, Result, RunSummary


class Accepted(NamedTuple):
    """A run whose request is stored.

    Attributes:
        expected: its one right value, or the class of the error that it must end with.
    """

    id: str
    workflow: str
    expected: Any


class Entry(NamedTuple):
    """One entry of a journal.

    Attributes:
        kind: ``owner``, ``result``, ``done`` and so on; at: unix seconds when it was stored.
        body: a Result, Owner or Done; None for other kinds and for what does not decode.
    """

    run: str
    kind: str
    sequence: int
    at: float
    body: Any


class Evidence(NamedTuple):
    """What is left after a scenario.

    Attributes:
        journal: all entries of all runs, in the order of the stream.
        ledger: all lines; left: messages by subject in the streams that should be empty.
    """

    accepted: list[Accepted]
    journal: list[Entry]
    ledger: list[ledger.Entry]
    left: dict[str, int]
    dead: list[DeadLetter]
    summaries: dict[str, RunSummary]


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What a scenario may leave behind.

    Attributes:
        starts: executions of one attempt of one call; every delivery may be one.
        late: seconds for which a call that was looked up before its result was stored may still begin.
        frozen: processes that were stopped for a while: what they held they may begin afterwards.
        dead: dead letters by reason; None: the scenario itself looks at them.
        left: subjects on which messages may remain.
        strangers: there may be runs that nobody has submitted in the usual way.
    """

    starts: int = 5
    late: float = 1.0
    frozen: frozenset[int] = frozenset()
    dead: dict[str, int] | None = {}
    left: frozenset[str] = frozenset()
    strangers: bool = False


def violations(evidence: Evidence, allowed: Allowed) -> list[str]:
    """Every guarantee that does not hold, in words; empty if all hold."""
    if allowed.strangers:
        evidence = _own(evidence)
    return [
        *_outcomes(evidence),
        *_owners(evidence),
        *_results(evidence),
        *_executions(evidence, allowed),
        *_leftovers(evidence, allowed),
        *_summaries(evidence),
    ]


def _own(evidence: Evidence) -> Evidence:
    """The part that is about accepted runs."""
    own = {run.id for run in evidence.accepted}
    return evidence._replace(
        journal=[entry for entry in evidence.journal if entry.run in own],
        ledger=[line for line in evidence.ledger if line.future.partition(":")[0] in own],
    )


def _outcomes(evidence: Evidence) -> Iterator[str]:
    """Every accepted run has exactly one outcome, and it is the right one."""
    done: dict[str, list[Done]] = defaultdict(list)
    for entry in evidence.journal:
        if entry.kind == "done" and isinstance(entry.body, Done):  # anybody's rubbish is no outcome
            done[entry.run].append(entry.body)
    for run in evidence.accepted:
        found = done.pop(run.id, [])
        if len(found) != 1:
            yield f"run {run.id} ({run.workflow}) has {len(found)} outcomes"
        for outcome in found:
            problem = _wrong(run, outcome)
            if problem:
                yield f"run {run.id} ({run.workflow}) has another outcome: {problem}"
    for unknown in done:
        yield f"run {unknown} has an outcome and was never accepted"


def _wrong(run: Accepted, outcome: Done) -> str:
    if isinstance(run.expected, type):
        kind = outcome.error.type.rpartition(":")[2] if outcome.error else ""
        wanted = run.expected.__qualname__
        return "" if kind == wanted else f"{outcome.status} {kind}, expected {wanted}"
    if outcome.status != "completed":
        error = outcome.error
        return f"{outcome.status} ({error.code}: {error.message})" if error else outcome.status
    value = msgspec.msgpack.decode(outcome.value)
    return "" if value == run.expected else f"{value!r}, expected {run.expected!r}"


def _owners(evidence: Evidence) -> Iterator[str]:
    """Epochs count up by one, and the last owner closes the run."""
    epochs: dict[str, int] = defaultdict(int)
    for entry in evidence.journal:
        if entry.kind == "owner" and isinstance(entry.body, Owner):
            if entry.body.epoch != epochs[entry.run] + 1:
                yield f"run {entry.run}: epoch {entry.body.epoch} after {epochs[entry.run]}"
            epochs[entry.run] = entry.body.epoch
        elif entry.kind == "done" and isinstance(entry.body, Done):
            if entry.body.epoch != epochs[entry.run]:
                yield f"run {entry.run}: closed in epoch {entry.body.epoch}, owned in {epochs[entry.run]}"


def _results(evidence: Evidence) -> Iterator[str]:
    """A call has one outcome, however often it is stored; one that has a value was executed to its end."""
    ended = {entry.future for entry in evidence.ledger if entry.what == ledger.END}
    seen: dict[str, Result] = {}
    for entry in evidence.journal:
        result = entry.body
        if not isinstance(result, Result) or _is_refusal(result):
            continue
        first = seen.setdefault(result.future, result)
        if first is not result:
            if bytes(first.value) != bytes(result.value) or _code(first) != _code(result):
                yield f"call {result.future} has a second result, another one"
        elif result.error is None and result.future not in ended and not _remembered(result):
            yield f"call {result.future} has a value and was never executed to its end"


def _code(result: Result) -> str:
    return result.error.code if result.error else ""


def _is_refusal(result: Result) -> bool:
    return _code(result) == "overloaded"


def _remembered(result: Result) -> bool:
    return result.call.startswith("callboard.")


def _executions(evidence: Evidence, allowed: Allowed) -> Iterator[str]:
    """No attempt runs more often than it is delivered, and nothing runs once its outcome is stored."""
    stored: dict[str, float] = {}
    for entry in evidence.journal:
        if isinstance(entry.body, Result) and not _is_refusal(entry.body):
            stored.setdefault(entry.body.future, entry.at)
    accepted = {run.id for run in evidence.accepted}
    starts: Counter[tuple[str, int]] = Counter()
    for line in evidence.ledger:
        if line.what != ledger.START:
            continue
        starts[line.future, line.attempt] += 1
        if line.future.partition(":")[0] not in accepted:
            yield f"call {line.future} was executed for a run that was never accepted"
        late = line.at - stored.get(line.future, line.at)
        if late > allowed.late and line.pid not in allowed.frozen:
            yield f"call {line.future} attempt {line.attempt} began {late:.3f} s after its result was stored"
    for (future, attempt), count in starts.items():
        if count > allowed.starts:
            yield f"call {future} attempt {attempt} was executed {count} times, {allowed.starts} are allowed"


def _leftovers(evidence: Evidence, allowed: Allowed) -> Iterator[str]:
    """The streams are empty, and only what belongs there is in the dead letters."""
    for subject, count in evidence.left.items():
        if subject not in allowed.left:
            yield f"{count} messages are left on {subject}"
    if allowed.dead is None:
        return
    dead = Counter(letter.reason for letter in evidence.dead)
    for reason in sorted(dead.keys() | allowed.dead.keys()):
        if dead[reason] != allowed.dead.get(reason, 0):
            example = next((x.detail for x in evidence.dead if x.reason == reason), "")
            yield f"{dead[reason]} dead letters {reason}, expected {allowed.dead.get(reason, 0)} {example}"


def _summaries(evidence: Evidence) -> Iterator[str]:
    """What ``cb_runs`` says of a run in the end is what its journal says."""
    for entry in evidence.journal:
        if entry.kind != "done" or not isinstance(entry.body, Done):
            continue
        summary = evidence.summaries.get(entry.run)
        status = summary.status if summary else "not there"
        if status != entry.body.status:
            yield f"run {entry.run} is {entry.body.status}; its summary says {status}"
