"""The simulation: queues as theory knows them, and what lives by the same rules as the live system."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest

from callboard.controller.programs import Play, Program, Step
from callboard.controller.recording import RecordedCall
from callboard.controller.simulation import Place, Setting, Simulation
from callboard.controller.whatif import ROUTINGS


def step(took: float, *inner: Step, session: str = "s", band: int = 1, future: str = "r:1") -> Step:
    """A call that takes so long, or makes calls first."""
    recorded = RecordedCall(future, "a", session, band, 0, 0.0, 0.0, took, "h1")
    return Step(recorded, [], 0.0, Program(list(inner), took))


def plays(*steps: tuple[float, Step]) -> list[Play]:
    """Runs with one call each."""
    return [Play(f"r{place}", at, 0.0, Program([one], 0.0)) for place, (at, one) in enumerate(steps)]


def simulate(
    runs: Sequence[Play], *slots: int, place: Place = ROUTINGS["late"], hop: float = 0.0, steal: float = 0.0
) -> Simulation:
    """Play on one host for each number of slots."""
    there = {("a", f"h{number}"): count for number, count in enumerate(slots)}
    simulation = Simulation(runs, Setting(there, place, hop, steal))
    simulation.run()
    assert len(simulation.latencies) == len(runs)
    return simulation


def test_first_come_first_served() -> None:
    """Calls that come while the one slot is taken wait for it."""
    found = simulate(plays((0.0, step(1.0)), (0.5, step(1.0)), (0.6, step(1.0)), (9.0, step(1.0))), 1)
    assert found.latencies == pytest.approx([1.0, 1.5, 2.4, 1.0])
    assert (found.last_end, found.used()) == pytest.approx((10.0, 0.4))


@pytest.mark.parametrize(("slots", "load"), [((1,), 0.7), ((4,), 0.8), ((2, 2), 0.8), ((1, 1, 1, 1), 0.8)])
def test_waits_are_those_of_theory(slots: tuple[int, ...], load: float) -> None:
    """Many exponential calls wait as long as Erlang's formula says, on however many hosts."""
    rng, at, count = random.Random(7), 0.0, sum(slots)
    runs: list[tuple[float, Step]] = []
    for _ in range(60_000):
        at += rng.expovariate(load * count)
        runs.append((at, step(rng.expovariate(1.0))))
    found = simulate(plays(*runs), *slots)
    mean = sum(found.latencies) / len(found.latencies)
    assert mean == pytest.approx(1.0 + erlang(count, load * count), rel=0.05)
    assert found.used() == pytest.approx(load, rel=0.02)


def erlang(slots: int, offered: float) -> float:
    """Mean wait in units of the mean time of a call (Erlang C)."""
    below = sum(offered**k / math.factorial(k) for k in range(slots))
    full = offered**slots / math.factorial(slots) * slots / (slots - offered)
    return full / (below + full) / (slots - offered)


def test_urgent_calls_go_first() -> None:
    """Of those that wait, the lane of the most urgent band is asked first."""
    found = simulate(plays((0.0, step(1.0)), (0.1, step(1.0, band=2)), (0.2, step(1.0, band=0))), 1)
    assert found.latencies == pytest.approx([1.0, 1.8, 2.9])


def test_a_call_that_waits_for_its_own_lends_its_slot() -> None:
    """So that calls may be deeper than there are slots."""
    inner = step(1.0, future="r:1.1")
    found = simulate(plays((0.0, step(0.5, inner))), 1)
    assert found.latencies == pytest.approx([1.5])
    assert found.used() == pytest.approx(1.0)


def test_steps_wait_for_all_that_they_follow() -> None:
    """A gathered fan-out, where another one ends last than did then."""
    both = [0, 1]
    first, second, last = step(3.0), step(1.0), step(1.0)
    last.after, last.think = both, 0.25
    runs = [Play("r", 0.0, 0.0, Program([first, second, last], 0.5))]
    assert simulate(runs, 2).latencies == pytest.approx([4.75])
    assert simulate(runs, 1).latencies == pytest.approx([5.75])


@pytest.mark.parametrize("routing", ["spread", "sticky"])
def test_routes_are_those_of_the_live_system(routing: str) -> None:
    """Calls wait for their host, though another one is idle; unless that takes them."""
    many = [(number / 10, step(1.0, session="anna", future=f"r{number % 2}:1")) for number in range(20)]
    place = ROUTINGS[routing]
    there = {place("a", "anna", f"r{number}:1", ["h0", "h1"]) for number in range(2)}
    fixed = simulate(plays(*many), 1, 1, place=place)
    assert fixed.last_end == pytest.approx(20.0 if len(there) == 1 else 10.1, abs=0.2)
    stolen = simulate(plays(*many), 1, 1, place=place, steal=0.025)
    assert stolen.last_end == pytest.approx(10.0, abs=1.1)


def test_the_way_to_the_server_takes_time() -> None:
    """An idle host is one way off. One that asks anew looks into the most urgent lane first, then the next."""
    found = simulate(plays((0.5, step(1.0)), (0.6, step(1.0))), 1, hop=0.01)
    assert found.latencies == pytest.approx([1.01, 0.91 + 4 * 0.01 + 1.0])
