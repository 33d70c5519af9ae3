"""``runs``, ``show``, ``cancel``, ``actors``, ``control``, ``stubs``: looking at a board, and steering it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.cli.terminal import APP, Running, Typed, eventually, wait_for

from callboard import connect_sync
from callboard.cli.exits import Exit
from callboard.infra.errors import RunFailed
from callboard.infra.server import EmbeddedServer


@pytest.fixture(scope="module")
def ran(board: str) -> dict[str, str]:
    """Runs that have ended, by the name of their workflow."""
    arguments: dict[str, dict[str, Any]] = {
        "greet": {"name": "x"},
        "totals": {"numbers": [1, 2]},
        "fails": {},
    }
    ids = {}
    with connect_sync(board) as client:
        for workflow, given in arguments.items():
            ids[workflow] = client.submit(workflow, given)
            try:
                client.result(ids[workflow], timeout=20)
            except RunFailed:
                assert workflow == "fails"
        eventually(lambda: all(one.finished for one in client.runs()))  # summaries come after outcomes
    return ids


# -- runs -------------------------------------------------------------------------------------------


def test_runs_are_listed(board: str, ran: dict[str, str], typed: Typed) -> None:
    """The latest last, with how they stand, and the error of a failed one."""
    listed = typed("runs", "--json", url=board).json
    assert [(one["run"], one["status"]) for one in listed] == [
        (ran["greet"], "completed"),
        (ran["totals"], "completed"),
        (ran["fails"], "failed"),
    ]
    lines = typed("runs", url=board).out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(ran.values())
    assert "nothing there" in lines[3]


def test_runs_are_filtered(board: str, ran: dict[str, str], typed: Typed) -> None:
    """By workflow, by status, and by number: then the latest."""

    def ids(*options: object) -> list[str]:
        return [one["run"] for one in typed("runs", "--json", *options, url=board).json]

    assert ids("--workflow", "totals") == [ran["totals"]]
    assert ids("--status", "failed") == [ran["fails"]]
    assert ids("--status", "completed", "--limit", 1) == [ran["totals"]]
    assert ids("--workflow", "nothing") == []


def test_no_runs_says_how_to_start_one(nats_url: str, typed: Typed) -> None:
    """On an empty board."""
    assert "callboard run" in typed("runs", url=nats_url).out
    assert typed("runs", "--json", url=nats_url).json == []


# -- show -------------------------------------------------------------------------------------------


def test_show_tells_who_waited_for_whom(board: str, ran: dict[str, str], typed: Typed) -> None:
    """The tree of calls with dependencies and times, the owner, and the result."""
    out = typed("show", ran["totals"], url=board).out
    rows = {words[0]: words for words in (line.split() for line in out.splitlines()) if words}
    assert rows["3"][1:3] == ["Scarce.sum_up", "done"]
    assert rows["3.2"][1:3] == ["add.call", "done"]
    line = next(line for line in out.splitlines() if line.startswith("3 "))
    assert "1, 2" in line
    assert "(epoch 1)" in out
    assert '"total": 6' in out


def test_show_as_json_has_it_all(board: str, ran: dict[str, str], typed: Typed) -> None:
    """Summary, owners, calls and value in one object."""
    shown = typed("show", ran["totals"], "--json", url=board).json
    assert (shown["status"], shown["value"]) == ("completed", {"total": 6, "apart": 7})
    assert [owner["epoch"] for owner in shown["owners"]] == [1]
    calls = {call["path"]: call for call in shown["calls"]}
    assert list(calls) == ["1", "2", "3", "3.1", "3.2", "4"]
    assert calls["3"]["after"] == ["1", "2"]
    assert all(call["host"].startswith("h-") and call["took"] > 0 for call in calls.values())


def test_show_explains_a_failure(board: str, ran: dict[str, str], typed: Typed) -> None:
    """The failed call with the user's lines, what was never called, and why the run failed."""
    out = typed("show", ran["fails"], url=board).out
    assert "1 broken.call failed on h-" in out
    assert "in fails > broken.call" in out
    assert 'raise KeyError("nothing there")' in out
    assert "not called" in out
    assert "the run failed: " in out


