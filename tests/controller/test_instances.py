"""Ending and starting instances, as functions of a view: what is never decided, and that scaling does not flap."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.controller import loading
from callboard.controller.changes import Changes, running
from callboard.controller.policy import MOST_DECISIONS, Act, Policy
from callboard.controller.provisioning.room import PLENTY, room
from callboard.controller.reading import State
from callboard.controller.view import View
from callboard.infra.messages.policy import Decision

ACTORS = ("llm", "search", "chart")
CAPACITY = 9
POLICIES = ("scale", "reassign")
FLOW = "flow"
"""The one that is a workflow."""


class Play:
    """A board whose instances come and go as decided, and whose load is what a test says.

    Args:
        limits: ``min_instances`` and ``max_instances`` of each actor.
        capacity: hosts at one time; delay: rounds until one that is started works.
    """

    def __init__(
        self, limits: dict[str, tuple[int, int]], capacity: int = CAPACITY, slots: int = 2, delay: int = 2
    ) -> None:
        self.limits, self.capacity, self.slots, self.delay = limits, capacity, slots, delay
        self.view = View()
        self.hosts: dict[str, str] = {}
        self.coming: list[tuple[int, str]] = []
        self.round = self.number = 0
        for actor, (least, _) in limits.items():
            for _ in range(least):
                self._add(actor)

    def _add(self, actor: str) -> None:
        self.number += 1
        self.hosts[f"h-{self.number}"] = actor

    def look(self, calls: dict[str, int]) -> View:
        """The view of the next round; of the calls as many run as there are slots, the others wait."""
        self.round += 1
        for due, actor in list(self.coming):
            if due <= self.round:
                self.coming.remove((due, actor))
                self._add(actor)
        self.view = view = View()
        starting = Counter(actor for _, actor in self.coming)
        left = self.capacity - len(self.hosts) - len(self.coming)
        for actor, (least, most) in self.limits.items():
            row = view.actors.row(actor)
            view.actors.set(np.array([row]), least=least, most=most, starting=starting[actor])
            view.room[actor] = {"here": max(0, left)}
            self._load(actor, calls.get(actor, 0))
        return view

    def _load(self, actor: str, calls: int) -> None:
        view = self.view
        view.actors["workflow"][view.actors.row(actor)] = actor == FLOW
        for host in [host for host, name in self.hosts.items() if name == actor]:
            busy = min(calls, self.slots)
            calls -= busy
            row = np.array([view.instance(view.actors.row(actor), view.hosts.row(host))])
            view.instances.set(row, slots=self.slots, busy=busy, workflow=actor == FLOW)
            view.hosts["provided"][view.hosts.row(host)] = True
        if actor == FLOW:
            view.lanes["waiting"][view.lane("any", view.actors.row(actor), 1)] = calls
            return
        for number in range(calls):
            row = np.array([view.futures.row(f"{actor}:{number}")])
            view.futures.set(row, state=State.SENT, actor=view.actors.row(actor), executor=-1, session=-1)

    def decide(self, policy: Policy, name: str = "p") -> list[Decision]:
        """What a policy decides; it is carried out."""
        act = Act(self.view, name, loading.reason(policy))
        policy.decide(self.view, act)
        for decision in act.decisions:
            target = decision.key.rpartition(".")[2]
            if decision.what == "kill":
                del self.hosts[target]
            else:
                self.coming.append((self.round + self.delay, target))
        return act.decisions

    def count(self, actor: str) -> int:
        """Instances of an actor, those that still start included."""
        running = sum(name == actor for name in self.hosts.values())
        return running + sum(name == actor for _, name in self.coming)


limits_ = st.tuples(st.integers(0, 2), st.sampled_from([0, 2, 3, 5]))


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=40, deadline=None)
@given(
    limits=st.fixed_dictionaries(dict.fromkeys(ACTORS, limits_)),
    seed=st.integers(0, 2**32),
    calm=st.integers(3, 8),
)
def test_what_holds_of_all(name: str, limits: dict[str, tuple[int, int]], seed: int, calm: int) -> None:
    """Never a host that is not there, never below the least or above the most, each with its reason."""
    chance, play, policy = random.Random(seed), Play(limits), loading.load(name)
    policy.calm = calm  # type: ignore[attr-defined]
    calls = dict.fromkeys(ACTORS, 0)
    for _ in range(60):
        calls = {actor: chance.choice((old, old, old, chance.randint(0, 30))) for actor, old in calls.items()}
        play.look(calls)
        before = dict(play.hosts)
        found = play.decide(policy, name)
        assert len(found) <= MOST_DECISIONS
        assert all(decision.reason and decision.policy == name for decision in found)
        killed = [one.key.rpartition(".")[2] for one in found if one.what == "kill"]
        assert len(killed) == len(set(killed))
        assert set(killed) <= set(before)
        assert len(play.hosts) + len(play.coming) <= CAPACITY
        for actor, (least, most) in limits.items():
            works = sum(one == actor for one in play.hosts.values())
            assert works >= min(least, sum(one == actor for one in before.values()))
            assert not most or play.count(actor) <= max(most, least)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_a_policy_wants_the_limits_hold(seed: int) -> None:
    """Of hosts with several actors, too; what drains, is being ended, or is somebody else's is left alone."""
    chance, view = random.Random(seed), View()
    for actor in ACTORS:
        rows = np.array([view.actors.row(actor)])
        least = chance.randint(0, 2)
        starting, most = chance.randint(0, 2), chance.choice((0, least + 1, least + 3))
        view.actors.set(rows, least=least, most=most, starting=starting)
        view.room[actor] = {"here": chance.randint(0, 3), "there": chance.randint(0, 3)}
    hosts = [f"h-{number}" for number in range(8)]
    for host in hosts:
        for actor in chance.sample(ACTORS, chance.randint(1, 2)):
            view.instance(view.actors.row(actor), view.hosts.row(host))
        row = view.hosts.row(host)
        for column, odds in (("draining", 0.2), ("killed", 0.2), ("provided", 0.8)):
            view.hosts[column][row] = chance.random() < odds
    usable = {
        host
        for host in hosts
        if view.hosts["provided"][view.hosts.row(host)]
        and not view.hosts["draining"][view.hosts.row(host)]
        and not view.hosts["killed"][view.hosts.row(host)]
    }
    other = chance.choice(ACTORS)
    before = Changes(view)
    before.actors.add(other)
    act = Act(view, "p", "a test", before=before)
    for _ in range(40):
        if chance.random() < 0.5:
            act.kill(chance.choice([*hosts, "h-nowhere", ""]))
        else:
            act.provision(chance.choice([*ACTORS, "nobody"]), chance.choice(("", "here", "there", "nowhere")))
    killed = {one.key.rpartition(".")[2] for one in act.decisions if one.what == "kill"}
    started = Counter(
        (one.key.rpartition(".")[2], one.where) for one in act.decisions if one.what == "provision"
    )
    assert len(killed) == sum(one.what == "kill" for one in act.decisions)
    assert killed <= usable
    for actor in ACTORS:
        row = view.actors.row(actor)
        there, most = running(view, row), int(view.actors["most"][row])
        lost = sum(f"{actor}@{host}" in view.instances for host in killed)
        assert there - lost >= min(there, view.actors["least"][row])
        begun = sum(count for (name, _), count in started.items() if name == actor)
        assert not begun or not most or there + view.actors["starting"][row] + begun <= most
        assert actor != other or (not begun and not lost)
        assert all(
            count <= view.room[actor][where] for (name, where), count in started.items() if name == actor
        )
    assert all(where in {"here", "there"} for _, where in started)
    assert started.total() <= max((max(view.room[actor].values()) for actor, _ in started), default=0)


