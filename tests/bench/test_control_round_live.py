import numpy as np
import pytest

from bench.cases.control_round_live import turn, turns
from bench.reports import STAGES, Source
from bench.timed_controller import Done
from callboard.controller.deciding import Took
from callboard.controller.view import View

HOST = "h-0"


def test_the_round_is_all_but_the_wait_for_it() -> None:
    """From the first report that is read until all is stored, without the time in which nothing was done."""
    done = Done(4, reads=[(10.0, 10.002), (10.003, 10.004)], rounds=[Took(10.104, 0.003, 0.006, 100)])
    took = turn(done, published=9.999, heard=10.112)
    assert took.stored == pytest.approx(0.113)
    assert took.waiting == pytest.approx(0.100)
    assert took.round == pytest.approx(0.013)
    assert took.collecting == pytest.approx(0.004)
    assert took.reading == pytest.approx(0.003)
    assert (took.deciding, took.storing) == (0.003, 0.006)


def test_two_rounds_over_one_change_count_both() -> None:
    """Where a round has begun before all reports were there, the wait for the next one is no round either."""
    reads = [(10.0, 10.002), (10.010, 10.011)]
    rounds = [Took(10.003, 0.003, 0.006, 40), Took(10.262, 0.002, 0.004, 60)]
    took = turn(Done(4, reads, rounds), published=9.999, heard=10.270)
    assert took.waiting == pytest.approx(0.001 + 0.250)
    assert took.round == pytest.approx(0.268 - 0.251)


def test_what_a_source_tells_is_what_is_open() -> None:
    """A step ends a future of each run and makes one of its next stage; a whole state tells the same."""
    source, steps = Source(HOST, per_run=10), {7: 0, 8: 0}
    seen, anew = View(), View()
    for body in source.whole(steps, steps):
        seen.read(HOST, body)
    for step in range(2):
        seen.read(HOST, source.stepped({7: step}))
    (whole,) = source.whole(steps, steps | {7: 2})
    anew.read(HOST, whole)
    assert _stages(seen) == _stages(anew)
    assert len(seen.futures) == 20
    assert max(_stages(seen).values()) == STAGES + 1


def _stages(view: View) -> dict[str, int]:
    futures = view.futures
    rows = np.flatnonzero(futures["alive"])
    return {futures.keys[row]: int(futures["stage"][row]) for row in rows}


async def test_changes_of_64_hosts_are_decided_by_a_controller() -> None:
    """Four processes play the hosts; each of their changes comes to 100 decisions, with the times of all parts."""
    for one in await turns(8192, 64, changes=2):
        assert one.stored > one.deciding > 0
        assert one.storing > 0
        assert one.round >= one.collecting + one.deciding + one.storing - 1e-9
        assert one.reading > 0
        assert one.waiting >= 0
