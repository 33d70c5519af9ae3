"""``callboard telemetry record`` and ``callboard whatif``: what was told is kept and played."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats
import pytest
from nats.js.api import StorageType, StreamConfig, StreamSource
from tests.cli.terminal import Typed, eventually

from callboard.cli.exits import Exit


@pytest.fixture
def recording(board: str, typed: Typed, tmp_path: Path) -> Path:
    """A file with what a host has told of some requests."""
    file = tmp_path / "recording.jsonl"
    ran = typed(
        "load", "totals", "--rate", 40, "--for", "500ms", "--arg", "numbers=[1,2]", "--json", url=board
    )
    done = ran.json["figures"]["done"]

    def complete() -> bool:
        typed("telemetry", "record", file, url=board)
        ran = typed("whatif", "--from", file, "--json")
        return bool(ran.code == Exit.OK and ran.json["outcomes"][0]["runs"] >= done)

    eventually(complete)
    return file


def test_side_by_side(recording: Path, typed: Typed, tmp_path: Path) -> None:
    """What was measured, then each combination; in a picture, too."""
    tried = ("--hosts", 1, "--hosts", 3, "--routing", "late", "--routing", "spread", "--load", 2)
    ran = typed("whatif", "--from", recording, *tried, "--plot", tmp_path / "picture.svg", "--json")
    assert ran.code == Exit.OK
    measured, *others = ran.json["outcomes"]
    assert measured["name"] == "measured"
    assert [(one["name"], one["hosts"]) for one in others] == [
        ("late, load x2", 1),
        ("spread, load x2", 1),
        ("late, load x2", 3),
        ("spread, load x2", 3),
    ]
    assert 0 < measured["used"] <= 1
    assert measured["migrations"] == 0
    for one in others:
        assert one["runs"] == measured["runs"] > 0
        assert 0 < one["p50"] <= one["p95"] <= one["p99"] <= one["max"] <= one["makespan"]
        assert 0 < one["used"] <= 1
    picture = (tmp_path / "picture.svg").read_text("utf-8")
    drawn = ("mean", "p50", "p95", "p99", "makespan in s", "share of slots used", "sessions moved")
    assert all(f"<!-- {text} -->" in picture for text in (*drawn, "spread, load x2, 3 hosts"))


def test_hosts_of_one_actor(recording: Path, typed: Typed) -> None:
    """As many as are tried; the others are as they were, or as many as is said."""
    ran = typed(
        "whatif", "--from", recording, "--hosts", "add=3", "--hosts", "add=3,2", "--hosts", "1", "--json"
    )
    assert ran.code == Exit.OK
    measured, *others = ran.json["outcomes"]
    assert [(one["name"], one["hosts"]) for one in others] == [
        ("late, add=3", 3),
        ("late, add=3", 3),
        ("late", 1),
    ]
    assert all(one["runs"] == measured["runs"] for one in others)
    assert others[0]["used"] < others[2]["used"]


def test_a_stream_that_keeps_more(recording: Path, board: str, typed: Typed) -> None:
    """A mirror is played like the stream itself, if it can be read; what is not there is told."""
    asyncio.run(mirrored(board, "KEPT", direct=True))
    asyncio.run(mirrored(board, "SHUT", direct=False))

    def complete() -> bool:
        ran = typed("whatif", "--from", "KEPT", "--json", url=board)
        return bool(ran.code == Exit.OK and ran.json["outcomes"][0]["runs"])

    eventually(complete)
    for source, told in (("SHUT", "allow_direct"), ("MISSING", "neither a file nor a stream")):
        ran = typed("whatif", "--from", source, url=board)
        assert ran.code == Exit.USAGE
        assert told in ran.err


async def mirrored(url: str, name: str, *, direct: bool) -> None:
    """Make a mirror of what hosts have told."""
    client = await nats.connect(url)
    source = StreamSource("TELEMETRY")
    config = StreamConfig(
        name, mirror=source, storage=StorageType.MEMORY, allow_direct=direct, mirror_direct=direct
    )
    await client.jetstream().add_stream(config)
    await client.close()


def test_policies_side_by_side(recording: Path, typed: Typed, tmp_path: Path) -> None:
    """Without, one, several together, one's own; all that was recorded is played under each."""
    own = tmp_path / "own.py"
    own.write_text(
        "from callboard.controller.policy import Policy\n"
        "class Own(Policy):\n"
        "    def decide(self, view, act):\n"
        "        act.admit('totals', 0)\n"
    )
    tried = ("--policy", "none", "--policy", "srtf", "--policy", "affinity,plas", "--policy", f"{own}:Own")
    ran = typed("whatif", "--from", recording, *tried, "--json")
    assert ran.code == Exit.OK
    measured, *others = ran.json["outcomes"]
    names = ["late", "late, srtf", "late, affinity+plas", f"late, {own}:Own"]
    assert [one["name"] for one in others] == names
    assert [one["migrations"] for one in others] == [0, 0, 0, 0]
    assert [one["runs"] for one in others[:3]] == [measured["runs"]] * 3
    assert others[3]["runs"] + others[3]["left"] == measured["runs"]
    assert others[3]["left"] > 0
    assert "have never ended" in typed("whatif", "--from", recording, "--policy", f"{own}:Own").out


