"""``callboard run``: results, errors, watching, interrupting, and the same without a server."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.terminal import APP, ENDS_WITHIN, Running, Typed, callboard, command, environment, wait_for

from callboard.cli.exits import Exit


def test_text_is_printed_as_it_is(board: str, typed: Typed) -> None:
    """So that it can be piped on; nothing else is on stdout or stderr."""
    assert typed("run", "greet", "--name", "Ada", url=board) == (Exit.OK, "Hello Ada\n", "")


def test_other_values_are_printed_as_json(board: str, typed: Typed) -> None:
    """Readably."""
    ran = typed("run", "totals", "--numbers", "[1, 2, 3]", "--nats", board)
    assert ran.json == {"total": 12, "apart": 7}
    assert ran.out.startswith('{\n  "total"')


def test_with_json_it_is_one_object(board: str, typed: Typed) -> None:
    """{run, status, value}."""
    ran = typed("run", "greet", "--name", "Ada", "--json", "--run-id", "mine-1", url=board)
    assert ran.code == Exit.OK
    assert ran.json == {"run": "mine-1", "status": "completed", "value": "Hello Ada"}


@pytest.mark.parametrize("where", ["board", "local"])
def test_every_kind_of_argument(where: str, board: str, typed: Typed) -> None:
    """Options by their types, the same with and without a server."""
    place = ["--local", APP] if where == "local" else ["--nats", board]
    ran = typed(
        *("run", "typed", "--text", "-7", "--count", "-3", "--day", "2026-01-31", "--tags", "a", "b", "--on"),
        *("--plan", '{"title": "t", "steps": [1]}', "--args", '{"raw": "aGk="}', "--arg", "ratio=2"),
        *("--dashed-name", "x", *place),
    )
    plan = {"title": "t", "steps": [1]}
    assert ran.json == ["-7", -3, 2.0, True, "2026-01-31", "fast", ["a", "b"], "aGk=", plan, "x"]


def test_a_failed_run(board: str, typed: Typed) -> None:
    """Exit code 1; the path, the cause and the user's own lines of the remote traceback on stderr."""
    ran = typed("run", "fails", url=board)
    assert (ran.code, ran.out) == (Exit.FAILED, "")
    assert re.match(
        r"error: run \w+ of fails failed: .*broken\.call.* failed: KeyError: 'nothing there'\n", ran.err
    )
    assert re.findall("^  in (.*)$", ran.err, re.MULTILINE) == ["fails > add.call", "fails > broken.call"]
    assert 'raise KeyError("nothing there")' in ran.err
    assert "actors/handling.py" not in ran.err
    assert "callboard show" in ran.err


def test_a_failed_run_as_json(board: str, typed: Typed) -> None:
    """{run, status, error}."""
    ran = typed("run", "fails", "--json", url=board)
    assert ran.code == Exit.FAILED
    assert set(ran.json) == {"run", "status", "error"}
    assert ran.json["status"] == "failed"
    assert ran.json["error"]["code"] == "dependency_failed"
    assert ran.json["error"]["cause"]["message"] == "KeyError: 'nothing there'"


def test_an_unknown_workflow_is_guessed(board: str, typed: Typed) -> None:
    """Exit code 4, and nothing is submitted."""
    ran = typed("run", "gret", url=board)
    assert ran.code == Exit.NOT_FOUND
    assert "did you mean 'greet'?" in ran.err
    assert typed("run", "add", "--a", "1", url=board).code == Exit.NOT_FOUND  # a tool is no workflow


def test_wrong_arguments_are_a_usage_error(board: str, typed: Typed) -> None:
    """With what the workflow takes, and no run made."""
    before = typed("runs", "--workflow", "typed", "--json", "--limit", 1000, url=board).json
    ran = typed("run", "typed", "--text", "a", "--count", "many", url=board)
    assert ran.code == Exit.USAGE
    assert "--count integer (required)" in ran.err
    assert typed("runs", "--workflow", "typed", "--json", "--limit", 1000, url=board).json == before


def test_the_same_run_id_is_the_same_run(board: str, typed: Typed) -> None:
    """The second request gives the first one's result; another request under the id is refused."""
    for _ in range(2):
        assert typed("run", "greet", "--name", "Ada", "--run-id", "twice", url=board).out == "Hello Ada\n"
    ran = typed("run", "greet", "--name", "Bob", "--run-id", "twice", url=board)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert "run id twice is taken by a run of workflow greet with other arguments" in ran.err


