import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from bench import __main__, harness, report
from bench.accounting import CpuMeter, by_part, growth, memory_bytes, percentile
from bench.harness import Bound, Case, Metric, Role, RoundFailed, Row, Sample

REQUIRED = {"case", "value", "unit", "floor", "ratio", "bound", "holds"}
FIGURES = {Role.FLOOR: [10.0, 30.0, 20.0], Role.CALLBOARD: [40.0, 20.0, 30.0]}


async def _never(_: Role) -> Sample:
    raise AssertionError("rounds are measured by the test's own function")


def _case(*metrics: Metric, floor: bool = True) -> Case:
    return Case(
        name="fake",
        summary="A case of the test.",
        metrics=metrics or (Metric("", "calls/s", Bound(ratio_at_least=1.0)),),
        roles=(Role.FLOOR, Role.CALLBOARD) if floor else (Role.CALLBOARD,),
        rounds=None,
        timeout_s=1,
        measure=_never,
    )


class _Rounds:
    """Gives the figures of `FIGURES` in turn and remembers the order of the roles."""

    def __init__(self) -> None:
        self.order: list[Role] = []
        self._left = {role: iter(figures) for role, figures in FIGURES.items()}

    def __call__(self, _: Case, role: Role) -> Sample:
        self.order.append(role)
        return Sample(
            values={"": next(self._left[role])}, calls=100, cpu_s={"server": 0.005, "client": 0.015}
        )


def _rows() -> list[Row]:
    chosen = _case()
    return harness.rows_of(chosen, harness.run_in_turn(chosen, 3, _Rounds()))


def test_both_sides_run_in_turn() -> None:
    """Floor, Callboard, floor, Callboard: drift of the machine meets both."""
    rounds = _Rounds()
    harness.run_in_turn(_case(), 3, rounds)
    assert rounds.order == [Role.FLOOR, Role.CALLBOARD] * 3


def test_a_row_compares_the_medians() -> None:
    """Value and floor are medians of the rounds, the ratio is theirs."""
    (row,) = _rows()
    assert (row.value, row.floor, row.ratio, row.holds) == (30.0, 20.0, 1.5, True)
    assert row.samples == FIGURES[Role.CALLBOARD]
    assert row.floor_samples == FIGURES[Role.FLOOR]
    assert row.cpu_ms_per_call == pytest.approx(0.2)
    assert row.details["cpu_ms_per_call_client"] == pytest.approx(0.15)


def test_a_metric_may_take_the_worst_round() -> None:
    """What no round may exceed is combined by `max`, not by the median."""
    chosen = _case(Metric("", "s", Bound(at_most=30.0), combine=max))
    (row,) = harness.rows_of(chosen, harness.run_in_turn(chosen, 3, _Rounds()))
    assert (row.value, row.holds) == (40.0, False)


def test_a_case_without_floor_has_no_ratio() -> None:
    """Only Callboard is measured, and the bound is on the value."""
    chosen = _case(Metric("", "s", Bound(at_most=30.0)), floor=False)
    rounds = _Rounds()
    (row,) = harness.rows_of(chosen, harness.run_in_turn(chosen, 3, rounds))
    assert rounds.order == [Role.CALLBOARD] * 3
    assert (row.floor, row.ratio, row.holds) == (None, None, True)


def test_a_failed_side_leaves_a_row_that_does_not_hold() -> None:
    """The other side goes on, and the row says what went wrong."""
    rounds = _Rounds()

    def measure(chosen: Case, role: Role) -> Sample:
        if role is Role.CALLBOARD:
            raise RoundFailed("no such module")
        return rounds(chosen, role)

    chosen = _case()
    (row,) = harness.rows_of(chosen, harness.run_in_turn(chosen, 3, measure))
    assert (row.value, row.floor, row.holds) == (None, 20.0, False)
    assert row.error == "callboard: no such module"


