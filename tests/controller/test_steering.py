"""Policies in a simulation: they see what they see on a board, decide by the same code, and are obeyed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from callboard.controller.programs import Play, Program, Step
from callboard.controller.recording import RecordedCall
from callboard.controller.simulation import Setting, Simulation
from callboard.controller.steering import Steering
from callboard.controller.whatif import ROUTINGS
from callboard.infra.errors import PolicyUnusable
from callboard.infra.messages.policy import Route

FILE = '''
from callboard.controller.policy import Policy
from callboard.controller.reading import State

class Narrow(Policy):
    """One a second."""
    def decide(self, view, act):
        act.admit("flow", 1.0)

class Shut(Policy):
    """Nobody comes in."""
    def decide(self, view, act):
        act.admit("flow", 0)

class Opened(Policy):
    """Nobody comes in at first."""
    def decide(self, view, act):
        act.admit("flow", 0 if view.now() < 1_000_000_005 else None)

class First(Policy):
    """All to the first host."""
    def decide(self, view, act):
        act.route("a", ["h0"], [1.0])

class Odd(Policy):
    """What is odd goes to the second host, as long as it is open."""
    def decide(self, view, act):
        for row in view.sessions.rows:
            name = view.sessions.keys[row]
            if int(name[1:]) % 2:
                act.route(name, "a", "h1")

class Broken(Policy):
    """Fails."""
    def decide(self, view, act):
        raise ZeroDivisionError("no hosts")

class Endless(Policy):
    """Never decides."""
    def decide(self, view, act):
        while True:
            pass

class Learnt(Policy):
    """Knows how long calls take, once one has ended."""
    def decide(self, view, act):
        found = view.runtimes.predict("a", "call")
        if view.now() - 1_000_000_000 > 5:
            assert abs(found.seconds - 2.0) < 0.1 and found.low <= found.seconds <= found.high

class Looks(Policy):
    """Holds what it sees against what can be."""
    def decide(self, view, act):
        on = view.futures["executor"]
        running = view.futures.where(state=State.RUNNING)
        waiting = view.futures.where(state=State.WAITING)
        assert len(running) <= 3 and all(on[running] >= 0) and all(on[waiting] >= 0)
        told = view.instances
        mine = told.where(workflow=False)
        assert told["slots"][mine].sum() == 3 and (told["busy"][mine] <= told["slots"][mine]).all()
        drives = told.where(workflow=True)
        assert told["busy"][drives].sum() <= len(view.runs)
        assert len(view.futures) <= len(view.runs) <= len(view.sessions)
        if 14.5 < view.now() - 1_000_000_000 < 17:
            assert len(view.futures) == len(view.runs) == 0 and len(view.sessions) == 20
            assert view.actors["done"][view.actors.row("a")] == 20
        elif 1 < view.now() - 1_000_000_000 < 12:
            assert len(running) >= 2 and len(waiting) + len(running) <= len(view.futures)
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with policies."""
    path = tmp_path / "own.py"
    path.write_text(FILE)
    return path


def call(run: int, number: int, took: float, *, stage: int = 1, actor: str = "a") -> Step:
    """A call of a run, whose session is its own."""
    recorded = RecordedCall(
        f"r{run}:{number}", actor, f"s{run}", 1, 0, 0.0, 0.0, took, "h0", f"{actor}.call", stage
    )
    return Step(recorded, [], 0.0, Program([], took))


def chain(run: int, at: float, *took: float) -> Play:
    """A run whose calls follow one another, each at a later stage."""
    steps = [call(run, place + 1, seconds, stage=place + 1) for place, seconds in enumerate(took)]
    for place, step in enumerate(steps[1:]):
        step.after = [place]
    return Play(f"r{run}", at, 0.0, Program(steps, 0.0), "flow", f"s{run}")


def wide(run: int, at: float, count: int, took: float) -> Play:
    """A run whose calls are made at once."""
    steps = [call(run, place + 1, took) for place in range(count)]
    return Play(f"r{run}", at, 0.0, Program(steps, 0.0), "flow", f"s{run}")


def simulate(
    plays: Sequence[Play], *slots: int, policy: str | Path = "", routing: str = "late", whole: bool = True
) -> Simulation:
    """Play on one host for each number of slots, under a policy if one is named."""
    there = {("a", f"h{number}"): count for number, count in enumerate(slots)}
    kept = routing == "kept"
    simulation = Simulation(plays, Setting(there, ROUTINGS[routing], 0.001, 0.0 if kept else 0.025, kept))
    if policy:
        by_hand = [Route("a", dict.fromkeys((host for _, host in there), 1.0))] if routing == "spread" else []
        Steering(simulation, [str(policy)], ["flow"], by_hand)
    simulation.run()
    assert (simulation.left == 0) == whole
    return simulation


