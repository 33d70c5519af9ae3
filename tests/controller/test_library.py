"""The policies that come with Callboard, as functions of a view: what holds of all, and what each is for."""

from __future__ import annotations

import ast
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callboard.controller import loading, policies
from callboard.controller.backlog import heaviness
from callboard.controller.policy import MOST_DECISIONS, MOST_PRIORITY, Act
from callboard.controller.reading import State
from callboard.controller.view import View
from callboard.infra import subjects
from callboard.infra.messages.policy import Decision

ACTORS = ("llm", "search", "chart")
FOLDER = Path(policies.__path__[0])


def add(
    view: View,
    session: str,
    *,
    actor: str = "llm",
    host: str = "",
    state: State = State.SENT,
    stage: int = 1,
) -> None:
    """An open future of a session, on a host if one is named."""
    futures = view.futures
    row = futures.row(f"r:{len(futures) + 1}")
    futures.set(
        np.array([row], np.intp),
        state=state,
        call=view.names.row(f"{actor}.call"),
        actor=view.actors.row(actor),
        session=view.sessions.row(session),
        run=-1,
        lane=-1,
        creator=-1,
        executor=view.hosts.row(host) if host else -1,
        stage=stage,
    )


def serve(
    view: View, host: str, *, actor: str = "llm", slots: int = 4, busy: int = 0, mailbox: int = 0
) -> None:
    """A host that runs an actor."""
    row = view.instance(view.actors.row(actor), view.hosts.row(host))
    view.instances.set(np.array([row], np.intp), slots=slots, busy=busy, mailbox=mailbox)


def drive(view: View, host: str, *, busy: int = 0, held: int = 0) -> None:
    """A host that drives runs."""
    actor = view.actors.row("flow")
    view.actors["workflow"][actor] = True
    row = view.instance(actor, view.hosts.row(host))
    view.instances.set(np.array([row], np.intp), busy=busy, mailbox=held, slots=4096, workflow=True)


def begin(view: View, session: str, deadline: float = 0.0) -> None:
    """An open run."""
    row = view.runs.row(f"r{len(view.runs)}")
    view.runs.set(np.array([row], np.intp), session=view.sessions.row(session), driver=-1, deadline=deadline)


def any_view(seed: int, hosts: int, futures: int) -> View:
    """A view of a board on which hosts come, drain, stand by and die."""
    chance, view = random.Random(seed), View()
    names = [f"h-{number}" for number in range(hosts)]
    for host in names:
        for actor in chance.sample(ACTORS, chance.randint(0, len(ACTORS))):
            serve(view, host, actor=actor, slots=chance.randint(0, 4), busy=chance.randint(0, 4),
                  mailbox=chance.randint(0, 9))  # fmt: skip
            row = view.instances.row(f"{actor}@{host}")
            view.instances["standby"][row] = chance.random() < 0.1
        view.hosts["draining"][view.hosts.row(host)] = chance.random() < 0.1
    for _ in range(futures):
        session = f"k{chance.randint(0, 3)}/s {chance.randint(0, 20)}"
        state = chance.choice(list(State))
        on = chance.choice(names) if names and state in {State.WAITING, State.RUNNING} else ""
        add(view, session, actor=chance.choice(ACTORS), host=on, state=state, stage=chance.randint(1, 30))
    for host in names:
        if chance.random() < 0.5:
            drive(view, host, busy=chance.randint(0, 500), held=chance.randint(0, 500))
    for number in range(futures // 2):
        begin(view, f"k{number % 4}/s {number % 21}", view.now() + chance.uniform(-5, 1e6))
    for host in names:
        if chance.random() < 0.2:
            view.host_gone(host)
    return view


def decided(name: str, view: View) -> list[Decision]:
    """What a policy decides in its first round."""
    policy = loading.load(name)
    act = Act(view, name, loading.reason(policy))
    policy.decide(view, act)
    return act.decisions


def usable(view: View) -> set[str]:
    """Instances that take calls."""
    told = view.instances
    return {
        told.keys[row]
        for row in told.rows
        if not told["standby"][row] and not view.hosts["draining"][told["host"][row]]
    }


@pytest.mark.parametrize("name", loading.names())
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), hosts=st.integers(0, 8), futures=st.integers(0, 120))
def test_what_holds_of_all(name: str, seed: int, hosts: int, futures: int) -> None:
    """Never a dead instance, never a session in two places, bounded decisions, each with its reason."""
    view = any_view(seed, hosts, futures)
    found = decided(name, view)
    assert len(found) <= MOST_DECISIONS
    keys = [decision.key for decision in found]
    assert len(keys) == len(set(keys))
    there = usable(view)
    for decision in found:
        assert decision.reason
        assert decision.policy == name
        assert abs(decision.value) <= MOST_PRIORITY
        if decision.what == "migrate":
            (to,) = decision.hosts
            assert f"{decision.key.split('.')[2]}@{to}" in there
            assert to != decision.source
            continue
        if decision.key.startswith(subjects.admission("")):
            assert 0 <= decision.rate < math.inf
            assert decision.key == subjects.admission("flow")
            continue
        place, _, session = decision.key.partition("cb_policy.")[2].partition(".")[2].partition(".")
        if decision.what == "route":
            assert {f"{place}@{host}" for host in decision.hosts} <= there
            assert len(decision.hosts) == 1 or not session
        else:
            assert subjects.session_of(place) in view.sessions


