"""What-if: what hosts have told of is read, and played as it was, or otherwise."""

from __future__ import annotations

import asyncio
from array import array
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.board import Board
from tests.support.waiting import eventually

from callboard import tool, workflow
from callboard.controller import recording
from callboard.controller.recording import Recorded, RecordedCall, RecordedRun
from callboard.controller.whatif import Scenario, WhatIf
from callboard.infra.errors import RecordingInvalid
from callboard.infra.messages.telemetry import Ended, Made, Queues, Report, RunsEnded

TOOK = 0.05
RUNS = 30


@tool(concurrency=2)
async def works(number: int) -> int:
    """Take a time."""
    await asyncio.sleep(TOOK)
    return number


@workflow
async def gathers() -> int:
    """Two calls at once, then one."""
    return await works(sum(await asyncio.gather(works(1), works(2))))


async def told(board: Board) -> list[Report]:
    """What two hosts tell of some runs at once, each of three calls."""
    await board.host(works, gathers, telemetry_every=0.05, steal_after=0.0)
    await board.host(works, telemetry_every=0.05, steal_after=0.0)
    await asyncio.gather(*(board.run(gathers) for _ in range(RUNS)))
    node = await board.node()

    async def all_of_it() -> list[Report]:
        found = await recording.from_stream(node)
        runs = sum(len(report.runs_ended.run) for report in found if report.runs_ended)
        calls = sum(len(report.ended.future) for report in found if report.ended)
        return found if (runs, calls) == (RUNS, 3 * RUNS) else []

    return await eventually(all_of_it)


async def test_what_was_told_is_played(board: Board, tmp_path: Path) -> None:
    """From the stream or a file: all runs and slots; no slot too many is used, and more hosts make it quicker."""
    reports = await told(board)
    recording.write_file(tmp_path / "file", reports)
    assert recording.read_file(tmp_path / "file") == reports
    recorded = recording.read(reports, "here")
    assert (len(recorded.runs), len(recorded.calls), recorded.missing) == (RUNS, 3 * RUNS, 0)
    playing = WhatIf(recorded)
    assert playing.left_out == 0
    assert sorted(playing.slots.values()) == [2, 2]
    steps = [step for play in playing.plays for step in play.program.steps]
    assert [step.after for step in steps] == [[], [], [0, 1]] * RUNS
    assert all(step.call.ended - step.call.started >= TOOK for step in steps)
    one, two, many = (playing.play(Scenario(hosts=count)) for count in (1, 2, RUNS))
    assert playing.play(Scenario()) == two
    assert one.runs == two.runs == many.runs == playing.measured().runs == RUNS
    assert one.makespan >= 3 * RUNS * TOOK / 2
    assert one.mean > two.mean > many.mean >= 2 * TOOK
    assert 1 >= one.used >= two.used > 0
    busy = sum(call.ended - call.started for call in recorded.calls)
    assert playing.measured().used == pytest.approx(busy / (4 * playing.measured().makespan))
    assert playing.play(Scenario(slots={"works": 3 * RUNS})).mean <= two.mean
    assert playing.play(Scenario(load=0.001)).p50 <= two.p50


def test_the_time_of_a_slot_that_was_lent_is_not_used() -> None:
    """A call of 10 s waits 4 s for two calls at once, in 20 s of three slots."""
    began, calls = 1000.0, []
    for future, actor, at, took in (
        ("r:1", "outer", 0.0, 10.0),
        ("r:1.1", "inner", 3.0, 4.0),
        ("r:1.2", "inner", 4.0, 2.0),
        ("r:2", "outer", 19.0, 1.0),
    ):
        start = began + at
        calls.append(RecordedCall(future, actor, "r", 1, 0, start, start, start + took, "h"))
    recorded = Recorded(
        calls, [RecordedRun("r", "flow", began + 20, 20.0)], {("outer", "h"): 1, ("inner", "h"): 2}
    )
    recorded.heard = {"h": (began, began + 20)}
    recorded.began, recorded.ended, recorded.moved = began - 1, began + 20, 3
    measured = WhatIf(recorded).measured()
    assert measured.used == pytest.approx((6 + 4 + 2 + 1) / 60)
    assert measured.migrations == 3


async def test_rubbish_in_the_stream_is_left_out(board: Board) -> None:
    """Anybody may publish there."""
    node = await board.node()
    for body in (b"", b"\xc1", b"rubbish"):
        await node.store.stored("cb.telemetry.nobody", body)
    assert await recording.from_stream(node) == []


def report(sequence: int, **more: Any) -> Report:
    """A report of a host."""
    return Report("h1", sequence, 100.0 + sequence, **more)


ENDED = RunsEnded(["r"], took=b"\0\0\x80?", calls=bytes(4), workflow=bytes(4), status=b"\1\0\0\0")
NAMES = ["w", "completed"]


def test_lost_reports_are_counted() -> None:
    """By their numbers; what came before the first one is not known of."""
    reports = [report(5), report(6), report(9, names=NAMES, runs_ended=ENDED)]
    found = recording.read(reports, "here")
    assert found.missing == 2
    assert [(run.run, run.took) for run in found.runs] == [("r", 1.0)]