def test_what_a_run_may_spend(board: str, typed: Typed) -> None:
    """``--budget`` is the run's own; it is stored with its request, as are the other options."""
    options = ("--deadline", "60", "--priority", "2", "--key", "team-a", "--run-id", "thrifty")
    budget = "calls=3, usd=0.5,when_spent=ask"
    typed("run", "greet", "--name", "Ada", "--budget", budget, *options, url=board)
    (found,) = [one for one in typed("budget", "--json", url=board).json if one["id"] == "thrifty"]
    assert found["budget"] == {"calls": 3, "usd": 0.5, "when_spent": "ask"}


@pytest.mark.parametrize("budget", ["calls", "calls=x", "cals=3", "calls=3,,", "when_spent=beg"])
def test_a_budget_that_is_none(board: str, typed: Typed, budget: str) -> None:
    """Nothing is submitted."""
    ran = typed("run", "greet", "--name", "Ada", "--budget", budget, "--run-id", "beggar", url=board)
    assert ran.code == Exit.USAGE
    assert "when_spent" in ran.err
    assert typed("show", "beggar", url=board).code == Exit.NOT_FOUND


def test_the_session_is_the_runs(board: str, typed: Typed) -> None:
    """``--session`` reaches the run."""
    typed("run", "greet", "--name", "Ada", "--session", "s-1", "--run-id", "sessioned", url=board)
    assert typed("show", "sessioned", "--json", url=board).json["session"] == "s-1"


@pytest.mark.parametrize("option", ["--session", "--run-id", "--key"])
def test_an_empty_option_is_told(option: str, board: str, typed: Typed) -> None:
    """A variable of the shell that is not set: not a run of another session, or one more run."""
    refused = typed("run", "greet", "--name", "x", option, "", url=board)
    assert (refused.code, refused.err) == (2, f"error: {option} is empty: give one, or leave it out\n")


def test_a_run_that_nobody_waits_for(board: str, gate: Path, typed: Typed) -> None:
    """Its id and nothing else is on stdout; it goes on by itself."""
    ran = typed("run", "holds", "--gate", gate, "--detach", url=board)
    run = ran.out.strip()
    assert (ran.code, ran.out.split()) == (Exit.OK, [run])
    assert f"'callboard show {run}'" in ran.err
    wait_for(Path(f"{gate}.started"))
    gate.touch()
    again = typed("run", "holds", "--gate", gate, "--detach", "--run-id", run, "--json", url=board)
    assert again.json == {"run": run, "status": "accepted"}
    assert typed("run", "holds", "--gate", gate, "--run-id", run, url=board).out == "let go\n"


def test_the_result_later(board: str, gate: Path, typed: Typed) -> None:
    """As the command that submits tells it: the value, the error, that it takes too long, that there is no such."""
    run = typed("run", "holds", "--gate", gate, "--detach", url=board).out.strip()
    wait_for(Path(f"{gate}.started"))
    late = typed("result", run, "--timeout", "0.1", url=board)
    assert (late.code, "it goes on" in late.err) == (Exit.TIMED_OUT, True)
    with Running("result", run, "--watch", url=board) as waiting:
        waiting.until("hold.call")
        waiting.send(signal.SIGINT)
        assert waiting.wait() == Exit.INTERRUPTED
        assert f"run {run} goes on" in waiting.output
    assert typed("show", run, "--json", url=board).json["status"] == "running"
    gate.touch()
    assert typed("result", run, url=board) == (Exit.OK, "let go\n", "")
    assert typed("result", run, "--json", url=board).json == {
        "run": run, "status": "completed", "value": "let go",
    }  # fmt: skip
    assert "hold.call" in typed("result", run, "--watch", url=board).err
    failed = typed("run", "fails", "--detach", url=board).out.strip()
    told = typed("result", failed, url=board)
    assert (told.code, f"error: run {failed} of fails failed: " in told.err) == (Exit.FAILED, True)
    assert typed("result", "nothing", url=board).code == Exit.NOT_FOUND