@pytest.mark.parametrize("name", loading.names())
def test_each_cites_its_source_and_is_short(name: str) -> None:
    """At most 15 lines that decide."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text("utf-8"))
    text = ast.get_docstring(tree) or ""
    assert "Source: " in text or "(NALAR's" in text
    decides = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "decide"]
    (decide,) = decides
    assert (decide.end_lineno or 0) - decide.body[1].lineno + 1 <= 15


def values(found: list[Decision]) -> dict[str, int]:
    """The priority of each session that has one."""
    return {
        subjects.session_of(one.key.rpartition("priority.")[2]): one.value
        for one in found
        if one.what == "priority"
    }


def routes(found: list[Decision]) -> dict[str, dict[str, float]]:
    """The hosts of each key."""
    return {one.key.rpartition("route.")[2]: one.hosts for one in found if one.what == "route"}


def test_prefix_cache() -> None:
    """Between the engines that tell of themselves, or all if none does; only of models."""
    view = View()
    for actor in ("llm", "search"):
        for host in ("h-1", "h-2", "h-3"):
            serve(view, host, actor=actor)
    serve(view, "h-1", actor="lone")
    for actor in ("llm", "lone"):
        view.actors["model"][view.actors.row(actor)] = True
    (found,) = decided("prefix_cache", view)
    assert (found.key, found.by) == (subjects.route("llm"), "prefix")
    assert set(found.hosts) == {"h-1", "h-2", "h-3"}
    for host in ("h-1", "h-3"):
        view.instances["engine"][view.instances.row(f"llm@{host}")] = True
    (found,) = decided("prefix_cache", view)
    assert set(found.hosts) == {"h-1", "h-3"}


def test_prefix_cache_is_patient() -> None:
    """An engine that is silent for a moment stays; for longer, it does not."""
    now = [100.0]
    view = View()
    view.now = lambda: now[0]
    for host in ("h-1", "h-2"):
        serve(view, host)
        view.instances["engine"][view.instances.row(f"llm@{host}")] = True
    view.actors["model"][view.actors.row("llm")] = True
    policy = loading.load("prefix_cache")

    def hosts() -> set[str]:
        act = Act(view, "prefix_cache")
        policy.decide(view, act)
        return set(act.decisions[0].hosts)

    assert hosts() == {"h-1", "h-2"}
    view.instances["engine"][view.instances.row("llm@h-2")] = False
    now[0] += 4
    assert hosts() == {"h-1", "h-2"}
    now[0] += 2
    assert hosts() == {"h-1"}


def test_srtf() -> None:
    """What has come far goes first."""
    view = View()
    for session, stage in (("new", 1), ("old", 2), ("old", 5), ("ancient", 99)):
        add(view, session, stage=stage)
    assert values(decided("srtf", view)) == {"old": 4, "ancient": 9}


def test_lpt() -> None:
    """What comes back to a method at a later stage goes first; many calls at one stage are no return."""
    view = View()
    for session, stage in (("wide", 1), ("wide", 1), ("again", 1), ("again", 4), ("again", 7)):
        add(view, session, stage=stage)
    assert values(decided("lpt", view)) == {"again": 2}


def test_plas() -> None:
    """By the seconds that a session's calls have run; a doubling is a step."""
    now = [0.0]
    view = View()
    view.now = lambda: now[0]
    for _ in range(8):
        add(view, "greedy", state=State.RUNNING, host="h")
    add(view, "modest", state=State.RUNNING, host="h")
    add(view, "waiting")
    policy = loading.load("plas")
    policy.decide(view, Act(view, "plas"))
    now[0] = 1.0
    act = Act(view, "plas")
    policy.decide(view, act)
    assert values(act.decisions) == {"greedy": -3}


def test_fair_share() -> None:
    """Who has three times its share waits two steps."""
    view = View()
    for number in range(9):
        add(view, f"big/{number}", state=State.RUNNING, host="h")
    add(view, "small/1")
    add(view, "tiny/1")
    assert set(values(decided("fair_share", view)).values()) == {-2}
    assert all(session.startswith("big/") for session in values(decided("fair_share", view)))