def test_limits_of_instances_are_read() -> None:
    """Of actors, not of workflows; recordings of before they were told have none."""
    numbers = {"slots": bytes([2, 0, 0, 0] * 2), "workflow": b"\0\1"}
    queues = Queues(actor=bytes([2, 0, 0, 0, 3, 0, 0, 0]), **numbers)
    names = [*NAMES, "a", "flow", "", "cpu=0.5,gpu=2"]
    (info,) = recording.read(
        [report(1, names=names, queues=queues, runs_ended=ENDED)], "here"
    ).declared.values()
    assert info.directives == {"min_instances": 0, "max_instances": None, "resources": {}}
    queues.least, queues.most = bytes([1, 0, 0, 0, 9, 0, 0, 0]), bytes([3, 0, 0, 0] * 2)
    queues.needs = bytes([5, 0, 0, 0, 4, 0, 0, 0])
    (info,) = recording.read(
        [report(1, names=names, queues=queues, runs_ended=ENDED)], "here"
    ).declared.values()
    assert info.name == "a"
    needs = {"cpu": 0.5, "gpu": 2.0}
    assert info.directives == {"min_instances": 1, "max_instances": 3, "resources": needs}
    names[5] = "cpu=much"
    with pytest.raises(RecordingInvalid, match="here"):
        recording.read([report(1, names=names, queues=queues, runs_ended=ENDED)], "here")


def test_keys_of_runs_are_read() -> None:
    """Recordings of before they were told have none."""
    ended = RunsEnded(["r", "s"], took=bytes(8), calls=bytes(8), workflow=bytes(8), status=b"\1\0\0\0" * 2)
    names = [*NAMES, "", "acme"]
    found = recording.read([report(1, names=names, runs_ended=ended)], "here")
    assert [run.key for run in found.runs] == ["", ""]
    ended.key = bytes([2, 0, 0, 0, 3, 0, 0, 0])
    found = recording.read([report(1, names=names, runs_ended=ended)], "here")
    assert [run.key for run in found.runs] == ["", "acme"]
    assert [play.key for play in WhatIf(msgspec.structs.replace(found, began=1.0)).plays] == ["", "acme"]


def test_a_call_that_was_moved_has_waited_since_it_was_sent() -> None:
    """It is stored anew in the other lane; its maker tells when it was sent."""
    numbers = array("f", [0.5, 0.25, 1.0])
    ago, waited, took = (array("f", [one]).tobytes() for one in numbers)
    ended = Ended(["r:1"], bytes(4), ago, waited, took, call=b"\2\0\0\0", session=b"\3\0\0\0", how=b"\0")
    made = Made(["r:1", "r:2"], sent=array("f", [2.0, -1.0]).tobytes())
    more = {"names": [*NAMES, "a.b", ""], "ended": ended, "runs_ended": ENDED}
    (call,) = recording.read([report(1, made=made), report(2, **more)], "here").calls
    assert (call.stored, call.started, call.ended) == (99.0, 100.5, 101.5)
    assert (call.actor, call.session) == ("a", "r")
    (call,) = recording.read([report(2, **more)], "here").calls
    assert call.stored == 100.25


def test_actors_of_which_no_slots_were_told() -> None:
    """They had as many as they used at once."""
    calls = [
        recording.RecordedCall(f"r:{n}", "a", "r", 1, 0, begun, begun, begun + 2.0, "h1")
        for n, begun in enumerate((1.0, 2.0, 2.5, 3.0, 9.0))
    ]
    playing = WhatIf(Recorded(calls, [recording.RecordedRun("r", "w", 20.0, 15.0)], began=0.5))
    assert playing.slots == {("a", "h1"): 3}


def queued(began: float, hosts: dict[str, tuple[float, float]]) -> Recorded:
    """Four requests a second for ten seconds, of which three can be done, as told from a time on."""
    calls, runs, free = list[recording.RecordedCall](), [], 0.0
    for number in range(40):
        stored = number / 4
        started = max(stored + 0.001, free + 0.001)
        free = ended = started + 1 / 3
        host = next(host for host, (_, last) in hosts.items() if ended <= last)
        if ended >= began:
            calls.append(
                recording.RecordedCall(f"r{number}:1", "a", f"r{number}", 1, 0, stored, started, ended, host)
            )
            runs.append(recording.RecordedRun(f"r{number}", "w", ended, ended - stored))
    slots = dict.fromkeys((("a", host) for host in hosts), 1)
    return Recorded(calls, runs, slots, heard=hosts, began=began, ended=free)


def test_a_recording_that_begins_in_the_middle_of_a_load() -> None:
    """What calls had waited for before is not taken for the way to the server."""
    playing = WhatIf(queued(5.0, {"h1": (5.0, 20.0)}))
    assert playing.left_out > 0
    assert playing.hop < 0.01
    assert playing.play(Scenario()).max <= playing.measured().max


def test_a_host_that_was_started_again_is_one() -> None:
    """Two that were never there together have no more slots than one."""
    playing = WhatIf(queued(0.0, {"h1": (0.0, 7.0), "h2": (7.5, 20.0)}))
    assert playing.hop < 0.01
    measured, played = playing.measured(), playing.play(Scenario())
    assert (played.hosts, played.most) == (1, 1)
    assert played.p50 == pytest.approx(measured.p50, rel=0.05)
    assert playing.play(Scenario(hosts=2)).p50 < measured.p50 / 2


@pytest.mark.parametrize(
    "reports",
    [
        [],
        [report(1)],
        [report(1, ended=Ended(["r:1"], took=b"\0"))],
        [report(1, runs_ended=ENDED)],
    ],
)
def test_what_cannot_be_played(reports: list[Report]) -> None:
    """Nothing has ended, columns do not fit, names are not there."""
    with pytest.raises(RecordingInvalid, match="here"):
        recording.read(reports, "here")


@pytest.mark.parametrize("text", ["rubbish", "{}", None])
def test_what_is_no_recording(text: str | None, tmp_path: Path) -> None:
    """It is refused with how to make one."""
    if text is not None:
        (tmp_path / "file").write_text(text, "utf-8")
    with pytest.raises(RecordingInvalid, match="telemetry record"):
        recording.read_file(tmp_path / "file")
