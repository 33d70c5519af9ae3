"""The offline checker of sessions: what was acknowledged against what the states hold in the end.

Every operation adds a line to the log of its account, so that the final log is the order in which the
operations took effect; and each answers what it saw before. A pure function of the history, so that it is
itself tested with planted faults (`test_histories`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

import msgspec


class Place(NamedTuple):
    """Whose account it is."""

    actor: str
    session: str


class Line(NamedTuple):
    """One line of an account's log."""

    mark: str
    amount: int


class Account(NamedTuple):
    """What a state holds in the end.

    Attributes:
        balance: the counter that is kept beside the log.
    """

    lines: list[Line]
    balance: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One operation and what was said of it.

    Attributes:
        session: empty if it is the run's own.
        mark: ``<maker>#<number>``, the number counts what the maker has made.
        future: id of the call.
        seen, balance: lines, and their sum, that the handler saw before; began: unix seconds.
        refused: it raised, and changed nothing.
    """

    actor: str
    session: str = ""
    mark: str
    amount: int
    future: str
    seen: int
    balance: int
    began: float
    refused: bool = False


class History(NamedTuple):
    """What is left after a scenario.

    Attributes:
        answers: by place, all that makers have heard.
        told: unix seconds when the outcome of a call was stored, by future.
        moved: marks of a taking and of the giving that belongs to it.
    """

    answers: Mapping[Place, list[Answer]]
    accounts: Mapping[Place, Account]
    told: Mapping[str, float]
    moved: list[tuple[str, str]]


def violations(history: History) -> list[str]:
    """Every operation that was lost, doubled, reordered or saw what was stale; empty if none was."""
    found: list[str] = []
    for place in sorted(history.accounts.keys() | history.answers.keys()):
        account = history.accounts.get(place, Account([], 0))
        answers = history.answers.get(place, [])
        where = f"{place.actor} of {place.session}"
        found += [f"{where}: {text}" for text in _applied(account, answers)]
        found += [f"{where}: {text}" for text in _in_order(account)]
        found += [f"{where}: {text}" for text in _views(account, answers, history.told)]
    return found + list(_moved(history))


def _applied(account: Account, answers: list[Answer]) -> Iterator[str]:
    """Each acknowledged operation is there once, and nothing else is."""
    lines = Counter(line.mark for line in account.lines)
    amounts = {line.mark: line.amount for line in account.lines}
    for answer in answers:
        if answer.refused and lines[answer.mark]:
            yield f"{answer.mark} was refused, and is there"
        elif not answer.refused and not lines[answer.mark]:
            yield f"{answer.mark} was acknowledged, and is lost"
        elif not answer.refused and amounts[answer.mark] != answer.amount:
            yield f"{answer.mark} is there with another amount: {amounts[answer.mark]}"
    known = {answer.mark for answer in answers}
    for mark, count in lines.items():
        if count > 1:
            yield f"{mark} is doubled: it is there {count} times"
        if mark not in known:
            yield f"{mark} is there, and nobody was told"
    total = sum(line.amount for line in account.lines)
    if account.balance != total:
        yield f"the balance is {account.balance}, the lines say {total}"


def _in_order(account: Account) -> Iterator[str]:
    """What one maker has made took effect in the order in which it was made."""
    last: dict[str, int] = {}
    for line in account.lines:
        maker, _, number = line.mark.rpartition("#")
        if int(number) < last.get(maker, 0):
            yield f"{line.mark} is reordered: it came after number {last[maker]}"
        last[maker] = int(number)


def _views(account: Account, answers: list[Answer], told: Mapping[str, float]) -> Iterator[str]:
    """Each handler saw all that came before it, and all that was acknowledged before it began."""
    places = {line.mark: index for index, line in enumerate(account.lines)}
    sums = [0, *accumulate(line.amount for line in account.lines)]
    known = {answer.mark: told[answer.future] for answer in answers if answer.future in told}
    stored = [known.get(line.mark, float("inf")) for line in account.lines]
    for answer in answers:
        if answer.seen >= len(sums) or answer.balance != sums[answer.seen]:
            yield f"{answer.mark} saw {answer.seen} lines with {answer.balance}, which never was so"
        if not answer.refused:
            if answer.seen != places.get(answer.mark, answer.seen):
                yield f"{answer.mark} is line {places[answer.mark]}, and saw {answer.seen}: a stale read"
            continue
        before = max((n + 1 for n, at in enumerate(stored) if at < answer.began), default=0)
        if answer.seen < before:
            yield f"{answer.mark} saw {answer.seen} lines when {before} were acknowledged: a stale read"


def _moved(history: History) -> Iterator[str]:
    """What was taken is given, once."""
    done = {a.mark for answers in history.answers.values() for a in answers if not a.refused}
    for taken, given in history.moved:
        if (taken in done) != (given in done):
            yield f"{taken} and {given} are one transfer, and only one of them was done"
