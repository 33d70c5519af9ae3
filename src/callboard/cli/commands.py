"""All commands by name, and how a command line becomes an exit code."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group

from callboard import __version__
from callboard.cli.exits import MEANING, Exit, UsageError, exit_for
from callboard.cli.output import Output
from callboard.infra.errors import CallboardError

_HELP = """LLM agent workflows as actors on NATS.

Begin with an application (see the README for one) and two terminals:

    callboard dev app.py
    callboard run research --question "Compare AAPL and MSFT"
"""

_EXITS = "Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANING.items()) + "."

_WORK = Group("Running", sort_key=1)
_LOOK = Group("Looking", sort_key=2)
_CARE = Group("Operating", sort_key=3)

_COMMANDS = (
    ("dev", "callboard.cli.dev:dev", _WORK),
    ("up", "callboard.cli.up:up", _WORK),
    ("host", "callboard.cli.host:host", _WORK),
    ("run", "callboard.cli.run:run", _WORK),
    ("cancel", "callboard.cli.runs:cancel", _WORK),
    ("runs", "callboard.cli.runs:runs", _LOOK),
    ("show", "callboard.cli.runs:show", _LOOK),
    ("actors", "callboard.cli.actors:actors", _LOOK),
    ("stubs", "callboard.cli.stubs:stubs", _CARE),
    ("dead", "callboard.cli.dead:app", _CARE),
    ("control", "callboard.cli.control:app", _CARE),
    ("doctor", "callboard.cli.doctor:doctor", _CARE),
)


def build() -> App:
    """The command line; the module of a command is loaded when the command is called."""
    app = App(
        name="callboard",
        help=_HELP,
        help_epilogue=_EXITS,
        version=__version__,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
    )
    for name, target, group in _COMMANDS:
        app.command(target, name=name, group=group)
    app.register_install_completion_command()
    return app


def run(argv: Sequence[str]) -> int:
    """Run one command; returns its exit code. Expected errors are told, never raised."""
    output = Output(as_json="--json" in argv)
    try:
        return int(build()(list(argv)) or Exit.OK)
    except CycloptsError as error:
        usage = UsageError(f"{str(error).strip()} ('callboard --help' lists the commands)")
        return output.fail(usage, exit_for(usage))
    except CallboardError as error:
        return output.fail(error, exit_for(error))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        return output.silence()
