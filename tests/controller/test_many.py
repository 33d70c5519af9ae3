"""What a round costs when there are many sessions: no policy of the library looks at them one by one."""

from __future__ import annotations

import gc
import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest

from callboard.controller import loading
from callboard.controller.decisions import entry_of
from callboard.controller.policy import Act, Held, Policy
from callboard.controller.reading import State
from callboard.controller.view import View

HOSTS, ACTORS, SLOTS = 4, 3, 8
STATES = (State.RUNNING, State.WAITING, State.SENT)
FEW, MANY = 150, 1_500
SPARE = 60
"""Lines more that may run where there are more sessions: limits that are reached, columns that have grown."""


def board(sessions: int) -> View:
    """A busy board; each session has one call, and a deadline."""
    view, every = View(), np.arange(sessions)
    view.now = lambda: 1e9
    hosts = np.array([view.hosts.row(f"h-{number}") for number in range(HOSTS)])
    actors = np.array([view.actors.row(f"agent{number}") for number in range(ACTORS)])
    for place, host in enumerate(hosts.tolist()):
        for actor in actors.tolist():
            row = view.instance(actor, host)
            busy, waiting = (SLOTS - 1, 0) if place == 0 else (SLOTS, 3 * SLOTS)
            view.instances.set(np.array([row]), slots=SLOTS, busy=busy, mailbox=waiting)
    session, _ = view.sessions.add([f"key{number % 7}/{number}" for number in range(sessions)])
    runs, _ = view.runs.add([f"r{number}" for number in range(sessions)])
    view.runs.set(runs, session=session, driver=hosts[0], deadline=view.now() + 3600 + every)
    rows, _ = view.futures.add([f"r{number}:1" for number in range(sessions)])
    state = np.array(STATES)[every % len(STATES)]
    view.futures.set(
        rows, state=state, call=0, actor=actors[every // 3 % ACTORS], session=session, run=runs, lane=-1,
        executor=np.where(state == State.SENT, -1, hosts[every // 9 % HOSTS]), creator=hosts[0],
        stage=1 + every % 20, made=view.now() - every,
    )  # fmt: skip
    return view


def settle(name: str, policy: Policy, view: View, held: Held) -> None:
    """Decide until all is as the policy wants it."""
    for epoch in range(20):
        act = Act(view, name, "a test", held)
        policy.decide(view, act)
        for decision in act.decisions:
            entry = entry_of(decision, epoch, 1.0, term=1)
            if entry is not None:
                held.put(decision.key, entry)
        if not any(one.what in {"route", "priority"} for one in act.decisions):
            return
    raise AssertionError("it never wants the same twice")


def lines(policy: Policy, view: View, act: Act) -> int:
    """How many lines of Python one round takes."""
    count = 0

    def trace(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    gc.collect()
    gc.disable()  # what earlier tests have left behind would run its own lines, as it is collected
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        policy.decide(view, act)
    finally:
        sys.settrace(before)
        gc.enable()
    return count


@pytest.mark.parametrize("name", loading.names())
def test_a_round_in_which_nothing_changes(name: str) -> None:
    """It takes as many lines for many sessions as for few; what it costs at 131,072 is measured in `make bench`."""
    took = {}
    for sessions in (FEW, MANY):
        view, policy, held = board(sessions), loading.load(name), Held(rank={name: 0})
        view.now = lambda: 1e9
        settle(name, policy, view, held)
        took[sessions] = lines(policy, view, Act(view, name, "a test", held))
    assert took[MANY] <= took[FEW] + SPARE
