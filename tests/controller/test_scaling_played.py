"""Hosts that policies start and end in a simulation: they take a while, drain, keep the limits, and cost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.controller.test_flapping import STRETCHED, read
from tests.controller.test_steering import chain, wide

from callboard.controller.programs import Play
from callboard.controller.recording import Recorded
from callboard.controller.simulated_fleet import Scaling, Stay, counts, host_seconds
from callboard.controller.simulation import Setting, Simulation
from callboard.controller.steering import Steering
from callboard.controller.whatif import ROUTINGS, Scenario, WhatIf
from callboard.infra.messages.registry import ActorInfo

FILE = '''
import random

from callboard.controller.changes import running
from callboard.controller.policy import Policy

def looks(view):
    return view.now() - 1_000_000_000

class Four(Policy):
    """Four hosts at once."""
    def decide(self, view, act):
        row = view.actors.row("a")
        for _ in range(running(view, row) + view.actors["starting"][row], 4):
            act.provision("a")

class Greedy(Policy):
    """Always one more."""
    def decide(self, view, act):
        act.provision("a")

class Ends(Policy):
    """The first host ends after a while."""
    def decide(self, view, act):
        if looks(view) > 1:
            act.kill("h0")

class Idle(Policy):
    """Nothing."""
    def decide(self, view, act):
        pass

class Wild(Policy):
    """Anything, at any time; towards the end there is somebody for everybody."""
    every = 0.0
    def __init__(self):
        self.rng = random.Random(7)
    def decide(self, view, act):
        for actor in ("a", "b"):
            if self.rng.random() < 0.3:
                act.provision(actor)
        for row in view.hosts.rows:
            if self.rng.random() < 0.1:
                act.kill(view.hosts.keys[row])
        for row in view.sessions.rows:
            if self.rng.random() < 0.05:
                hosts = [view.hosts.keys[one] for one in view.hosts.rows]
                act.migrate(view.sessions.keys[row], *self.rng.choices(hosts, k=2))
                act.route(view.sessions.keys[row], "a", self.rng.choice([*hosts, ""]))
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with policies."""
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return path


def declared(**limits: dict[str, Any]) -> dict[str, ActorInfo]:
    """Actors with these directives."""
    return {actor: ActorInfo(actor, "tool", "", directives=one) for actor, one in limits.items()}


def play(
    plays: Sequence[Play],
    policy: str,
    slots: dict[tuple[str, str], int],
    routing: str = "late",
    **scaling: Any,
) -> tuple[Simulation, Steering]:
    """Under a policy, to the end of all runs."""
    kept = routing == "kept"
    simulation = Simulation(plays, Setting(slots, ROUTINGS[routing], 0.001, keeps=kept))
    steering = Steering(simulation, [policy], ["flow"], [], Scaling(**scaling))
    simulation.run()
    assert simulation.left == 0
    return simulation, steering


ONE = {("a", "h0"): 1}


def test_a_host_that_is_started_works_after_a_while(file: Path) -> None:
    """Then it takes what waits; it costs from when it was asked for."""
    plays = [chain(run, 0.0, 10.0) for run in range(4)]
    simulation, steering = play(plays, f"{file}:Four", ONE, startup=5.0)
    assert simulation.last_end == pytest.approx(15.0, abs=0.6)
    stays = steering.fleet.stays
    assert counts(stays, simulation.last_end) == (1, 4)
    assert [stay.began - stay.asked for stay in stays.values()] == pytest.approx([0.0, 5.0, 5.0, 5.0])
    assert host_seconds(stays, simulation.last_end) == pytest.approx(60.0, abs=3)
    assert simulation.used() == pytest.approx(40 / 45, abs=0.05)
    late, _ = play(plays, f"{file}:Four", ONE, startup=35.0)
    assert late.last_end == pytest.approx(40.0, abs=0.6)