def test_hosts_come_and_go(recording: Path, typed: Typed, tmp_path: Path) -> None:
    """As a policy says, after the time that is given, no more than there may be; what they cost is told."""
    own = tmp_path / "own.py"
    own.write_text(
        "from callboard.controller.policy import Policy\n"
        "class Own(Policy):\n"
        "    def decide(self, view, act):\n"
        "        act.provision(next(iter(view.room)))\n"
    )
    tried = ("--from", recording, "--hosts", 1, "--load", 0.01, "--policy", f"{own}:Own", "--startup", 0.5)
    ran = typed("whatif", *tried, "--most-hosts", 3, "--json")
    assert ran.code == Exit.OK
    assert ran.json["startup"] == 0.5
    measured, played = ran.json["outcomes"]
    assert measured["host_seconds"] == pytest.approx(measured["makespan"] * measured["hosts"], abs=0.01)
    assert (played["hosts"], played["fewest"], played["most"], played["started"]) == (1, 1, 3, 2)
    assert played["makespan"] < played["host_seconds"] < 3 * played["makespan"]
    ran = typed("whatif", *tried, "--most-hosts", 3)
    assert "1-3" in ran.out
    assert "takes calls after 500.0 ms" in ran.out


def test_a_policy_that_fails_is_told(recording: Path, typed: Typed, tmp_path: Path) -> None:
    """With its error."""
    own = tmp_path / "own.py"
    own.write_text(
        "from callboard.controller.policy import Policy\n"
        "class Own(Policy):\n"
        "    def decide(self, view, act):\n"
        "        raise ValueError('not yet')\n"
    )
    ran = typed("whatif", "--from", recording, "--policy", f"{own}:Own")
    assert ran.code == Exit.USAGE
    assert "ValueError: not yet" in ran.err


def test_for_people(recording: Path, board: str, typed: Typed) -> None:
    """A line for each; from the stream, too."""
    for source in (("--from", recording), ()):
        ran = typed("whatif", *source, url=board)
        assert ran.code == Exit.OK
        names = [line.split()[0] for line in ran.out.splitlines()]
        assert names[1:3] == ["measured", "late"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--routing", "best"), "late, spread, sticky, kept"),
        (("--policy", "best"), "srtf"),
        (("--policy", "own.py:Own"), "own.py"),
        (("--hosts", 0), "--hosts"),
        (("--hosts", "two"), "--hosts"),
        (("--hosts", "add="), "ACTOR=N"),
        (("--hosts", "nobody=3"), "add"),
        (("--load", 0), "--load"),
        (("--most-hosts", 0), "--most-hosts"),
        (("--resource", "gpu"), "gpu=2"),
        (("--slots", "add"), "ACTOR=N"),
        (("--slots", "nobody=3"), "add"),
        (("--last", "1m"), "--last"),
        (("--plot", "picture.odd"), "picture.odd"),
    ],
)
def test_what_cannot_be_tried(options: tuple[object, ...], told: str, recording: Path, typed: Typed) -> None:
    """It is refused with what there is."""
    ran = typed("whatif", "--from", recording, *options)
    assert ran.code == Exit.USAGE
    assert told in ran.err


def test_no_recording(typed: Typed, tmp_path: Path) -> None:
    """A file that is none says how to make one."""
    ran = typed("whatif", "--from", tmp_path / "nothing")
    assert ran.code == Exit.USAGE
    assert "callboard telemetry record" in ran.err
