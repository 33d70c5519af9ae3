"""Programs of recorded runs: which calls follow which, and how long after them."""

from __future__ import annotations

import pytest

from callboard.controller.programs import Play, programs
from callboard.controller.recording import Recorded, RecordedCall, RecordedRun


def call(future: str, stored: float, ended: float) -> RecordedCall:
    """A call that started at once."""
    return RecordedCall(future, "a", "s", 1, 0, stored, stored, ended, "h1")


def play(*calls: RecordedCall, took: float = 10.0) -> Play:
    """The program of one run."""
    (found,) = programs(Recorded(list(calls), [RecordedRun("r", "w", 110.0, took)], began=50.0))
    return found


def test_one_after_the_other() -> None:
    """Each follows the one before, as long after it as then; what is left of the run is before and after."""
    found = play(call("r:1", 101, 103), call("r:2", 104, 108), took=9.0).program
    assert [step.after for step in found.steps] == [[], [0]]
    assert [step.think for step in found.steps] == [1.0, 1.0]
    assert found.tail == 1.0


def test_what_is_gathered() -> None:
    """A call after a fan-out follows all of it, whichever ended last then."""
    fan = [call(f"r:{number}", 100 + number / 1e4, 101 + number) for number in range(3)]
    found = play(*fan, call("r:4", 103.5, 104), call("r:5", 103.501, 105)).program
    assert [step.after for step in found.steps] == [[], [], [], [0, 1, 2], [0, 1, 2]]
    assert found.steps[3].after is found.steps[4].after


def test_chains_beside_each_other() -> None:
    """While one of those made together still runs, the next follows the one that has ended."""
    found = play(call("r:1", 100, 101), call("r:2", 100.001, 105), call("r:3", 101.1, 102)).program
    assert [step.after for step in found.steps] == [[], [], [0]]


def test_calls_of_calls() -> None:
    """They are steps of the call that made them, and attempts of one call are calls."""
    found = play(call("r:1", 100, 108), call("r:1.1", 101, 103), call("r:1.1#2", 104, 107)).program
    (step,) = found.steps
    assert [inner.call.future for inner in step.program.steps] == ["r:1.1", "r:1.1#2"]
    assert [inner.after for inner in step.program.steps] == [[], [0]]
    assert (step.program.steps[0].think, step.program.tail) == (1.0, 1.0)


def test_runs_by_their_beginnings() -> None:
    """In seconds after the first; those that had begun before the recording are left out."""
    runs = [RecordedRun(f"r{took}", "w", 100.0, float(took)) for took in (1, 3, 90)]
    found = programs(Recorded([], runs, began=50.0))
    assert [(one.run, one.at, one.took) for one in found] == [("r3", 0.0, 3.0), ("r1", 2.0, 1.0)]


@pytest.mark.timeout(20)
def test_a_wide_fan_out_is_read_quickly() -> None:
    """Calls that follow the same share one list."""
    first = [call(f"r:{number}", 100 + number / 1e6, 101 + number / 1e6) for number in range(10_000)]
    second = [call(f"r:{number}", 102 + number / 1e6, 103) for number in range(10_000, 20_000)]
    found = play(*first, *second).program
    assert all(step.after is found.steps[10_000].after for step in found.steps[10_000:])
    assert len(found.steps[-1].after) == 10_000