@pytest.mark.parametrize(
    ("scaling", "most"),
    [
        ({"declared": declared(a={"max_instances": 3})}, 3),
        ({"most": 4}, 4),
        ({"declared": declared(a={"resources": {"gpu": 2.0}}), "capacity": {"gpu": 5.0}}, 2),
        ({"declared": declared(a={"resources": {"gpu": 2.0}}), "capacity": {"gpu": 1.0}}, 1),
        ({"declared": declared(a={"resources": {"cpu": 1.0}}), "most": 5}, 5),
    ],
)
def test_limits_are_those_of_a_board(scaling: dict[str, Any], most: int, file: Path) -> None:
    """``max_instances``, hosts, and resources; those that still start count."""
    plays = [chain(run, run / 10, 1.0) for run in range(60)]
    simulation, steering = play(plays, f"{file}:Greedy", ONE, startup=2.0, **scaling)
    assert counts(steering.fleet.stays, simulation.last_end)[1] == most


def test_min_instances_are_kept(file: Path) -> None:
    """Whatever policies want: more are started, and none is ended."""
    plays = [chain(run, run / 10, 1.0) for run in range(60)]
    least = declared(a={"min_instances": 3})
    simulation, steering = play(plays, f"{file}:Idle", ONE, declared=least, startup=1.0)
    assert counts(steering.fleet.stays, simulation.last_end) == (1, 3)
    simulation, steering = play(plays, f"{file}:Ends", {("a", f"h{n}"): 1 for n in range(3)}, declared=least)
    assert counts(steering.fleet.stays, simulation.last_end) == (3, 3)


def test_a_host_that_ends_drains(file: Path) -> None:
    """What runs there ends there, and nothing begins any more; what waits there goes to others."""
    plays = [chain(run, run / 100, 3.0) for run in range(8)]
    two = {("a", "h0"): 1, ("a", "h1"): 1}
    for routing in ("late", "spread"):
        simulation, steering = play(plays, f"{file}:Ends", two, routing)
        stay = steering.fleet.stays["h0"]
        assert stay.ended == pytest.approx(3.0, abs=0.1)
        assert simulation.last_end == pytest.approx(21.0, abs=0.3)
        assert simulation.used() == pytest.approx(1.0, abs=0.03)
        assert host_seconds(steering.fleet.stays, simulation.last_end) == pytest.approx(24.0, abs=0.3)


def test_a_call_that_makes_calls_ends_where_it_is(file: Path) -> None:
    """Its own calls go to others meanwhile."""
    outer = chain(1, 0.0, 0.5)
    outer.program.steps[0].program.steps = chain(1, 0.0, 4.0).program.steps
    two = {("a", "h0"): 1, ("a", "h1"): 1}
    busy = [chain(run, 0.0, 2.0) for run in (2, 3)]
    simulation, steering = play([outer, *busy], f"{file}:Ends", two)
    assert steering.fleet.stays["h0"].ended < 10
    assert simulation.last_end == pytest.approx(6.5, abs=2.1)


def test_sessions_leave_a_host_that_ends(file: Path) -> None:
    """Where hosts keep sessions: at rest at once, else when its call has ended; its calls never run at once."""
    plays = [wide(run, 0.0, 6, 1.0) for run in range(6)]
    hosts = {("a", f"h{number}"): 2 for number in range(3)}
    simulation, steering = play(plays, f"{file}:Ends", hosts, "kept")
    assert simulation.migrations > 0
    assert steering.fleet.stays["h0"].ended < 4
    assert simulation.last_end >= 6.0


@pytest.mark.parametrize("routing", ["late", "kept"])
def test_when_nobody_is_left_calls_wait_for_the_next(routing: str, file: Path) -> None:
    """In the shared lane, until a policy starts somebody."""
    together = file.with_name("both.py")
    together.write_text(
        FILE.replace("looks(view) > 1", "looks(view) > 1 and 'h0' in view.hosts").replace(
            "class Ends(Policy):", "class Gap(Policy):"
        )
        + '''
class EndsThenStarts(Gap):
    """Nobody for ten seconds."""
    def decide(self, view, act):
        super().decide(view, act)
        row = view.actors.row("a")
        if looks(view) > 10 and not running(view, row) + view.actors["starting"][row]:
            act.provision("a")
'''
    )
    plays = [chain(run, run / 2, 1.0) for run in range(6)]
    simulation, steering = play(plays, f"{together}:EndsThenStarts", ONE, routing, startup=2.0)
    assert counts(steering.fleet.stays, simulation.last_end) == (0, 1)
    assert simulation.last_end > 12
    assert simulation.last_end < 20