def test_show_finds_a_run_that_has_just_begun(board: str, gate: Path, typed: Typed) -> None:
    """Before anything else than the driver has told of it."""
    with connect_sync(board) as client:
        run = client.submit("holds", {"gate": str(gate)})
        wait_for(Path(f"{gate}.started"))
        shown = typed("show", run, "--json", url=board).json
        assert (shown["status"], shown["workflow"], shown["value"]) == ("running", "holds", None)
        (call,) = shown["calls"]
        assert (call["name"], call["state"], call["host"][:2]) == ("hold.call", "running", "h-")
        gate.touch()
        client.result(run, timeout=20)


def test_a_run_that_nobody_drives_yet(nats_url: str, typed: Typed) -> None:
    """It is accepted, and can be seen and cancelled, before there is a driver."""
    with connect_sync(nats_url) as client:
        run = client.submit("nobody", {}, session="s")
        assert client.status(run).status == "accepted"
    shown = typed("show", run, url=nats_url)
    assert "nobody  accepted\nstored " in shown.out
    assert "session s" in shown.out
    assert "no host runs nobody: callboard host APP:nobody" in shown.out
    told = typed("cancel", run, url=nats_url)
    assert told.code == Exit.TIMED_OUT
    assert "is there a host for nobody?" in told.err


def test_a_call_that_nobody_takes(nats_url: str, gate: Path, typed: Typed) -> None:
    """It is shown, with how long it has waited, and what to start."""
    with Running("host", f"{APP}:holds", "--json", "--grace", "0.5", url=nats_url) as host:
        host.until('"event":"host_ready"')
        with connect_sync(nats_url) as client:
            run = client.submit("holds", {"gate": str(gate)})

        eventually(lambda: typed("show", run, "--json", url=nats_url).json["calls"])
        (call,) = typed("show", run, "--json", url=nats_url).json["calls"]
        assert (call["name"], call["state"], call["host"]) == ("hold.call", "sent", "")
        assert call["waited"] > 0
        assert typed("show", run, "--json", url=nats_url).json["unserved"] == ["hold"]
        assert "no host runs hold: callboard host APP:hold" in typed("show", run, url=nats_url).out


@pytest.mark.parametrize("verb", ["show", "cancel"])
def test_an_unknown_run(verb: str, board: str, typed: Typed) -> None:
    """Exit code 4; what cannot be an id is a usage error."""
    assert typed(verb, "01NOSUCHRUN", url=board).code == Exit.NOT_FOUND
    assert typed(verb, "no.such.run", url=board).code == Exit.USAGE


# -- cancel -----------------------------------------------------------------------------------------


def test_cancel_ends_a_run_and_its_calls(board: str, gate: Path, typed: Typed) -> None:
    """It returns when the run has ended; the reason is kept."""
    with connect_sync(board) as client:
        run = client.submit("holds", {"gate": str(gate)})
        wait_for(Path(f"{gate}.started"))
        ended = typed("cancel", run, "--reason", "too dear", "--json", url=board)
    assert (ended.code, ended.json) == (Exit.OK, {"run": run, "status": "cancelled"})
    wait_for(Path(f"{gate}.cancelled"))
    shown = typed("show", run, "--json", url=board).json
    assert shown["status"] == "cancelled"
    assert [(signal["name"], signal["reason"]) for signal in shown["signals"]] == [("cancel", "too dear")]
    again = typed("cancel", run, url=board)
    assert (again.code, again.out.strip()) == (Exit.OK, f"run {run} is cancelled")


def test_what_has_ended_cannot_be_cancelled(board: str, ran: dict[str, str], typed: Typed) -> None:
    """Said, with exit code 1."""
    ended = typed("cancel", ran["greet"], url=board)
    assert (ended.code, ended.out.strip()) == (
        Exit.FAILED,
        f"run {ran['greet']} had ended before: completed",
    )


