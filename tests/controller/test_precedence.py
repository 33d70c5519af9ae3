"""Who goes first: what an earlier policy has said stands until its own next round, however often others decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from callboard.controller.decisions import entry_of
from callboard.controller.policy import Act, Held, Policy
from callboard.controller.rounds import Rounds, Running
from callboard.controller.view import View
from callboard.infra import subjects
from callboard.infra.messages.policy import Decision

LONG, SHORT = 10.0, 0.25
Say = Callable[[Act, View], None]


class Says(Policy):
    """Says what a test wants.

    Args:
        every: seconds.
    """

    def __init__(self, say: Say, every: float) -> None:
        self.say = say
        self.every = every

    def decide(self, view: View, act: Act) -> None:
        """Say it."""
        self.say(act, view)


class Table:
    """Policies around a view with two hosts and three sessions; what they decide holds at once."""

    def __init__(self, *policies: Policy) -> None:
        self.view, self.held = View(), Held()
        view = self.view
        for host in ("h1", "h2"):
            row = np.array([view.instance(view.actors.row("a"), view.hosts.row(host))])
            view.instances.set(row, slots=1)
            view.hosts["provided"][view.hosts.row(host)] = True
        view.room = {"a": {"here": 5}}
        view.sessions.add(["s1", "s2", "s3"])
        self.failed: list[str] = []
        self.rounds = Rounds(view, self.held, lambda policy, *rest: policy.decide(*rest), self._failed)
        self.rounds.running = [Running(f"p{place}", policy) for place, policy in enumerate(policies)]
        self.held.rank = {one.name: place for place, one in enumerate(self.rounds.running)}

    def _failed(self, one: Running, error: Exception) -> None:
        self.failed.append(f"{one.name}: {error}")

    def decide(self, now: float) -> list[Decision]:
        """One round."""
        decided = self.rounds.decide(now)
        for decision in decided:
            entry = entry_of(decision, 1, now, 1)
            if entry is not None:
                self.held.put(decision.key, entry)
            elif decision.what == "clear":
                self.held.drop(decision.key)
        return decided

    def by(self, policy: str, times: Sequence[float]) -> list[str]:
        """What a policy has decided in some rounds."""
        return [one.what for now in times for one in self.decide(now) if one.policy == policy]


def rank(value: int, *sessions: str) -> Say:
    """One by one, or of the first three rows at once if none is named."""

    def say(act: Act, view: View) -> None:
        for session in sessions:
            act.set_priority(session, value)
        if not sessions:
            rows = view.sessions.rows
            act.set_priorities(rows, np.full(len(rows), value))

    return say


def each(values: list[int]) -> Say:
    """Priorities of the session ``s1``, or none: as they are when it decides."""

    def say(act: Act, _: View) -> None:
        for value in values:
            act.set_priority("s1", value)

    return say


def to(host: str, *, at_once: bool = False) -> Say:
    """Routes of the session ``s1``."""

    def say(act: Act, view: View) -> None:
        if at_once:
            act.set_routes(np.array([view.sessions.row("s1")]), "a", np.array([view.hosts.row(host)]))
        else:
            act.route("s1", "a", host)

    return say


def moved(act: Act, view: View) -> None:
    """The session ``s1`` leaves ``h1``."""
    act.migrate("s1", "h1", "h2")


TIMES = [0.0, *(step * SHORT for step in range(1, 40))]
SAID: list[tuple[str, Say, Say]] = [
    ("a priority", rank(5, "s1"), rank(-5, "s1")),
    ("priorities at once", rank(5), rank(-5)),
    ("no priority", rank(0, "s1"), rank(-5, "s1")),
    ("no priorities, at once", rank(0), rank(-5)),
    ("none one by one, others at once", rank(0, "s1", "s2", "s3"), rank(-5)),
    ("none at once, others one by one", rank(0), rank(-5, "s1")),
    ("at one actor", lambda act, _: act.set_priority("s1", 5, "a"), lambda act, _: act.set_priority("s1", -5, "a")),
    ("a session's route", to("h1"), to("h2")),
    ("routes at once", to("h1", at_once=True), to("h2", at_once=True)),
    ("no route", to(""), to("h2")),
    ("no route, others at once", to(""), to("h2", at_once=True)),
    ("an actor's route", lambda act, _: act.route("a", ["h1"], [1]), lambda act, _: act.route("a", ["h2"], [1])),
    ("no route of an actor", lambda act, _: act.route("a", [], []), lambda act, _: act.route("a", ["h2"], [1])),
    ("a route, not a move", to("h1"), moved),
    ("a limit", lambda act, _: act.admit("flow", 1.0), lambda act, _: act.admit("flow", 2.0)),
    ("no limit", lambda act, _: act.admit("flow", None), lambda act, _: act.admit("flow", 2.0)),
    ("a start", lambda act, _: act.provision("a"), lambda act, _: act.kill("h1")),
    ("an end", lambda act, _: act.kill("h1"), lambda act, _: act.provision("a")),
]  # fmt: skip


@pytest.mark.parametrize(("first", "later"), [one[1:] for one in SAID], ids=[one[0] for one in SAID])
def test_a_later_policy_changes_nothing_between_two_rounds_of_an_earlier_one(first: Say, later: Say) -> None:
    """Also where the earlier one has said that nothing is to hold. Alone the later one has its way."""
    alone = Table(Says(later, SHORT))
    _under_way(alone)
    assert alone.by("p0", TIMES)
    both = Table(Says(first, LONG), Says(later, SHORT))
    _under_way(both)
    assert both.by("p1", TIMES) == []
    assert both.failed == []


def _under_way(table: Table) -> None:
    """A call of ``s1`` is at ``h1``, so that the session can move."""
    view = table.view
    row = np.array([view.futures.row("r:1")])
    place = {name: getattr(view, f"{name}s").row(key) for name, key in (("session", "s1"), ("actor", "a"))}
    view.futures.set(row, executor=view.hosts.row("h1"), **place)


def test_the_first_has_its_way_whoever_decided_before() -> None:
    """What a later policy has decided is changed as soon as the earlier one says otherwise."""
    said: list[int] = []
    table = Table(Says(each(said), LONG), Says(rank(-5, "s1"), SHORT))
    table.decide(0.0)
    assert table.held.values["s1", ""] == -5
    said.append(5)
    table.decide(LONG)
    assert table.held.values["s1", ""] == 5
    assert table.by("p1", [LONG + step * SHORT for step in range(1, 40)]) == []


def test_who_has_nothing_to_say_any_more_lets_others_decide() -> None:
    """What was said of ``no priority`` counts until the next round only; what is stored until it is taken back."""
    said = [0]
    table = Table(Says(each(said), LONG), Says(rank(-5, "s1"), SHORT))
    assert table.by("p1", [0.0, SHORT]) == []
    said[:] = []
    assert table.by("p1", [LONG]) == ["priority"]
    said[:] = [5]
    table.decide(2 * LONG)
    said[:] = []
    assert table.by("p1", [3 * LONG, 3 * LONG + SHORT]) == []
    said[:] = [0]
    assert table.by("p1", [4 * LONG, 4 * LONG + SHORT]) == []
    said[:] = []
    assert table.by("p1", [5 * LONG]) == ["priority"]


@pytest.mark.parametrize("said", [rank(0), to("h1", at_once=True)], ids=["priorities", "routes"])
def test_a_session_in_the_place_of_another_is_a_new_one(said: Say) -> None:
    """Rows are used again: what was said of the session before does not stand for it."""

    def both(act: Act, view: View) -> None:
        for session in ("s1", "s9"):
            if session in view.sessions:
                act.set_priority(session, -5)
                act.route(session, "a", "h2")

    table = Table(Says(said, LONG), Says(both, SHORT))
    table.decide(0.0)
    row = table.view.sessions.row("s1")
    table.view.sessions.drop(np.array([row]))
    assert table.view.sessions.row("s9") == row
    table.decide(SHORT)
    assert table.held.values["s9", ""] == -5
    assert table.held.homes["a"]["s9"] == "h2"


def test_one_that_is_disabled_leaves_what_is_stored() -> None:
    """What it has only said does not stand for ever."""
    rounds = [0]

    def say(act: Act, _: View) -> None:
        act.set_priority("s1", 5)
        act.set_priority("s2", 0)
        rounds[0] += 1
        if rounds[0] > 1:
            raise ZeroDivisionError("no hosts")

    table = Table(Says(say, LONG), Says(rank(-5), SHORT))
    for now in (0.0, SHORT, LONG, LONG + SHORT):
        table.decide(now)
    assert table.failed == ["p0: no hosts"]
    assert table.held.values == {("s1", ""): 5, ("s2", ""): -5, ("s3", ""): -5}


def test_what_people_route_is_not_moved_away() -> None:
    """A session that is routed by hand goes where that says, or stays."""
    for host, moves in (("h1", []), ("h2", ["migrate"])):
        table = Table(Says(moved, SHORT))
        _under_way(table)
        decision = Decision("route", subjects.session_route("a", "s1"), {host: 1.0})
        entry = entry_of(decision, 1, 0.0, 0)
        assert entry is not None
        table.held.put(decision.key, entry)
        assert table.by("p0", [0.0]) == moves