@pytest.mark.parametrize("routing", ["late", "kept", "sticky", "spread"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_a_policy_wants_all_runs_end(routing: str, seed: int, file: Path) -> None:
    """Under hosts that come and go at random the limits hold, no slot is used twice, and no call is lost."""
    rng = random.Random(seed)
    plays = []
    for run in range(60):
        one = chain(run, rng.uniform(0, 40), *(rng.expovariate(2.0) for _ in range(3)))
        one.program.steps[1].call = msgspec.structs.replace(one.program.steps[1].call, actor="b")
        plays.append(one)
    slots = {("a", "h0"): 2, ("b", "h1"): 1, ("a", "h2"): 1}
    limits = declared(a={"min_instances": 1, "max_instances": 4}, b={"min_instances": 1, "max_instances": 2})
    simulation, steering = play(plays, f"{file}:Wild", slots, routing, declared=limits, startup=1.0, most=5)
    stays = steering.fleet.stays
    assert len(stays) > 6
    assert any(stay.ended < simulation.last_end for stay in stays.values())
    assert counts(stays, simulation.last_end)[1] <= 5 + 2  # those that drain still count
    work = sum(step.call.ended for one in plays for step in one.program.steps)
    assert simulation.busy() == pytest.approx(work)
    assert 0 < simulation.used() <= 1


def stretched() -> Recorded:
    """The recorded load whose hot branch shifts, thirty times as slowly, one host for each actor."""
    found = read()

    def at(seconds: float) -> float:
        return found.began + (seconds - found.began) * STRETCHED

    calls = [
        msgspec.structs.replace(one, stored=at(one.stored), started=at(one.started), ended=at(one.ended))
        for one in found.calls
    ]
    runs = [msgspec.structs.replace(one, told=at(one.told), took=one.took * STRETCHED) for one in found.runs]
    slots = {("chat", "h0"): 1, ("code", "h1"): 1}
    return Recorded(calls, runs, slots, began=found.began, ended=at(found.ended))


def test_scale_on_a_recorded_load() -> None:
    """It is nearly as fast as with as many hosts as it has at most all the time, and costs less."""
    playing = WhatIf(stretched())
    few = playing.play(Scenario())
    scaled = playing.play(Scenario(policies=("scale",)))
    assert few.left == scaled.left == 0
    assert (few.started, few.fewest, few.most) == (0, 2, 2)
    assert scaled.started > 2
    assert scaled.ended > 0
    assert scaled.p99 < few.p99 / 2
    assert scaled.mean < few.mean / 2
    assert scaled.host_seconds < scaled.most * scaled.makespan * 0.9


def test_reassign_on_a_recorded_load() -> None:
    """With no room for more, who is idle gives to who has a queue: at the same cost most runs are faster."""
    recorded = stretched()
    recorded.slots |= {("chat", "h2"): 1, ("code", "h3"): 1}
    playing = WhatIf(recorded)
    fixed = playing.play(Scenario())
    moved = playing.play(Scenario(policies=("reassign",), most=4))
    assert moved.started == moved.ended > 0
    assert moved.most <= 4
    assert moved.p50 < 0.8 * fixed.p50
    assert moved.makespan < fixed.makespan
    assert moved.host_seconds == pytest.approx(4 * moved.makespan, rel=0.1)


def test_what_hosts_cost() -> None:
    """From when they were asked for until they were gone, or until the end."""
    stays = {"h0": Stay(0.0, 0.0), "h1": Stay(0.0, 0.0, 4.0), "n1": Stay(2.0, 5.0), "n2": Stay(11.0, 14.0)}
    assert host_seconds(stays, 10.0) == 10 + 4 + 8
    assert counts(stays, 10.0) == (1, 2)
    assert counts({}, 10.0) == (0, 0)


@pytest.mark.parametrize(("directives", "serve"), [({}, 3), ({"max_instances": 2}, 2)])
def test_hosts_above_the_maximum_stand_by(directives: dict[str, Any], serve: int) -> None:
    """Also if more are tried than there may be."""
    recorded = stretched()
    recorded.slots = {("chat", f"h{number}"): 1 for number in range(3)} | {("code", "h9"): 9}
    recorded.declared = declared(chat=directives)
    playing = WhatIf(recorded)
    assert playing.play(Scenario()).most == serve + 1
    assert playing.play(Scenario(hosts=3)).most == 3
