"""``replay``, ``diff`` and ``check`` on the command line."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.cli.terminal import APP, ENDS_WITHIN, Ran, Typed, command, environment, eventually, wait_for

from callboard import connect_sync
from callboard.actors import local
from callboard.cli.exits import Exit

CODE = """
from callboard import tool, workflow

@tool
async def add(a: int, b: int) -> int: ...

@workflow
async def greet(name: str) -> str:
    raise KeyError(name)

@workflow
async def totals(numbers: list[int]) -> dict[str, int]:
    return {"total": await add(numbers[0], numbers[0])}
"""
"""Other code for the workflows of the application."""


@pytest.fixture(autouse=True)
def own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay makes its process that of a board; here it is the tests'."""
    monkeypatch.setattr(local, "_on_board", False)


@pytest.fixture(scope="module")
def ran(board: str) -> dict[str, str]:
    """Runs that have ended, by the name of their workflow."""
    arguments: dict[str, dict[str, Any]] = {
        "totals": {"numbers": [1, 2]},
        "fails": {},
        "greet": {"name": "x"},
        "dozes": {},
    }
    with connect_sync(board) as client:
        ids = {name: client.submit(name, given) for name, given in arguments.items()}
        for run in ids.values():
            client.done(run, timeout=20)
    return ids


def replayed(*arguments: object, url: str, typing: str = "", cwd: Path) -> Ran:
    """Replay in a process of its own, with something typed."""
    ended = subprocess.run(
        command("replay", *arguments),
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN,
        env=environment(url),
        input=typing,
        cwd=cwd,
        check=False,
    )
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def test_replay(board: str, ran: dict[str, str], typed: Typed) -> None:
    """Each step, and that it ends as recorded."""
    told = typed("replay", ran["totals"], APP, url=board)
    assert told.code == Exit.OK
    first, *steps = told.out.splitlines()
    assert first == f"{ran['totals']}  totals  completed: 4 steps on record"
    assert steps[0].startswith("   1  1      add.call(a=1, b=1) = 2  (")
    assert any("Scarce.sum_up(numbers=[<1>,<2>]) = 6" in step for step in steps)
    assert 'it ends as recorded: {\n  "total": 6,\n  "apart": 7\n}' in told.out


def test_replay_of_a_failed_run(board: str, ran: dict[str, str], typed: Typed) -> None:
    """The errors, those of the steps and that of the run."""
    told = typed("replay", ran["fails"], APP, url=board)
    assert told.code == Exit.OK
    assert "broken.call() raised KeyError: 'nothing there'" in told.out
    assert "it ends as recorded: the run failed: " in told.out


def test_replay_as_json(board: str, ran: dict[str, str], typed: Typed) -> None:
    """A line for each step, and one for the end."""
    *steps, end = typed("replay", ran["totals"], APP, "--json", url=board).lines
    assert [step["number"] for step in steps] == [1, 2, 3, 4]
    assert {step["event"] for step in steps} == {"step"}
    assert (steps[0]["path"], steps[0]["call"], steps[0]["value"]) == ("1", "add.call", 2)
    assert (end["event"], end["ending"], end["as_recorded"]) == ("ended", "same", True)
    assert end["value"] == {"total": 6, "apart": 7}


def test_until(board: str, ran: dict[str, str], typed: Typed) -> None:
    """It stops there, and tells what was under way."""
    told = typed("replay", ran["totals"], APP, "--until", 1, url=board)
    assert told.code == Exit.OK
    assert "stopped after step 1; then there were under way:\n" in told.out
    assert "Scarce.sum_up(numbers=[<1>,<2>])  (waiting)" in told.out
    assert typed("replay", ran["totals"], APP, "--until", 0, url=board).code == Exit.USAGE


def test_a_run_that_goes_on(board: str, gate: Path, typed: Typed) -> None:
    """Where it stands."""
    with connect_sync(board) as client:
        run = client.submit("holds", {"gate": str(gate)})
        wait_for(Path(f"{gate}.started"))
        told = typed("replay", run, APP, url=board)
        gate.touch()
        client.done(run, timeout=20)
    assert told.code == Exit.OK
    assert "it stands, since these have no outcome on record:\n      1      hold.call(gate=" in told.out


def test_other_code(board: str, ran: dict[str, str], typed: Typed, tmp_path: Path) -> None:
    """It diverges, or ends otherwise: both are told, and the exit code is that of a failure."""
    other = tmp_path / "other_code.py"
    other.write_text(CODE)
    diverged = typed("replay", ran["totals"], other, url=board)
    assert diverged.code == Exit.FAILED
    assert "the code diverges from the record: workflow totals has changed" in diverged.out
    ends = typed("replay", ran["greet"], other, url=board)
    assert ends.code == Exit.FAILED
    assert "recorded: Hello x\nreplayed: the run failed: KeyError: 'x'" in ends.out
    (end,) = typed("replay", ran["greet"], other, "--json", url=board).lines
    assert (end["ending"], end["value"], end["recorded_value"]) == ("other", None, "Hello x")
    assert end["error"]["message"] == "KeyError: 'x'"