# -- actors -----------------------------------------------------------------------------------------


def test_actors_are_listed_with_their_hosts(board: str, typed: Typed) -> None:
    """Kind, methods, version, and each living host's instance."""
    actors = {one["name"]: one for one in typed("actors", "--json", url=board).json}
    assert {"add", "Scarce", "greet"} <= set(actors)
    scarce = actors["Scarce"]
    assert (scarce["kind"], scarce["methods"], scarce["missing"]) == ("agent", ["sum_up"], 1)
    assert [instance["slots"] > 0 for instance in scarce["hosts"].values()] == [True]
    assert actors["greet"]["doc"] == "Greet."


def test_too_few_instances_are_flagged(board: str, typed: Typed) -> None:
    """Where ``min_instances`` says so, and nowhere else."""
    lines = typed("actors", url=board).out.splitlines()
    flagged = [line.split()[0] for line in lines if "below min_instances" in line]
    assert flagged == ["Scarce"]


def test_a_host_that_is_gone_is_not_counted(typed: Typed) -> None:
    """Neither after a goodbye nor after kill -9, whatever the clocks say."""
    with EmbeddedServer() as server:
        assert "no actors" in typed("actors", url=server.url).out

        def counted() -> int:
            (greet,) = typed("actors", "--json", url=server.url).json
            return len(greet["hosts"])

        with Running("host", f"{APP}:greet", "--json", url=server.url) as first:
            first.until('"event":"host_ready"')
            with Running("host", f"{APP}:greet", "--json", url=server.url) as second:
                second.until('"event":"host_ready"')
                assert counted() == 2
            assert counted() == 1
            first.send(signal.SIGKILL)
            first.wait()
            eventually(lambda: counted() == 0)


# -- control and stubs ------------------------------------------------------------------------------


def test_control_drains_a_host(nats_url: str, typed: Typed) -> None:
    """The host ends by itself, with exit code 0; one that is not there is not found."""
    with Running("host", f"{APP}:greet", "--json", url=nats_url) as host:
        name = json.loads(host.until('"event":"host_ready"'))["host"]
        told = typed("control", "drain", name, "--grace", "1", "--json", url=nats_url)
        assert (told.code, told.json) == (Exit.OK, {"draining": name})
        assert host.wait() == Exit.OK
    assert typed("control", "drain", name, url=nats_url).code == Exit.NOT_FOUND
    assert typed("control", "drain", "*", url=nats_url).code == Exit.USAGE


def test_stubs_are_a_module(board: str, typed: Typed, tmp_path: Path) -> None:
    """Printed, written to a file, or in JSON; it is Python, and has the actors asked for."""
    printed = typed("stubs", "add", "Scarce", url=board)
    compile(printed.out, "stubs.py", "exec")
    assert "class Scarce" in printed.out
    assert "def add(" in printed.out
    assert "broken" not in printed.out
    path = tmp_path / "stubs.py"
    told = typed("stubs", "add", "Scarce", "-o", path, "--json", url=board)
    assert told.json == {"actors": ["add", "Scarce"], "file": str(path)}
    assert path.read_text() == printed.out
    assert "def broken(" in typed("stubs", "--json", url=board).json["module"]
    assert typed("stubs", "Scarse", url=board).code == Exit.NOT_FOUND
    nowhere = typed("stubs", "add", "-o", tmp_path / "no" / "stubs.py", url=board)
    assert nowhere.code == Exit.USAGE
    assert nowhere.err.endswith("stubs.py cannot be written: No such file or directory\n")


def test_show_of_a_call(board: str, typed: Typed) -> None:
    """It is told what shows a call."""
    shown = typed("show", "some-run:1.2", url=board)
    assert (shown.code, shown.err) == (
        2,
        "error: some-run:1.2 is a call: see 'callboard show some-run', or 'callboard why some-run:1.2'\n",
    )
