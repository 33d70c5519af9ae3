"""The command line itself: quick to load, explains itself, ends with codes that mean something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.terminal import APP, ENDS_WITHIN, Typed, callboard, command, environment

from callboard import __version__
from callboard.cli.commands import build
from callboard.cli.common import DEFAULTS
from callboard.cli.exits import MEANING, Exit, exit_for
from callboard.infra.errors import CallboardError, by_code

COMMANDS = (
    "dev", "run", "host", "up", "runs", "show", "actors", "doctor", "cancel", "stubs",
    "dead list", "dead show", "dead requeue", "dead purge", "control drain",
)  # fmt: skip
NOBODY = "nats://127.0.0.1:1"


def test_loads_nothing_heavy() -> None:
    """``import callboard.cli`` and even all commands' names cost no rich, no NATS, no file watcher."""
    code = (
        "import sys, callboard.cli, callboard.cli.commands as c; c.build();"
        "print([m for m in ('rich', 'nats', 'watchfiles', 'faststream', 'psutil') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_command_loads_only_its_own() -> None:
    """A command that needs neither a server nor a file watcher loads neither."""
    code = (
        "import sys; from callboard.cli.commands import run\n"
        f"run(['run', 'greet', '--name', 'x', '--local', {str(APP)!r}])\n"
        "print([m for m in ('watchfiles', 'faststream', 'nats', 'psutil') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["Hello x", "[]"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, typed: Typed) -> None:
    """Its help has its own text, the options of every command, and what the exit codes mean."""
    ran = typed(*name.split(), "--help")
    assert ran.code == Exit.OK
    said = " ".join(ran.out.replace("│", " ").split())
    assert f"Usage: callboard {name}" in said
    assert "--nats" in said
    assert "--json" in said
    for code, meaning in MEANING.items():
        assert f"{code.value} {meaning}" in said


def test_the_list_names_every_command() -> None:
    """``callboard --help`` lists what there is, each with a line."""
    ran = callboard("--help")
    listed = [line.strip("│ \n").split("  ", 1) for line in ran.out.splitlines() if line.startswith("│")]
    described = {entry[0].strip(): entry[1].strip() for entry in listed if len(entry) == 2}
    assert {name.split()[0] for name in COMMANDS} <= {name for name, text in described.items() if text}


def test_version() -> None:
    """``--version`` prints the package's version and nothing else."""
    assert callboard("--version") == (Exit.OK, f"{__version__}\n", "")


def test_completion_for_shells(tmp_path: Path) -> None:
    """``--install-completion`` writes a script that knows the commands and their options."""
    script = tmp_path / "completion.bash"
    ran = callboard("--install-completion", "--shell", "bash", "--output", script, HOME=str(tmp_path))
    assert ran.code == Exit.OK
    assert "--durability" in script.read_text()
    assert "requeue" in script.read_text()


def test_every_exit_code_has_a_meaning() -> None:
    """The one table is whole."""
    assert set(MEANING) == set(Exit)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nonsense"], Exit.USAGE),
        (["runs", "--limit", "many"], Exit.USAGE),
        (["runs", "--status", "odd"], Exit.USAGE),
        (["show"], Exit.USAGE),
        (["run", "greet", "--args", "{"], Exit.USAGE),
        (["run", "greet", "--args", "[1]"], Exit.USAGE),
        (["run", "greet", "--local", str(APP), "--watch"], Exit.USAGE),
        (["dev", str(APP), "--nats", NOBODY, "--port", "1"], Exit.USAGE),
        (["dev", str(APP), "--nats", NOBODY, "--store", "x"], Exit.USAGE),
        (["dead", "purge", "--nats", NOBODY], Exit.USAGE),
        (["up", "--nats", NOBODY], Exit.USAGE),
        (["runs", "--nats", NOBODY], Exit.NO_SERVER),
        (["doctor", "--nats", NOBODY], Exit.NO_SERVER),
        (["run", "greet", "--nats", NOBODY], Exit.NO_SERVER),
        (["host", f"{APP}:gret", "--nats", NOBODY], Exit.NOT_FOUND),
        (["run", "gret", "--local", str(APP)], Exit.NOT_FOUND),
        (["host", "nowhere.py", "--nats", NOBODY], Exit.NOT_FOUND),
    ],
)
def test_an_error_is_one_line_and_a_code(arguments: list[str], code: Exit, typed: Typed) -> None:
    """Expected errors: a text on stderr, no traceback, nothing on stdout; with --json the same as data."""
    plain = typed(*arguments)
    assert (plain.code, plain.out) == (code, "")
    assert "Traceback" not in plain.err
    assert any(line.startswith("error: ") for line in plain.err.splitlines())
    told = typed(*arguments, "--json")
    assert told.code == code
    error = told.json["error"]
    assert set(error) == {"code", "message", "fields"}
    assert error["message"] in plain.err