def mean(simulation: Simulation) -> float:
    """Mean latency of its runs."""
    return sum(simulation.latencies) / len(simulation.latencies)


def test_srtf_shortens_the_mean() -> None:
    """Runs of four calls each that come together: one after the other instead of all in turn."""
    plays = [chain(run, 0.0, *(0.5,) * 4) for run in range(10)]
    without, srtf = simulate(plays, 1), simulate(plays, 1, policy="srtf")
    assert mean(srtf) < 0.8 * mean(without)
    assert srtf.last_end == pytest.approx(without.last_end, rel=0.02)  # the work is the same


def test_lpt_shortens_the_makespan() -> None:
    """A long run that comes back again and again does not wait each time behind many short ones."""
    short = [chain(run, 0.01 if run < 20 else (run - 20) / 2, 1.0) for run in range(1, 100)]
    plays = [chain(0, 0.0, *(1.0,) * 20), *short]
    without, lpt = simulate(plays, 2), simulate(plays, 2, policy="lpt")
    assert lpt.last_end < 0.9 * without.last_end
    assert lpt.used() > without.used()


def test_plas_shortens_the_mean_where_few_runs_have_most_of_the_work() -> None:
    """Short runs go past one that has been served much already."""
    greedy = wide(0, 0.0, 40, 0.5)
    for place, step in enumerate(greedy.program.steps[8:]):  # eight at a time
        step.after = [place]
    plays = [greedy, *(chain(run, 3.0 + run / 2, 0.2) for run in range(1, 30))]
    without, plas = simulate(plays, 1), simulate(plays, 1, policy="plas")
    assert mean(plas) < 0.5 * mean(without)
    assert max(plas.latencies) < 1.3 * max(without.latencies)


def test_plas_and_srtf_change_nothing_where_nothing_waits() -> None:
    """On as many slots as there are calls."""
    plays = [chain(run, run / 10, 0.5, 0.5) for run in range(20)]
    for policy in ("plas", "srtf", "lpt", "fair_share", "edf", "least_loaded", "affinity"):
        assert simulate(plays, 20, policy=policy).latencies == pytest.approx(simulate(plays, 20).latencies)


def test_fair_share_knows_the_keys_of_runs() -> None:
    """One that has begun many runs waits for the only run of another."""
    plays = [chain(run, 0.0, *[1.0] * 6) for run in range(12)]
    plays += [chain(12, 1.0, *[1.0] * 6)]
    latencies = {}
    for keys in (("", ""), ("big", "small")):
        mine = [msgspec.structs.replace(play, key=keys[play.run == "r12"]) for play in plays]
        latencies[keys] = simulate(mine, 4, policy="fair_share").latencies
    assert min(latencies["big", "small"]) < min(latencies["", ""]) - 2.5


def test_sessions_behind_a_long_call_move() -> None:
    """Where hosts keep sessions: those that wait behind another's long call; each is at one place."""
    rng = random.Random(3)
    plays = [chain(run, run / 20, 8.0 if run % 10 == 0 else 0.2, 0.2) for run in range(60)]
    rng.shuffle(plays)
    without = simulate(plays, 1, 1, 1, 1, routing="kept")
    moved = simulate(plays, 1, 1, 1, 1, routing="kept", policy="head_of_line")
    assert (without.migrations, moved.migrations > 0) == (0, True)
    assert mean(moved) < 0.8 * mean(without)
    late = simulate(plays, 1, 1, 1, 1, policy="head_of_line")
    assert late.migrations == 0  # nobody keeps anything there


def test_idle_hosts_take_whole_sessions() -> None:
    """Where hosts keep sessions: one that is at rest, with all that waits of it; not one whose call runs."""
    plays = [chain(run, run / 20, 8.0 if run % 10 == 0 else 0.2, 0.2) for run in range(60)]
    there = {("a", f"h{number}"): 1 for number in range(4)}
    taken = Simulation(plays, Setting(there, ROUTINGS["kept"], 0.001, keeps=True))
    taken.run()
    assert taken.left == 0
    assert taken.migrations > 0
    assert mean(taken) < 0.8 * mean(simulate(plays, 1, 1, 1, 1, routing="kept"))
    alone = Simulation([wide(1, 0.0, 4, 1.0)], Setting(there, ROUTINGS["kept"], 0.001, keeps=True))
    alone.run()
    assert alone.migrations == 0
    assert alone.last_end == pytest.approx(4.0, abs=0.1)