def test_fair_share_goes_by_the_keys_of_runs() -> None:
    """Whatever the sessions are called; a key is the same whether a run or a session has it."""
    view = View()
    for number in range(9):
        add(view, f"chat {number}", state=State.RUNNING, host="h")
        keyed(view, "big")
    add(view, "big/1")
    add(view, "big/2")
    keyed(view, "small")
    add(view, "chat 1")
    keyed(view, "tiny")
    found = values(decided("fair_share", view))
    assert found == {f"chat {number}": -2 for number in range(9) if number != 1} | {"big/1": -2}


def keyed(view: View, key: str) -> None:
    """The call that was added last is of a run with this key."""
    run = view.runs.row(f"r{len(view.futures)}")
    view.runs.set(np.array([run], np.intp), session=-1, driver=-1, key=view.keys.row(key))
    view.futures["run"][view.futures.rows[-1]] = run


def test_least_loaded() -> None:
    """Who has room gets more, for its slots too."""
    view = View()
    serve(view, "full", busy=4, mailbox=9)
    serve(view, "free")
    serve(view, "wide", slots=8, busy=4)
    assert routes(decided("least_loaded", view)) == {"llm": {"full": 4.0, "free": 16.0, "wide": 16.0}}


def test_least_loaded_counts_the_work() -> None:
    """An instance that is busy with long calls has less room than one with as many short ones."""
    view = View()
    for host in ("long", "short"):
        serve(view, host, slots=4, busy=2)
        for number in range(2):
            add(view, f"{host} {number}", host=host, state=State.RUNNING)
            view.futures["call"][view.futures.rows[-1]] = view.names.row(f"llm.{host}")
    assert routes(decided("least_loaded", view)) == {"llm": {"long": 8.0, "short": 8.0}}
    sizes = np.full(1, 100, np.uint32)
    view.runtimes.learn(["llm.long"], sizes, np.array([3.0]))
    assert routes(decided("least_loaded", view)) == {"llm": {"long": 8.0, "short": 8.0}}
    view.runtimes.learn(["llm.short"], sizes, np.array([1.0]))
    assert heaviness(view)[view.instances.rows].tolist() == pytest.approx([1.5, 0.5], rel=0.01)
    assert routes(decided("least_loaded", view)) == {"llm": {"long": 4.0, "short": 12.0}}
    view.host_gone("long")
    assert heaviness(view)[view.instances.rows].tolist() == [1.0]


def test_weighted() -> None:
    """By slots, where there is a choice."""
    view = View()
    serve(view, "a", slots=1)
    serve(view, "b", slots=3)
    serve(view, "a", actor="chart")
    assert routes(decided("weighted", view)) == {"llm": {"a": 1.0, "b": 3.0}}


def test_affinity() -> None:
    """A session stays, and leaves who has too much."""
    view = View()
    serve(view, "full", slots=1, busy=1, mailbox=3)
    serve(view, "free", slots=1)
    add(view, "stays", host="free", state=State.RUNNING)
    add(view, "spills", host="full", state=State.WAITING)
    found = decided("affinity", view)
    assert routes(found) == {"llm.stays": {"free": 1.0}, "llm.spills": {"free": 1.0}}
    assert {one.reason for one in found} == {"it runs there", "where it runs, more waits than can run"}


def test_head_of_line() -> None:
    """One session for each free slot; one whose own call runs stays, and so do all where nobody is idle."""
    view = View()
    serve(view, "full", slots=1, busy=1, mailbox=3)
    serve(view, "free", slots=1)
    for session in ("long", "long", "first", "second"):
        waits = State.RUNNING if not len(view.futures) else State.WAITING
        add(view, session, host="full", state=waits)
    (one,) = decided("head_of_line", view)
    assert (one.key, one.source, one.hosts) == (subjects.state("llm", "first"), "full", {"free": 1.0})
    serve(view, "free", slots=1, busy=1)
    assert decided("head_of_line", view) == []


def test_edf() -> None:
    """The nearest deadline of a session counts; who has none is left alone."""
    view = View()
    view.now = lambda: 1000.0
    for session, left in (
        ("late", -5),
        ("now", 0.5),
        ("soon", 2),
        ("soon", 500),
        ("far", 1e6),
        ("later", 200),
    ):
        begin(view, session, 1000.0 + left)
    begin(view, "never")
    assert values(decided("edf", view)) == {"late": 9, "now": 9, "soon": 8, "later": 2}