@pytest.fixture
def results(tmp_path: Path) -> Any:
    """What is written for one row."""
    path = report.new_file(tmp_path)
    report.write(_rows(), report.Machine.here("asyncio"), path)
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_results_hold_one_object_a_row(results: list[dict[str, object]]) -> None:
    """Programs read a list of flat objects with the agreed keys and types."""
    (row,) = results
    assert set(row) >= REQUIRED
    assert row["case"] == "fake"
    assert row["bound"] == ">= 1x floor"
    assert (row["value"], row["unit"], row["floor"]) == (30.0, "calls/s", 20.0)
    assert row["holds"] is True


def test_the_results_describe_the_machine_without_names(results: list[dict[str, object]]) -> None:
    """Rows say what they were measured on, and neither where nor under which name."""
    machine = results[0]["machine"]
    assert isinstance(machine, dict)
    assert {"cpu", "cores", "memory_gib", "kernel", "python", "nats_server", "nats_py"} <= set(machine)
    assert str(Path.home()) not in json.dumps(results)


def test_every_case_registers_itself() -> None:
    """Each file of `bench/cases/` is found, described, and bounded."""
    cases = harness.load_cases()
    files = {path.stem for path in Path(harness.__file__).with_name("cases").glob("[a-z]*.py")}
    assert set(cases) == files
    assert all(case.metrics and case.summary.endswith(".") for case in cases.values())


def test_two_cases_of_one_name_are_refused() -> None:
    """A second file cannot silently replace a case."""
    harness.load_cases()
    with pytest.raises(ValueError, match="'fan_out'"):
        harness.case("fan_out")(_never)


def test_percentile_is_the_nearest_rank() -> None:
    """The 99th of a hundred values is the second largest."""
    values = [float(number) for number in range(100, 0, -1)]
    assert percentile(values, 99) == 99.0
    assert percentile(values, 50) == 50.0
    assert percentile([7.0], 99) == 7.0


def test_accounting_sees_this_process() -> None:
    """CPU grows while it is burnt; memory is at least what is held."""
    me = {"client": [os.getpid()]}
    with CpuMeter(me) as cpu:
        sum(number * number for number in range(3_000_000))
    assert cpu.seconds["client"] > 0
    before = by_part(me, memory_bytes)
    with mmap.mmap(-1, 32 << 20) as ballast:  # never memory that was held before
        ballast.write(os.urandom(len(ballast)))
        assert growth(before, by_part(me, memory_bytes))["client"] > 0.9 * len(ballast)


def test_a_child_counts_once_and_where_it_is_named() -> None:
    """The client is the parent of the server, and yet the server's figure is not in its own."""

    def count(processes: Iterable[psutil.Process]) -> float:
        return float(len(list(processes)))

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        apart = by_part({"client": [os.getpid()], "server": [child.pid]}, count)
        assert apart["server"] == 1
        together = by_part({"client": [os.getpid()]}, count)
        assert together["client"] == apart["client"] + 1
        child.kill()


def test_an_interrupted_run_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results are told of and written after each case."""

    def measured(chosen: Case, role: Role, loop: str) -> Sample:
        if chosen.name != "first":
            raise KeyboardInterrupt
        return Sample(values={"": 3.0}, calls=1, cpu_s={})

    alone = _case(Metric("", "s", Bound(at_most=4.0)), floor=False)
    cases = {name: msgspec.structs.replace(alone, name=name) for name in ("first", "second")}
    monkeypatch.setattr(__main__, "load_cases", lambda: cases)
    monkeypatch.setattr(__main__, "measure", measured)
    monkeypatch.setattr(report.new_file, "__defaults__", (tmp_path,))
    monkeypatch.setattr(sys, "argv", ["bench", "--rounds", "1"])
    with pytest.raises(KeyboardInterrupt):
        __main__.main()
    (written,) = tmp_path.glob("*.json")
    assert [row["case"] for row in json.loads(written.read_text(encoding="utf-8"))] == ["first"]
    assert "first: 3 s; <= 4 holds" in capsys.readouterr().err
