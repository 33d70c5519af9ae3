"""The checker of sessions itself: it accepts what is right, and finds every fault that is planted."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from tests.faults.histories import Account, Answer, History, Line, Place, violations

PURSE = Place("Purse", "s")
CHEST = Place("Chest", "s")


def answer(place: Place, mark: str, amount: int, seen: int, balance: int, *, refused: bool = False) -> Answer:
    """What a maker heard; it began when as much had been told as it saw."""
    return Answer(
        actor=place.actor,
        mark=mark,
        amount=amount,
        future=f"{mark}@{place.actor}",
        seen=seen,
        balance=balance,
        began=seen + 0.5,
        refused=refused,
    )


def sound() -> History:
    """Two makers; one transfer that was done, and one that was refused."""
    purse = [Line("a#1", 5), Line("b#1", 3), Line("a#2", 2), Line("a#3", -4)]
    chest = [Line("a#4", 4)]
    told = {f"{line.mark}@Purse": float(n + 1) for n, line in enumerate(purse)} | {"a#4@Chest": 5.0}
    answers = [
        answer(PURSE, "a#1", 5, 0, 0),
        answer(PURSE, "b#1", 3, 1, 5),
        answer(PURSE, "a#2", 2, 2, 8),
        answer(PURSE, "a#3", -4, 3, 10),
        answer(PURSE, "b#2", -9, 4, 6, refused=True),
    ]
    return History(
        {PURSE: answers, CHEST: [answer(CHEST, "a#4", 4, 0, 0)]},
        {PURSE: Account(purse, 6), CHEST: Account(chest, 4)},
        told,
        [("a#3", "a#4")],
    )


Plant = Callable[[History], History]


def with_purse(change: Callable[[list[Line]], list[Line]]) -> Plant:
    """The same with other lines, and a balance that fits them."""

    def planted(history: History) -> History:
        lines = change(list(history.accounts[PURSE].lines))
        account = Account(lines, sum(line.amount for line in lines))
        return history._replace(accounts={**history.accounts, PURSE: account})

    return planted


def with_answer(mark: str, **changes: object) -> Plant:
    """The same with another answer to one operation."""

    def planted(history: History) -> History:
        answers = [
            msgspec.structs.replace(one, **changes) if one.mark == mark else one
            for one in history.answers[PURSE]
        ]
        return history._replace(answers={**history.answers, PURSE: answers})

    return planted


FAULTS: dict[str, tuple[Plant, str]] = {
    "lost": (with_purse(lambda lines: lines[:2] + lines[3:]), "a#2 was acknowledged, and is lost"),
    "lost account": (
        lambda h: h._replace(accounts={PURSE: h.accounts[PURSE]}),
        "Chest of s: a#4 was acknowledged, and is lost",
    ),
    "doubled": (with_purse(lambda lines: [*lines, lines[1]]), "b#1 is doubled: it is there 2 times"),
    "reordered": (
        with_purse(lambda lines: [lines[2], lines[1], lines[0], lines[3]]),
        "a#1 is reordered: it came after number 2",
    ),
    "stale read": (with_answer("a#2", seen=1, balance=5), "a#2 is line 2, and saw 1: a stale read"),
    "stale refusal": (
        with_answer("b#2", seen=2, balance=8),
        "b#2 saw 2 lines when 4 were acknowledged: a stale read",
    ),
    "never so": (with_answer("a#2", balance=7), "a#2 saw 2 lines with 7, which never was so"),
    "from the future": (with_answer("a#2", seen=9), "a#2 saw 9 lines with 8, which never was so"),
    "nobody told": (
        with_purse(lambda lines: [*lines, Line("c#1", 1)]),
        "c#1 is there, and nobody was told",
    ),
    "refused and there": (
        with_purse(lambda lines: [*lines, Line("b#2", -9)]),
        "b#2 was refused, and is there",
    ),
    "other amount": (
        with_purse(lambda lines: [*lines[:3], Line("a#3", -5)]),
        "a#3 is there with another amount: -5",
    ),
    "counter behind": (
        lambda h: h._replace(accounts={**h.accounts, PURSE: Account(h.accounts[PURSE].lines, 5)}),
        "the balance is 5, the lines say 6",
    ),
    "half a transfer": (with_answer("a#3", refused=True), "only one of them was done"),
}


def test_accepts_what_is_right() -> None:
    """No fault, no complaint."""
    assert violations(sound()) == []


def test_a_refusal_may_have_seen_less_than_came_later() -> None:
    """What was acknowledged after it began it need not have seen."""
    assert violations(with_answer("b#2", seen=2, balance=8, began=2.5)(sound())) == []


@pytest.mark.parametrize(("plant", "complaint"), FAULTS.values(), ids=FAULTS)
def test_finds_planted_fault(plant: Plant, complaint: str) -> None:
    """Each fault is found."""
    found = violations(plant(sound()))
    assert any(complaint in text for text in found), found