@pytest.mark.parametrize("other", [["--watch"], ["--timeout", "1"], ["--local", APP]])
def test_who_leaves_does_not_wait(other: list[str], board: str, typed: Typed) -> None:
    """What cannot be had together is told before anything is sent."""
    ran = typed("run", "greet", "--name", "x", "--detach", *other, url=board)
    assert (ran.code, "--detach waits for nothing" in ran.err) == (Exit.USAGE, True)


def test_a_result_that_takes_too_long(board: str, gate: Path, typed: Typed) -> None:
    """Exit code 5 after ``--timeout``; the run goes on and can be found."""
    ran = typed("run", "holds", "--gate", gate, "--timeout", "0.3", "--run-id", "slow", url=board)
    assert ran.code == Exit.TIMED_OUT
    assert "callboard show slow" in ran.err
    gate.touch()
    assert typed("run", "holds", "--gate", gate, "--run-id", "slow", url=board).out == "let go\n"


def test_a_workflow_that_nobody_drives(nats_url: str, typed: Typed) -> None:
    """It is said that the run waits, and for what."""
    with Running("host", f"{APP}:greet", "--json", url=nats_url) as host:
        host.until('"host_ready"')
    ran = typed("run", "greet", "--name", "x", "--timeout", "0.2", url=nats_url)
    assert ran.code == Exit.TIMED_OUT
    assert "no host drives greet" in ran.err
    run = typed("run", "greet", "--name", "x", "--detach", url=nats_url).out.strip()
    later = typed("result", run, "--timeout", "0.2", url=nats_url)
    assert (later.code, "no host drives greet" in later.err) == (Exit.TIMED_OUT, True)


# -- watching ---------------------------------------------------------------------------------------


def test_watching_without_a_terminal(board: str, typed: Typed) -> None:
    """A line for each piece of news on stderr; stdout has the result alone."""
    ran = typed("run", "totals", "--numbers", "[1, 2]", "--watch", url=board)
    assert ran.json == {"total": 6, "apart": 7}
    calls = [re.split(r"\s+", text.strip())[:3] for text in ran.err.splitlines()]
    assert ["3", "Scarce.sum_up", "waiting"] in calls
    assert ["3.1", "add.call", "done"] in calls
    assert ["3", "Scarce.sum_up", "done"] in calls


def test_watching_tells_what_runs_and_where(board: str, gate: Path) -> None:
    """While it does: the journal has nothing of a call before its outcome."""
    with Running("run", "holds", "--gate", gate, "--watch", url=board) as running:
        assert re.search(r"^1 +hold.call +running +on h-\w+, waited ", running.until("hold.call"))
        gate.touch()
        assert re.search(r"^1 +hold.call +done +on h-\w+, ", running.until("hold.call"))
        assert running.wait() == Exit.OK


def test_watching_as_json(board: str, typed: Typed) -> None:
    """JSON lines: what happens in the order of the journal, then the outcome."""
    ran = typed("run", "fails", "--watch", "--json", "--run-id", "watched", url=board)
    assert ran.code == Exit.FAILED
    kinds = [told.get("event") for told in ran.lines]
    assert kinds[0] == "owner"
    assert kinds[-2:] == ["done", None]
    assert (ran.lines[-1]["run"], ran.lines[-1]["status"]) == ("watched", "failed")
    sequences = [told["sequence"] for told in ran.lines[:-1]]
    assert sequences == sorted(sequences)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *arguments: object, url: str) -> None:
        master, slave = pty.openpty()
        self._master = master
        self.process = subprocess.Popen(
            command(*arguments),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(url, TERM="xterm", LINES="30"),
            start_new_session=True,
        )
        os.close(slave)
        self.screen = ""

    def until(self, text: str) -> None:
        """Wait until the text was on the screen."""
        ends = time.monotonic() + ENDS_WITHIN
        while text not in self.screen:
            assert time.monotonic() < ends, self.screen
            assert self._read(), self.screen

    def _read(self) -> bool:
        if not select.select([self._master], [], [], ENDS_WITHIN)[0]:
            return False
        try:
            more = os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # what Linux says at the end
            return False
        self.screen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", more)
        return bool(more)

    def type(self, text: str) -> None:
        """Type something."""
        os.write(self._master, text.encode())

    def wait(self) -> int:
        """Read on to its end; returns the exit code."""
        while self._read():
            pass
        os.close(self._master)
        return self.process.wait(ENDS_WITHIN)


