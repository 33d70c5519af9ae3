"""Priorities of many sessions at once: the same is decided as one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from callboard.controller.decisions import entry_of
from callboard.controller.policy import Act, Held
from callboard.controller.view import View
from callboard.infra import subjects
from callboard.infra.messages.policy import Decision, Priority

SESSIONS = st.sampled_from([f"s{number}" for number in range(12)])
WANTED = st.dictionaries(SESSIONS, st.integers(-12, 12), max_size=12)
ROUNDS = st.lists(st.tuples(st.sets(SESSIONS), WANTED, WANTED), max_size=8)


def store(held: Held, decisions: list[Decision]) -> None:
    """What the leading controller does with decisions."""
    for decision in decisions:
        session = subjects.session_of(decision.key.rpartition(".")[2])
        if decision.what == "clear":
            held.drop(decision.key)
        else:
            held.put(decision.key, Priority(session, decision.value, term=1, policy="p"))


def told(decisions: list[Decision]) -> list[tuple[str, str, int]]:
    """What they come to."""
    return sorted((decision.what, decision.key, decision.value) for decision in decisions)


@given(ROUNDS, st.integers(1, 12))
def test_the_same_as_one_by_one(
    rounds: list[tuple[set[str], dict[str, int], dict[str, int]]], most: int
) -> None:
    """Round after round, while sessions come and go and their places are used again."""
    view, one, many = View(), Held(), Held()
    for gone, first, second in rounds:
        view.sessions.drop(view.sessions.find(gone))
        rows, _ = view.sessions.add(list(first | second))
        singly, at_once = (Act(view, "p", "why", held, most=most) for held in (one, many))
        for wanted in (first, second):
            for session, value in wanted.items():
                singly.set_priority(session, value)
            rows = view.sessions.find(wanted)
            at_once.set_priorities(rows, np.array(list(wanted.values()), int))
        assert told(singly.decisions) == told(at_once.decisions)
        assert singly.left == at_once.left
        store(one, singly.decisions)
        store(many, at_once.decisions)
        assert one.values == many.values


def test_both_ways_claim_for_each_other() -> None:
    """What is decided one by one is not decided again at once, nor the other way round; each actor for itself."""
    view = View()
    rows, _ = view.sessions.add(["a", "b"])
    act = Act(view, "p")
    act.set_priority("a", 1)
    act.set_priorities(rows, np.array([2, 2]))
    act.set_priority("b", 3)
    act.set_priorities(rows, np.array([4, 0]), "writer")
    assert [one.value for one in act.decisions] == [1, 2, 4]
    second = Act(view, "q", claimed=act.claimed.copy())
    second.set_priorities(rows, np.array([5, 5]), "writer")
    assert not second.decisions


def test_the_reason_is_made_of_the_value() -> None:
    """Of the value that was given, also where a smaller one counts."""
    view = View()
    rows, _ = view.sessions.add(["a", "b"])
    act = Act(view, "p")
    act.set_priorities(rows, np.array([3, 40]), reason=lambda value: f"{value} of them")
    assert [(one.value, one.reason) for one in act.decisions] == [(3, "3 of them"), (9, "40 of them")]


def test_what_others_decided_stays() -> None:
    """A priority that a person has set, or a policy before this one, is not changed."""
    view = View()
    rows, _ = view.sessions.add(["by_hand", "by_first", "free"])
    held = Held(rank={"first": 0, "second": 1})
    held.put(subjects.priority(subjects.session_token("by_hand")), Priority("by_hand", 5))
    first = Priority("by_first", 5, term=1, policy="first")
    held.put(subjects.priority(subjects.session_token("by_first")), first)
    act = Act(view, "second", held=held)
    act.set_priorities(rows, np.array([1, 1, 1]))
    assert [one.key for one in act.decisions] == [subjects.priority(subjects.session_token("free"))]


HOMES = st.dictionaries(SESSIONS, st.sampled_from(["a", "b", "drains", "nowhere"]), max_size=12)


@given(st.lists(st.tuples(st.sets(SESSIONS), HOMES, HOMES), max_size=8), st.integers(1, 12))
def test_routes_are_the_same_as_one_by_one(
    rounds: list[tuple[set[str], dict[str, str], dict[str, str]]], most: int
) -> None:
    """Whatever comes first of the same session has its way, and an instance that is not there gets none."""
    view, one, many = View(), Held(), Held()
    for host in ("a", "b", "drains", "nowhere"):
        row = view.hosts.row(host)
        if host != "nowhere":
            view.instance(view.actors.row("llm"), row)
    view.hosts["draining"][view.hosts.row("drains")] = True
    for epoch, (gone, first, second) in enumerate(rounds):
        view.sessions.drop(view.sessions.find(gone))
        view.sessions.add(list(first | second))
        singly, at_once = (Act(view, "p", "why", held, most=most) for held in (one, many))
        for wanted in (first, second):
            for session, host in wanted.items():
                singly.route(session, "llm", host)
            at_once.set_routes(view.sessions.find(wanted), "llm", view.hosts.find(wanted.values()))
        assert sorted((d.key, *d.hosts) for d in singly.decisions) == sorted(
            (d.key, *d.hosts) for d in at_once.decisions
        )
        for held, act in ((one, singly), (many, at_once)):
            for decision in act.decisions:
                entry = entry_of(decision, epoch, 1.0, term=1)
                assert entry is not None
                held.put(decision.key, entry)
        assert one.homes == many.homes


def test_routes_at_once_are_claimed() -> None:
    """Also those that hold already: nobody moves such a session, or routes it elsewhere, in the same round."""
    view, held = View(), Held()
    (session,) = view.sessions.add(["s"])[0]
    for host in ("a", "b"):
        view.instance(view.actors.row("llm"), view.hosts.row(host))
    future = np.array([view.futures.row("r:1")])
    here = view.hosts.row("a")
    view.futures.set(future, session=session, actor=view.actors.row("llm"), executor=here)
    for _ in range(2):
        act = Act(view, "p", "why", held)
        act.set_routes(np.array([session]), "llm", np.array([here]))
        act.migrate("s", "a", "b")
        act.route("s", "llm", "b")
        later = Act(view, "q", "why", held, act.claimed.copy())
        later.route("s", "llm", "b")
        later.set_routes(np.array([session]), "llm", np.array([view.hosts.row("b")]))
        assert not later.decisions
        assert [one.what for one in act.decisions] == ["route"] * (not held.entries)
        for decision in act.decisions:
            entry = entry_of(decision, 1, 1.0, term=1)
            assert entry is not None
            held.put(decision.key, entry)
    held.drop(*held.entries)
    act = Act(view, "p", "why", held)
    act.set_routes(np.array([session]), "llm", np.array([here]))
    assert len(act.decisions) == 1