def test_where_nothing_provisions_it_is_told() -> None:
    """So that whoever follows such a policy hears why nothing happens."""
    act = Act(View(), "p")
    act.provision("llm")
    assert (act.decisions, act.unprovided) == ([], True)


def steady(mean: float, seed: int) -> Callable[[], int]:
    """Calls in the system at random, around a mean."""
    chance = np.random.default_rng(seed)
    return lambda: int(chance.poisson(mean))


@pytest.mark.parametrize("mean", [0.3, 1.0, 1.6, 2.5, 3.3, 5.0, 8.0, 12.0])
@pytest.mark.parametrize("seed", range(2))
def test_a_load_that_only_varies_by_chance_is_never_followed_down_and_up(mean: float, seed: int) -> None:
    """Over half an hour: it finds its number, and once it has taken one away it does not bring it back."""
    play, policy, calls = Play({"llm": (1, 0)}, capacity=20), loading.load("scale"), steady(mean, seed)
    turns = changes(play, policy, [calls() for _ in range(1800)])
    assert turns.count("kill") <= 1
    assert "provision" not in turns[turns.index("kill") :] if "kill" in turns else True
    assert play.count("llm") * 2 >= mean


def changes(play: Play, policy: Policy, loads: list[int]) -> list[str]:
    """What is decided of one actor under a load, look by look."""
    found = []
    for calls in loads:
        play.look({"llm": calls})
        found += [one.what for one in play.decide(policy)]
    return found


def test_scale_follows_a_load_that_stays() -> None:
    """Up within seconds, down after five minutes, one at a time, and to one at the least."""
    play, policy = Play({"llm": (0, 0)}), loading.load("scale")
    assert changes(play, policy, [6] * 30).count("kill") == 0
    assert play.count("llm") == 4
    assert changes(play, policy, [0] * 299) == []
    assert changes(play, policy, [0] * 1000) == ["kill"] * 3
    assert play.count("llm") == 1


