"""``fork`` on the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.cli.board_app import totals
from tests.cli.terminal import Typed, wait_for

from callboard import connect_sync
from callboard.cli.exits import Exit


@pytest.fixture(scope="module")
def run(board: str) -> str:
    """A run that has ended, of four steps."""
    with connect_sync(board) as client:
        run = client.submit("totals", {"numbers": [1, 2]})
        client.result(run, timeout=20)
    return run


def test_fork(board: str, run: str, typed: Typed) -> None:
    """The result, and the id of the new run, which has both."""
    told = typed("fork", run, "--at", 2, url=board)
    assert (told.code, told.out) == (Exit.OK, '{\n  "total": 6,\n  "apart": 7\n}\n')
    found = re.fullmatch(rf"run (\w+) begins with 2 steps of run {run}\n", told.err)
    assert found is not None
    shown = typed("show", found[1], "--json", url=board).json
    assert [call["name"] for call in shown["calls"] if "." not in call["path"]] == [
        "add.call",
        "add.call",
        "Scarce.sum_up",
        "in_process.call",
    ]
    assert typed("diff", run, found[1], url=board).code == Exit.OK


def test_with_another_argument(board: str, run: str, typed: Typed) -> None:
    """As for ``run``; what was taken over stays as it was."""
    told = typed("fork", run, "--at", 0, "--arg", "numbers=[5]", "--json", url=board)
    assert (told.code, told.json["value"]) == (Exit.OK, {"total": 10, "apart": 7})
    assert told.json["run"] != run
    for wrong, text in (("numbers=x", "numbers"), ("nothing=1", "nothing")):
        refused = typed("fork", run, "--at", 0, "--arg", wrong, url=board)
        assert (refused.code, text in refused.err) == (Exit.USAGE, True)


def test_watch_and_an_id_of_its_own(board: str, run: str, typed: Typed) -> None:
    """Each call in a line, those that were taken over, too."""
    told = typed("fork", run, "--at", 2, "--run-id", "mine", "--watch", url=board)
    assert told.code == Exit.OK
    assert re.search(r"^1 +add.call +done", told.err, re.MULTILINE)
    assert re.search(r"^3 +Scarce.sum_up +done", told.err, re.MULTILINE)
    again = typed("fork", run, "--at", 2, "--run-id", "mine", url=board)
    assert (again.code, "there is a run mine already" in again.err) == (Exit.USAGE, True)


def test_of_a_run_that_goes_on(board: str, gate: Path, typed: Typed) -> None:
    """Its timeout is that of the waiting, and neither run minds the other."""
    with connect_sync(board) as client:
        run = client.submit("holds", {"gate": str(gate)})
        wait_for(Path(f"{gate}.started"))
        late = typed("fork", run, "--at", 0, "--timeout", 0.1, "--run-id", "late", url=board)
        assert late.code == Exit.TIMED_OUT
        gate.touch()
        assert client.result(run, timeout=20) == client.result("late", timeout=20) == "let go"


def test_what_cannot_be_forked(board: str, run: str, typed: Typed) -> None:
    """No such run, no such step."""
    assert typed("fork", "nothing", "--at", 1, url=board).code == Exit.NOT_FOUND
    refused = typed("fork", run, "--at", 9, "--json", url=board)
    assert (refused.code, refused.json["error"]["code"]) == (Exit.USAGE, "fork_refused")
    assert "it has 4; 'callboard replay' shows them" in refused.err
    assert typed("fork", run, "--at", -1, url=board).code == Exit.USAGE
    assert typed("fork", run, url=board).code == Exit.USAGE


def test_from_code_without_an_event_loop(board: str, run: str) -> None:
    """The same three, from the synchronous client."""
    with connect_sync(board) as client:
        own = client.fork(run, 3, run_id="sync")
        assert client.result(own, timeout=20) == {"total": 6, "apart": 7}
        assert client.diff(run, own, totals).alike
        replayed = client.replay(own, totals, until=1)
    assert [step.call for step in replayed.steps] == ["add.call"]
    assert replayed.ending == "stands"