@pytest.mark.parametrize(
    ("arguments", "where"),
    [
        (["dead", "requeue"], "'callboard dead requeue --help' tells how"),
        (["runs", "--limit", "many"], "'callboard runs --help' tells how"),
        (["nothing"], "'callboard --help' lists the commands"),
    ],
)
def test_a_usage_error_says_where_help_is(arguments: list[str], where: str, typed: Typed) -> None:
    """That of the command, if there is one of this name."""
    assert where in typed(*arguments).err


@pytest.mark.parametrize(
    "arguments",
    [
        ["dev", str(APP), "-n", "0"],
        ["dev", str(APP), "--grace", "-1"],
        ["dev", str(APP), "--port", "70000"],
        ["up", "--port", "-1"],
        ["host", str(APP), "--grace", "-1"],
        ["host", str(APP), "--mcp-timeout", "-1"],
        ["gateway", "--wait", "-1"],
        ["controller", "--hosts", "-1"],
        ["run", "greet", "--timeout", "nan"],
        ["runs", "--limit", "0"],
        ["dead", "list", "--limit", "-3"],
        ["policy", "log", "-n", "0"],
        ["migrate", "Agent", "session", "--to", "h-1", "--timeout", "-1"],
    ],
    ids=" ".join,
)
def test_a_number_that_makes_no_sense_is_refused(arguments: list[str], typed: Typed) -> None:
    """Before anything is started or asked, with the option and what it may be."""
    ran = typed(*arguments, url=NOBODY)
    assert (ran.code, ran.out) == (Exit.USAGE, "")
    assert f'Invalid value "{float(arguments[-1]):g}' in ran.err
    assert f"for {arguments[-2]}. Must be " in ran.err


def test_every_option_of_a_list_has_one_form_only(typed: Typed) -> None:
    """None of them can be said to be empty, which would do nothing."""
    for name in ("dev", "controller", "run", "host", "load"):
        assert "--empty-" not in typed(name, "--help").out


def test_a_process_ends_with_the_code() -> None:
    """What a command returns is what the shell sees, also of a host that cannot connect."""
    assert callboard("runs", "--nats", NOBODY).code == Exit.NO_SERVER
    assert callboard("host", APP, "--nats", NOBODY).code == Exit.NO_SERVER


def test_a_setting_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A bad environment is a usage error that says which setting."""
    ran = callboard("runs", cwd=tmp_path, CALLBOARD_REPLICAS="nine")
    assert ran.code == Exit.USAGE
    assert "replicas" in ran.err


def test_the_address_comes_from_option_environment_and_file(tmp_path: Path, typed: Typed) -> None:
    """In this order."""
    (tmp_path / "callboard.toml").write_text('nats_url = "nats://127.0.0.1:3"')

    def asked(*arguments: str, url: str = "") -> object:
        return typed("runs", "--json", *arguments, url=url).json["error"]["fields"]["url"]

    assert asked("--nats", NOBODY, url="nats://127.0.0.1:2") == NOBODY
    assert asked(url="nats://127.0.0.1:2") == "nats://127.0.0.1:2"
    assert asked() == "nats://127.0.0.1:3"


def test_the_address_that_every_nats_tool_takes_is_the_last_resort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is set, a server is looked for where ``nats`` itself would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NATS_URL", raising=False)
    assert DEFAULTS.settings().nats_url == "nats://127.0.0.1:4222"


def test_errors_of_every_class_end_with_a_code_that_is_documented() -> None:
    """No error class falls through the table."""
    assert {exit_for(cls("x")) for cls in by_code().values()} <= set(MEANING)
    assert exit_for(CallboardError("x")) == Exit.FAILED


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """``callboard ... | head`` prints no traceback."""
    ours, theirs = os.pipe()
    os.close(ours)
    words = command("run", "totals", "--numbers", json.dumps(list(range(9))), "--local", APP)
    with subprocess.Popen(
        words, stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment()
    ) as writer:
        os.close(theirs)
        _, said = writer.communicate(timeout=ENDS_WITHIN)
    assert writer.returncode == Exit.FAILED
    assert "Traceback" not in said
    assert "BrokenPipe" not in said


def test_build_is_repeatable() -> None:
    """Making the command line has no effects: two of them name the same commands."""
    assert list(build()) == list(build("run"))
