"""``callboard load``: many requests when they are due, and what they took."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest
from tests.cli.terminal import Running, Typed, wait_for

from callboard.cli.exits import Exit

QUICK = ("--rate", "40", "--for", "500ms")


def test_figures(board: str, typed: Typed) -> None:
    """All that was planned was submitted and is done; the latencies are in order."""
    ran = typed("load", "greet", *QUICK, "--arg", "name=Ada", "--seed", "1", "--json", url=board)
    assert ran.code == Exit.OK
    told = ran.json
    figures, latency = told["figures"], told["figures"]["latency"]
    assert (told["workflow"], told["seed"], told["interrupted"]) == ("greet", 1, False)
    assert 10 < figures["planned"] == figures["submitted"] == figures["done"]
    assert (figures["failed"], figures["open"], figures["refused"]) == (0, 0, 0)
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert figures["from_submission"]["max"] <= latency["max"]


def test_for_people(board: str, typed: Typed) -> None:
    """A table, and the seed with which it can be repeated."""
    ran = typed("load", "greet", *QUICK, "--arg", "name=Ada", url=board)
    assert ran.code == Exit.OK
    assert "p99" in ran.out
    assert "from when due" in ran.out
    assert "seed " in ran.out


def test_failures_are_told(board: str, typed: Typed) -> None:
    """Counted by code; exit code 1."""
    ran = typed("load", "fails", *QUICK, "--seed", "1", "--json", url=board)
    figures = ran.json["figures"]
    assert ran.code == Exit.FAILED
    assert figures["failed"] == figures["planned"] == sum(figures["errors"].values())


def test_a_plan_is_saved_and_played(board: str, typed: Typed, tmp_path: Path) -> None:
    """A trace has the same requests, with the values that were drawn."""
    trace = tmp_path / "trace.jsonl"
    vary = ("--vary", "numbers=[1],[2]", "--sessions", "3", "--skew", "hot:0.9", "--shift", "200ms")
    ran = typed("load", "totals", *QUICK, *vary, "--seed", "2", "--save", trace, "--json", url=board)
    assert ran.code == Exit.OK
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    assert len(lines) == ran.json["figures"]["done"]
    assert {str(line["arguments"]["numbers"]) for line in lines} == {"[1]", "[2]"}
    assert {line["session"] for line in lines} <= {"s0", "s1", "s2"}
    again = typed("load", "totals", "--trace", trace, "--json", url=board)
    assert again.json["figures"]["done"] == len(lines)
    assert again.json["seed"] is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--rate 50 --for 30s"),
        (("--trace", "a.jsonl", "--seed", "3"), "leave out"),
        (("--trace", "a.jsonl", "--skew", "zipf:1"), "leave out"),
        ((*QUICK, "--skew", "zipf:1"), "--sessions"),
        (("--rate", "5", "--for", "soon"), "500ms"),
    ],
)
def test_options_that_do_not_fit(options: tuple[str, ...], told: str, typed: Typed) -> None:
    """None is passed over in silence."""
    ran = typed("load", "greet", *options)
    assert (ran.code, told in ran.err) == (Exit.USAGE, True)


def test_what_is_open_is_told(board: str, typed: Typed, gate: Path) -> None:
    """Requests that have no outcome when the waiting is over."""
    ran = typed("load", "holds", *QUICK, "--arg", f"gate={gate}", "--wait", "0", "--json", url=board)
    gate.touch()
    assert ran.code == Exit.FAILED
    assert ran.json["figures"]["open"] == ran.json["figures"]["submitted"] > 0


@pytest.mark.parametrize("waits", [True, False])
def test_interrupting(waits: bool, board: str, gate: Path) -> None:  # noqa: FBT001
    """The first Ctrl-C submits no more and waits for what is under way, the second one waits no more."""
    with Running("load", "holds", "--rate", 40, "--for", "1h", "--arg", f"gate={gate}", url=board) as load:
        wait_for(Path(f"{gate}.started"))
        load.send(signal.SIGINT)
        load.until("submitting no more")
        if waits:
            gate.touch()
        else:
            load.send(signal.SIGINT)
        assert load.wait() == Exit.INTERRUPTED
    gate.touch()
    (counts,) = re.findall(r"^submitted .*\n(.*)$", load.output, re.MULTILINE)
    submitted, done, failed, left, *_ = map(int, counts.split()[:4])
    assert submitted > 0
    assert (done, failed, left) == ((submitted, 0, 0) if waits else (0, 0, submitted))