@pytest.mark.skipif(sys.platform == "win32", reason="terminals are of another kind there")
def test_watching_on_a_terminal(board: str, gate: Path) -> None:
    """A table of the calls, live: it is there while the call waits, and has its end at the end."""
    terminal = Terminal("run", "holds", "--gate", gate, "--watch", url=board)
    terminal.until("no calls yet")
    terminal.until("1 running")
    gate.touch()
    terminal.until("1 done")
    terminal.until("hold.call")
    assert terminal.wait() == Exit.OK
    assert terminal.screen.rstrip().endswith("let go")


# -- interrupting -----------------------------------------------------------------------------------


def test_an_interrupt_cancels_the_run(board: str, gate: Path, typed: Typed) -> None:
    """Without a terminal nobody is asked; the call on the host is cancelled too, and it is said."""
    with Running("run", "holds", "--gate", gate, "--run-id", "stopped", url=board) as running:
        wait_for(Path(f"{gate}.started"))
        running.send(signal.SIGINT)
        assert running.wait() == Exit.INTERRUPTED
        assert "cancelled run stopped" in running.output
    wait_for(Path(f"{gate}.cancelled"))
    assert typed("show", "stopped", "--json", url=board).json["status"] == "cancelled"


@pytest.mark.parametrize(
    ("answer", "status"), [("y\n", "cancelled"), ("n\n", "running"), ("\x03", "running")]
)
def test_on_a_terminal_an_interrupt_asks(
    answer: str, status: str, board: str, gate: Path, typed: Typed
) -> None:
    """Yes cancels; no, or a second Ctrl-C, leaves the run alone. It ends by an interrupt either way."""
    run = f"asked-{ord(answer[0])}"
    terminal = Terminal("run", "holds", "--gate", gate, "--run-id", run, url=board)
    wait_for(Path(f"{gate}.started"))
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.until(f"cancel run {run}?")
    if answer == "\x03":
        os.kill(terminal.process.pid, signal.SIGINT)
    else:
        terminal.type(answer)
    assert terminal.wait() == Exit.INTERRUPTED, terminal.screen
    assert ("cancelled run" if status == "cancelled" else f"run {run} goes on") in terminal.screen
    assert typed("show", run, "--json", url=board).json["status"] == status
    gate.touch()


# -- without a server -------------------------------------------------------------------------------


def test_local_prints_the_same(board: str, typed: Typed) -> None:
    """Results, JSON and errors."""
    for workflow, *arguments in (["greet", "--name", "x"], ["totals", "--numbers", "[1]"], ["fails"]):
        there = typed("run", workflow, *arguments, url=board)
        here = typed("run", workflow, *arguments, "--local", APP)
        assert (here.code, here.out) == (there.code, there.out)
        told = typed("run", workflow, *arguments, "--local", APP, "--json")
        assert told.json["run"] == "local"
        assert set(told.json) == {"run", "status", "error" if here.code else "value"}


def test_local_errors_say_where(typed: Typed) -> None:
    """The path in the workflow and the user's lines."""
    ran = typed("run", "fails", "--local", APP)
    assert ran.code == Exit.FAILED
    assert "in fails > add.call" in ran.err
    assert 'raise KeyError("nothing there")' in ran.err
    assert "actors/local.py" not in ran.err


def test_local_ends_although_a_thread_does_not(gate: Path) -> None:
    """A blocking handler that never returns does not keep the command from ending."""
    ran = callboard("run", "sticks", "--gate", gate, "--local", APP, "--timeout", "3")
    assert ran.code == Exit.TIMED_OUT
    assert Path(f"{gate}.started").exists()


def test_local_can_be_interrupted(gate: Path) -> None:
    """Ctrl-C ends it, stuck or not."""
    with Running("run", "sticks", "--gate", gate, "--local", APP) as running:
        wait_for(Path(f"{gate}.started"))
        running.send(signal.SIGINT)
        assert running.wait() == Exit.INTERRUPTED


def test_a_broken_application_is_shown(tmp_path: Path, typed: Typed) -> None:
    """The user's traceback, then the error."""
    path = tmp_path / "broken_app_8.py"
    path.write_text("1 / 0\n")
    ran = typed("run", "greet", "--local", path)
    assert ran.code == Exit.FAILED
    assert f'File "{path}", line 1' in ran.err
    assert "error: " in ran.err.splitlines()[-1]