def test_a_kept_session_has_one_call_at_a_time() -> None:
    """Its calls run one after the other, whatever is free; those of others meanwhile."""
    assert simulate([wide(1, 0.0, 4, 1.0)], 4, 4, routing="kept").last_end == pytest.approx(4.0, abs=0.1)
    both = simulate([wide(1, 0.0, 4, 1.0), wide(2, 0.0, 4, 1.0)], 8, routing="kept")
    assert both.last_end == pytest.approx(4.0, abs=0.1)


def test_routes_of_policies_are_followed(file: Path) -> None:
    """Of all calls, and of single sessions; not where a person has set a route."""
    plays = [chain(run, 1.0 + run / 100, 1.0) for run in range(40)]
    for policy, free in (("First", 0.0), ("Odd", 0.45)):
        steered = Simulation(plays, Setting({("a", "h0"): 40, ("a", "h1"): 40}, ROUTINGS["late"], 0.001, 0.0))
        Steering(steered, [f"{file}:{policy}"], ["flow"], [])
        steered.run()
        busy = {member.host: member.busy for member in steered.members}
        assert busy["h1"] >= free * 40
        if policy == "First":
            assert busy["h1"] == 0
    spread = simulate(plays, 1, 1, policy=f"{file}:First", routing="spread")
    assert all(member.busy > 10 for member in spread.members)


def test_limits_of_policies_are_followed(file: Path) -> None:
    """Latencies count from when a request came, the time that it waits to be accepted included."""
    plays = [chain(run, 2.0, 0.1) for run in range(10)]
    narrow = simulate(plays, 10, policy=f"{file}:Narrow")
    assert max(narrow.latencies) == pytest.approx(9.1, abs=0.1)
    opened = simulate(plays, 10, policy=f"{file}:Opened")
    assert min(opened.latencies) == pytest.approx(3.1, abs=0.3)
    assert simulate(plays, 10, policy=f"{file}:Shut", whole=False).left == 10


def test_admission_keeps_runs_short() -> None:
    """More comes than can be done: from being accepted, a run takes about as long as is allowed."""
    rng, at, plays = random.Random(5), 0.0, []
    for run in range(1500):
        at += rng.expovariate(20.0)
        plays.append(chain(run, at, 0.1))
    steered = Simulation(plays, Setting({("a", "h0"): 1}, ROUTINGS["late"], 0.001))
    steering = Steering(steered, ["admission"], ["flow"], [])
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, len(plays) - steered.left - steered.waiting("flow"))
        if steered.left and steered.clock.now < 70:
            begun = sum(1 for play in plays if play.at <= steered.clock.now) - steered.waiting("flow")
            opened.append(begun - (len(plays) - steered.left))
            steered.clock.after(1.0, look)

    opened: list[int] = []
    steered.clock.after(30.0, look)
    steered.run()
    assert steering.decisions > 3
    assert steered.left == 0
    assert max(opened) < 200  # at 10 a second for 10 s; without a limit there would be 350 by then
    assert sum(opened) / len(opened) == pytest.approx(100, rel=0.4)


def test_the_view_is_that_of_a_board(file: Path) -> None:
    """What runs, waits and is open, as told four times a second."""
    plays = [chain(run, run / 20, 2.0) for run in range(20)]
    simulate([*plays, chain(99, 17.0, 0.1)], 2, 1, policy=f"{file}:Looks")


def test_how_long_calls_take_is_learnt(file: Path) -> None:
    """As by the controller that leads."""
    simulate([chain(run, 10.0 * run, 2.0) for run in range(20)], 1, policy=f"{file}:Learnt")


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        ("Broken", "ZeroDivisionError: no hosts"),
        ("Nobody", "no class"),
        ("Endless", "it has not decided within 0.5 s"),
    ],
)
def test_one_that_cannot_be_simulated_is_told(policy: str, problem: str, file: Path) -> None:
    """With its name and what is wrong; the others are not played without it."""
    with pytest.raises(PolicyUnusable, match=problem):
        simulate([chain(1, 0.0, 1.0)], 1, policy=f"{file}:{policy}")