def test_what_cannot_be_replayed(board: str, ran: dict[str, str], typed: Typed, tmp_path: Path) -> None:
    """No such run, no such application, none that has the workflow, one that does not load."""
    broken = tmp_path / "broken_app.py"
    broken.write_text("import nothing_of_this_name\n")
    for arguments, code, text in [
        (("nothing", APP), Exit.NOT_FOUND, "there is no run nothing"),
        ((ran["greet"], "no.py"), Exit.NOT_FOUND, "there is no application at no.py"),
        ((ran["greet"], f"{APP}:dozes"), Exit.NOT_FOUND, "no workflow 'greet' in"),
        ((ran["greet"], broken), Exit.FAILED, "broken_app.py cannot be imported"),
        (("a run", APP), Exit.USAGE, "run id"),
    ]:
        told = typed("replay", *arguments, url=board)
        assert (told.code, text in told.err) == (code, True), told


@pytest.mark.parametrize(
    ("workflow", "arguments", "body", "shown"),
    [
        (
            "async def greet(name: str) -> str:",
            {"name": "x"},
            "    breakpoint()\n    return 'Hello ' + name\n",
            "x",
        ),
        (
            "def greet(name: str) -> str:",
            {"name": "y"},
            "    breakpoint()\n    return 'Hello ' + name\n",
            "y",
        ),
    ],
    ids=["async", "plain"],
)
def test_a_breakpoint(
    board: str, workflow: str, arguments: dict[str, str], body: str, shown: str, tmp_path: Path
) -> None:
    """The debugger has the terminal, on the loop and in a thread; the replay goes on after it."""
    (tmp_path / "looks.py").write_text(f"from callboard import workflow\n\n@workflow\n{workflow}\n{body}")
    with connect_sync(board) as client:
        run = client.submit("greet", arguments)
        client.result(run, timeout=20)
    goes_on = replayed(run, "looks.py", url=board, typing="p 'seen', name\nc\n", cwd=tmp_path)
    assert goes_on.code == Exit.OK, goes_on
    assert f"('seen', '{shown}')" in goes_on.out
    assert f"it ends as recorded: Hello {shown}" in goes_on.out
    left = replayed(run, "looks.py", url=board, typing="q\n", cwd=tmp_path)
    assert (left.code, "left from the debugger" in left.out) == (Exit.OK, True)


def test_diff(board: str, ran: dict[str, str], typed: Typed) -> None:
    """The runs side by side, and where they part."""
    with connect_sync(board) as client:
        other = client.submit("totals", {"numbers": [1, 3]})
        client.done(other, timeout=20)
    told = typed("diff", ran["totals"], other, url=board)
    assert told.code == Exit.FAILED
    assert f'their arguments differ\n  {ran["totals"]}: {{"numbers":[1,2]}}' in told.out
    assert f"add.call: it gave something else\n  {ran['totals']}: 4\n  {other}: 6" in told.out
    told = typed("diff", ran["totals"], other, APP, url=board)
    assert "add.call: they call it with other arguments" in told.out
    data = typed("diff", ran["totals"], other, "--json", url=board).json
    assert (data["alike"], data["first"]["what"], data["first"]["path"]) == (False, "outcome", "2")


def test_diff_of_runs_that_are_alike(board: str, ran: dict[str, str], typed: Typed) -> None:
    """Also of one with itself."""
    told = typed("diff", ran["totals"], ran["totals"], url=board)
    assert (told.code, "they are alike" in told.out) == (Exit.OK, True)
    assert typed("diff", ran["totals"], ran["totals"], "--json", url=board).json["alike"] is True
    assert "runs of different workflows" in typed("diff", ran["totals"], ran["greet"], url=board).out
    assert typed("diff", ran["totals"], "nothing", url=board).code == Exit.NOT_FOUND


def test_check(board: str, gate: Path, typed: Typed, tmp_path: Path) -> None:
    """Runs that have not ended are held against an application's code, and others where that is asked for."""
    other = tmp_path / "new_code.py"
    other.write_text(
        CODE.replace(
            "totals(",
            "holds(gate: str) -> str:\n    print('noise')\n    return gate\n\n@workflow\nasync def totals(",
        )
    )
    with connect_sync(board) as client:
        run = client.submit("holds", {"gate": str(gate)})
        wait_for(Path(f"{gate}.started"))
        eventually(lambda: any(one.run == run for one in client.runs()))
        well = typed("check", f"{APP}:holds", url=board)
        assert (well.code, "does what is on record of all 1" in well.out) == (Exit.OK, True), well
        changed = typed("check", other, "--json", url=board)
        (found,) = changed.json
        assert (changed.code, found["run"], found["status"]) == (Exit.FAILED, run, "running")
        assert found["problem"] == f"at {run}:1 the run waits for hold.call, the code does not"
        text = typed("check", other, url=board).out
        assert found["problem"] in text
        assert f"1 of 1 do not go on under {other}; let these end on hosts with the code" in text
        gate.touch()
        client.done(run, timeout=20)
        eventually(lambda: all(one.finished for one in client.runs()))
    nothing = typed("check", other, url=board)
    assert (nothing.code, "--ended 20 checks some that have" in nothing.out) == (Exit.OK, True)
    ended = typed("check", APP, "--ended", 1, "--json", url=board)
    assert (ended.code, run in {one["run"] for one in ended.json}) == (Exit.OK, True)
    assert typed("check", "no.py", url=board).code == Exit.NOT_FOUND