def test_scale_at_most_doubles_at_once() -> None:
    """However much waits: what has been started is to be seen first."""
    play, policy = Play({"llm": (1, 0)}, capacity=50), loading.load("scale")
    seen = []
    for _ in range(14):
        play.look({"llm": 1000})
        play.decide(policy)
        seen.append(play.count("llm"))
    assert sorted(set(seen)) == [1, 2, 4, 8]


def test_reassign_takes_from_who_is_idle() -> None:
    """Only where there is no room, from one that has been idle for a minute, and no second one meanwhile."""
    play, policy = Play({"llm": (1, 0), "search": (0, 0)}, capacity=4), loading.load("reassign")
    for _ in range(3):
        play._add("search")
    found = []
    for _ in range(59):
        play.look({"llm": 9})
        found += play.decide(policy)
    assert found == []
    for _ in range(9):
        play.look({"llm": 9})
        found += play.decide(policy)
    assert [one.what for one in found] == ["kill", "provision"]
    assert "llm has a queue" in found[0].reason
    assert (play.count("llm"), play.count("search")) == (2, 2)


def test_scale_follows_the_runs_of_a_workflow() -> None:
    """Those that are driven, and where all drivers are full the requests that nobody has taken."""
    play, policy = Play({FLOW: (1, 0)}), loading.load("scale")
    for _ in range(20):
        play.look({FLOW: 6})
        play.decide(policy)
    assert play.count(FLOW) == 4
    for _ in range(1300):
        play.look({FLOW: 0})
        play.decide(policy)
    assert play.count(FLOW) == 1


def test_requests_count_only_where_drivers_are_full() -> None:
    """What was last heard of them may long be over; a driver that has room takes what there is."""
    play, policy = Play({FLOW: (2, 0)}), loading.load("scale")
    for _ in range(20):
        view = play.look({FLOW: 1})
        view.lanes["waiting"][view.lane("any", view.actors.row(FLOW), 1)] = 50
        assert play.decide(policy) == []


def test_reassign_gives_and_takes_drivers() -> None:
    """As instances of all actors."""
    play, policy = Play({"llm": (1, 0), FLOW: (0, 0)}, capacity=3), loading.load("reassign")
    play._add(FLOW)
    play._add(FLOW)
    found = []
    for _ in range(70):
        play.look({"llm": 9})
        found += play.decide(policy)
    assert [one.what for one in found] == ["kill", "provision"]
    assert (play.count("llm"), play.count(FLOW)) == (2, 1)
    play, policy = Play({"llm": (0, 0), FLOW: (1, 0)}, capacity=3), loading.load("reassign")
    play._add("llm")
    play._add("llm")
    for _ in range(70):
        play.look({FLOW: 9})
        play.decide(policy)
    assert (play.count("llm"), play.count(FLOW)) == (1, 2)


def test_reassign_leaves_who_has_one_or_has_work() -> None:
    """And does nothing for who may have no more."""
    play, policy = (
        Play({"llm": (1, 0), "search": (1, 0), "chart": (0, 0)}, capacity=4),
        loading.load("reassign"),
    )
    play._add("chart")
    play._add("chart")
    for _ in range(200):
        play.look({"llm": 9, "chart": 3})
        assert play.decide(policy) == []
    play = Play({"llm": (1, 1), "search": (3, 0)}, capacity=4)
    for _ in range(200):
        play.look({"llm": 9})
        assert play.decide(policy) == []


@settings(deadline=None)
@given(
    capacity=st.dictionaries(st.sampled_from(("a", "b")), st.fixed_dictionaries({"gpu": st.integers(0, 4)})),
    need=st.sampled_from((0.0, 0.5, 1.0, 3.0)),
    used=st.lists(st.sampled_from((("x", "a"), ("x", "b"), ("y", "a"), ("z", "c")))),
    most=st.integers(-1, 9),
)
def test_room(
    capacity: dict[str, dict[str, float]], need: float, used: list[tuple[str, str]], most: int
) -> None:
    """What is said to fit does fit, and one more does not."""
    needs = {"x": {"gpu": need}, "y": {}}
    found = room({"x": ["a", "b"], "y": ["a"]}, capacity, needs, used, most)
    assert found["y"]["a"] == max(0, most)
    for place, fits in found["x"].items():
        assert 0 <= fits <= max(0, most)
        if place in capacity and need and fits < max(0, most):
            free = capacity[place]["gpu"] - need * used.count(("x", place))
            assert fits * need <= max(0, free) < (fits + 1) * need
        else:
            assert fits == max(0, most) or not need or fits * need <= capacity[place]["gpu"]
    assert room({"x": ["c"]}, {}, needs, [], PLENTY) == {"x": {"c": PLENTY}}
