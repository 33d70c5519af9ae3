"""The checker itself: it accepts what is right, and finds every fault that is planted."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from tests.faults import ledger
from tests.faults.app import Shaky
from tests.faults.checker import Accepted, Allowed, Entry, Evidence, violations

from callboard.infra.messages.dead import DeadLetter
from callboard.infra.messages.run import Done, ErrorInfo, Owner, Result, RunSummary

_encode = msgspec.msgpack.encode


def raw(value: object) -> msgspec.Raw:
    """A value as it stands in a message."""
    return msgspec.Raw(_encode(value))


def sound() -> Evidence:
    """Two runs without any fault: ``a`` was taken over once, ``b`` fails as it should."""
    failure = ErrorInfo("call_failed", "no", type="tests.faults.app:Shaky")
    return Evidence(
        accepted=[Accepted("a", "chain", 3), Accepted("b", "failing", Shaky)],
        journal=[
            Entry("a", "owner", 1, 1.0, Owner("h1", 1, 1, "chain")),
            Entry("b", "owner", 2, 1.1, Owner("h1", 1, 2, "failing")),
            Entry("a", "result", 3, 2.0, Result("a:1", "add.call", raw(1), host="h2")),
            Entry("a", "owner", 4, 3.0, Owner("h3", 2, 1, "chain")),
            Entry("a", "pending", 5, 3.1, None),
            Entry("a", "result", 6, 4.0, Result("a:2", "add.call", raw(3), host="h2")),
            Entry("b", "result", 7, 4.1, Result("b:1", "broken.call", error=failure, host="h2")),
            Entry("a", "done", 8, 5.0, Done("a", "chain", "completed", raw(3), epoch=2)),
            Entry("b", "done", 9, 5.1, Done("b", "failing", "failed", error=failure)),
        ],
        ledger=[
            ledger.Entry(ledger.START, "a:1", 1, 10, 1.5),
            ledger.Entry(ledger.END, "a:1", 1, 10, 1.9),
            ledger.Entry(ledger.START, "a:2", 1, 10, 3.5),
            ledger.Entry(ledger.START, "b:1", 1, 10, 3.5),
            ledger.Entry(ledger.RAISED, "b:1", 1, 10, 3.6),
            ledger.Entry(ledger.END, "a:2", 1, 10, 3.9),
        ],
        left={},
        dead=[],
        summaries={"a": RunSummary("a", "chain", "completed"), "b": RunSummary("b", "failing", "failed")},
    )


Plant = Callable[[Evidence], Evidence]


def with_entry(entry: Entry) -> Plant:
    """The same with one more journal entry, in its place."""
    return lambda e: e._replace(journal=sorted([*e.journal, entry], key=lambda x: (x.at, x.sequence)))


def without(kind: str, run: str) -> Plant:
    """The same without some entries."""
    return lambda e: e._replace(journal=[x for x in e.journal if (x.kind, x.run) != (kind, run)])


def with_lines(*lines: ledger.Entry) -> Plant:
    """The same with more executions."""
    return lambda e: e._replace(ledger=[*e.ledger, *lines])


def starts(future: str, count: int, at: float = 1.5, pid: int = 11) -> Plant:
    """The same with so many more beginnings of a call."""
    return with_lines(*[ledger.Entry(ledger.START, future, 1, pid, at)] * count)


def summary(status: str) -> Plant:
    """The same with another summary of run ``a``."""
    return lambda e: e._replace(summaries={**e.summaries, "a": RunSummary("a", "chain", status)})


DONE = Done("a", "chain", "completed", raw(3), epoch=2)

FAULTS: dict[str, tuple[Plant, str]] = {
    "lost run": (without("done", "a"), "run a (chain) has 0 outcomes"),
    "doubled outcome": (with_entry(Entry("a", "done", 10, 6.0, DONE)), "run a (chain) has 2 outcomes"),
    "other outcome": (
        lambda e: with_entry(Entry("a", "done", 8, 5.0, Done("a", "chain", "completed", raw(4), epoch=2)))(
            without("done", "a")(e)
        ),
        "another outcome: 4, expected 3",
    ),
    "failed instead": (
        lambda e: with_entry(
            Entry("a", "done", 8, 5.0, Done("a", "chain", "failed", error=ErrorInfo("x", "y"), epoch=2))
        )(without("done", "a")(e)),
        "another outcome: failed (x: y)",
    ),
    "other error": (
        lambda e: e._replace(accepted=[e.accepted[0], Accepted("b", "failing", ValueError)]),
        "expected ValueError",
    ),
    "rubbish as outcome": (
        lambda e: with_entry(Entry("a", "done", 8, 5.0, None))(without("done", "a")(e)),
        "run a (chain) has 0 outcomes",
    ),
    "outcome of nobody's run": (
        with_entry(Entry("c", "done", 10, 6.0, Done("c", "chain", "completed"))),
        "run c has an outcome and was never accepted",
    ),
    "stale owner closed it": (
        lambda e: with_entry(Entry("a", "done", 8, 5.0, Done("a", "chain", "completed", raw(3), epoch=1)))(
            without("done", "a")(e)
        ),
        "closed in epoch 1, owned in 2",
    ),
    "two owners of an epoch": (
        with_entry(Entry("a", "owner", 5, 3.05, Owner("h4", 2, 1, "chain"))),
        "epoch 2 after 2",
    ),
    "other second result": (
        with_entry(Entry("a", "result", 6, 4.5, Result("a:1", "add.call", raw(9)))),
        "call a:1 has a second result, another one",
    ),
    "result from nowhere": (
        with_entry(Entry("a", "result", 6, 4.5, Result("a:3", "add.call", raw(9)))),
        "call a:3 has a value and was never executed to its end",
    ),
    "executed after its result": (starts("a:1", 1, at=3.5), "began 1.500 s after its result was stored"),
    "executed too often": (starts("a:1", 6), "executed 7 times, 5 are allowed"),
    "executed for nobody": (starts("z:1", 1), "executed for a run that was never accepted"),
    "calls left": (lambda e: e._replace(left={"cb.call.add.any.1": 2}), "2 messages are left"),
    "dead letter": (
        lambda e: e._replace(dead=[DeadLetter("add", "undecodable", "what", "cb.call.add.any.1")]),
        "1 dead letters undecodable, expected 0 what",
    ),
    "summary behind": (summary("running"), "its summary says running"),
    "no summary": (lambda e: e._replace(summaries={}), "its summary says not there"),
}


def test_accepts_what_is_right() -> None:
    """No fault, no complaint."""
    assert violations(sound(), Allowed()) == []


@pytest.mark.parametrize(("plant", "complaint"), FAULTS.values(), ids=FAULTS)
def test_finds_planted_fault(plant: Plant, complaint: str) -> None:
    """Each fault is found, and nothing else is said of anything else."""
    found = violations(plant(sound()), Allowed())
    assert found
    assert any(complaint in text for text in found), found


@pytest.mark.parametrize(
    ("plant", "allowed"),
    [
        (starts("a:1", 1, at=2.1), Allowed(late=0.25)),
        (starts("a:1", 1, at=3.5, pid=77), Allowed(frozen=frozenset({77}))),
        (starts("a:1", 4), Allowed(starts=5)),
        (with_entry(Entry("a", "result", 6, 4.5, Result("a:1", "add.call", raw(1)))), Allowed()),
        (with_entry(Entry("c", "done", 10, 6.0, Done("c", "chain", "completed"))), Allowed(strangers=True)),
        (
            lambda e: e._replace(dead=[DeadLetter("add", "undecodable", "what", "cb.call.add.any.1")]),
            Allowed(dead={"undecodable": 1}),
        ),
        (lambda e: e._replace(left={"cb.call.x.any.1": 2}), Allowed(left=frozenset({"cb.call.x.any.1"}))),
    ],
    ids=["a little late", "frozen process", "redelivered", "same result twice", "strangers", "dead", "left"],
)
def test_accepts_what_is_allowed(plant: Plant, allowed: Allowed) -> None:
    """What a scenario declares is no fault."""
    assert violations(plant(sound()), allowed) == []


def test_misses_intended_dead_letters() -> None:
    """A dead letter that should be there and is not is a fault, too."""
    assert violations(sound(), Allowed(dead={"too_many_deliveries": 1})) == [
        "0 dead letters too_many_deliveries, expected 1 "
    ]