@given(st.lists(st.floats(-10, 1e5), min_size=2, max_size=30))
def test_edf_never_turns_two_deadlines_round(left: list[float]) -> None:
    """Whoever has more time has no higher priority."""
    view = View()
    view.now = lambda: 1000.0
    for number, seconds in enumerate(left):
        begin(view, f"s{number}", 1000.0 + seconds)
    found = values(decided("edf", view))
    order = [found.get(f"s{number}", 0) for number in sorted(range(len(left)), key=left.__getitem__)]
    assert order == sorted(order, reverse=True)


class Flow:
    """A workflow, as the policy of admission sees it: so many open and waiting, so many done by now."""

    def __init__(self) -> None:
        self.now, self.view, self.policy = 0.0, View(), loading.load("admission")
        self.view.now = lambda: self.now
        self.limit: float | None = None

    def after(self, seconds: float, *, done: int, busy: int, held: int = 0) -> float | None:
        """The limit once so many more are done."""
        self.now += seconds
        drive(self.view, "h", busy=busy, held=held)
        self.view.actors["done"][self.view.actors.row("flow")] += done
        act = Act(self.view, "admission")
        self.policy.decide(self.view, act)
        for one in act.decisions:
            self.limit = one.rate
        if subjects.admission("flow") in act.claimed and not act.decisions:
            self.limit = None
        return self.limit


def test_admission() -> None:
    """Less than completes where runs take too long, more while some wait and there is time, else no limit."""
    flow = Flow()
    assert flow.after(0, done=0, busy=100) is None
    assert flow.after(10, done=10, busy=999) is None  # too few to say
    assert flow.after(10, done=90, busy=50) is None  # 5 a second: 10 s
    assert flow.after(10, done=100, busy=125, held=3) == 8.0  # 12.5 s
    assert flow.after(10, done=80, busy=1000, held=3) == 4.0  # no less than half
    assert flow.after(10, done=40, busy=4, held=3) == 6.0  # some wait, and it would be quick
    assert flow.after(10, done=60, busy=4) is None
    assert flow.after(10, done=0, busy=0) is None


@given(
    st.lists(
        st.tuples(st.floats(0.1, 100), st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 99))
    )
)
def test_admission_is_bounded(steps: list[tuple[float, int, int, int]]) -> None:
    """Whatever happens: between half and half as much again of what completes, or no limit."""
    flow, since, done = Flow(), -1.0, 0
    for seconds, ended, busy, held in steps:
        since, done = (since + seconds, done + ended) if since >= 0 else (0.0, 0)
        before, limit = flow.limit, flow.after(seconds, done=ended, busy=busy, held=held)
        if limit is not None and limit != before:
            assert 0.5 * done / since - 1e-3 <= limit <= 1.5 * done / since + 1e-3
        if done >= 20 or not (busy or held):
            since, done = 0.0, 0


def test_a_session_has_one_place_in_a_round() -> None:
    """Whatever was decided first for it counts, be it a route or a move."""
    view = View()
    for host in ("a", "b", "c"):
        serve(view, host)
    for session in ("routed", "moved", "twice"):
        add(view, session, host="a", state=State.WAITING)
    act = Act(view, "p", "a test")
    act.route("routed", "llm", "b")
    act.migrate("routed", "a", "c")
    act.migrate("moved", "a", "c")
    act.route("moved", "llm", "b")
    act.migrate("twice", "a", "b")
    act.migrate("twice", "a", "c")
    act.migrate("twice", "a", "h-nowhere")
    act.migrate("unheard of", "a", "b")
    assert [(one.what, *one.hosts) for one in act.decisions] == [
        ("route", "b"),
        ("migrate", "c"),
        ("migrate", "b"),
    ]


def test_names_that_fit_no_subject_are_passed_over() -> None:
    """Anybody may start a run with such a session, or tell of such an actor: that must switch off no policy."""
    view, long = View(), "s" * 2000
    serve(view, "a")
    serve(view, "a", actor="no actor\r\n")
    serve(view, "no host\r\n")
    for session, actor in ((long, "llm"), ("s", "no actor\r\n"), ("s", "llm")):
        add(view, session, actor=actor, host="no host\r\n", state=State.WAITING)
    act = Act(view, "p", "a test")
    act.set_priority(long, 1)
    act.set_priority("s", 1, "no actor\r\n")
    act.route(long, "llm", "a")
    act.route("s", "no actor\r\n", "a")
    act.route("no actor\r\n", ["a"], [1.0])
    act.route("llm", ["a", "no host\r\n"], [1.0, 1.0])
    act.migrate(long, "no host\r\n", "a")
    act.migrate("s", "no host\r\n", "a")
    assert [(one.what, one.key, *one.hosts) for one in act.decisions] == [
        ("route", subjects.route("llm"), "a"),
        ("migrate", subjects.state("llm", "s"), "a"),
    ]
