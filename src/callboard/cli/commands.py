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
    ("dev", "callboard.cli.dev:dev", _WORK, "Run an application with its own server, reloading on change."),
    ("run", "callboard.cli.run:run", _WORK, "Run a workflow and print its result."),
    ("result", "callboard.cli.run:result", _WORK, "Wait for a run and print its result."),
    ("fork", "callboard.cli.fork:fork", _WORK, "Run a workflow again from a step of a run."),
    ("host", "callboard.cli.host:host", _WORK, "Run actors and workflows of an application."),
    ("up", "callboard.cli.up:up", _WORK, "Run a NATS server and nothing else."),
    ("gateway", "callboard.cli.gateway:gateway", _WORK, "Answer requests in one round trip."),
    ("mcp", "callboard.cli.mcp:app", _WORK, "Offer tools and workflows to MCP clients."),
    ("controller", "callboard.cli.controller:controller", _WORK, "Follow what all hosts do."),
    ("load", "callboard.cli.load:load", _WORK, "Submit many requests at a rate, and say how long they took."),
    (
        "emulate-engine",
        "callboard.cli.emulate_engine:emulate_engine",
        _WORK,
        "Behave as an inference engine, without one: for load tests.",
    ),
    ("whatif", "callboard.cli.whatif:whatif", _LOOK, "Play what was, under policies or on other hosts."),
    ("telemetry", "callboard.cli.telemetry:app", _LOOK, "Keep what hosts have told."),
    ("top", "callboard.cli.top:top", _LOOK, "Show what goes on, live."),
    ("runs", "callboard.cli.runs:runs", _LOOK, "List runs."),
    ("show", "callboard.cli.runs:show", _LOOK, "Show what happened in a run."),
    (
        "replay",
        "callboard.cli.replay:replay",
        _LOOK,
        "Run a workflow's code against a run's record.",
    ),
    ("check", "callboard.cli.check:check", _LOOK, "Tell whether open runs would go on under other code."),
    ("diff", "callboard.cli.diff:diff", _LOOK, "Find the first step in which two runs differ."),
    ("why", "callboard.cli.why:why", _LOOK, "Tell why a call ran where and when it did."),
    ("inbox", "callboard.cli.inbox:inbox", _LOOK, "List what runs ask people."),
    ("actors", "callboard.cli.actors:actors", _LOOK, "List actors and the hosts that run them."),
    ("runtimes", "callboard.cli.runtimes:runtimes", _LOOK, "List how long calls take, by size."),
    ("doctor", "callboard.cli.doctor:doctor", _LOOK, "Find what is wrong, and say what fixes it."),
    ("state", "callboard.cli.state:app", _CARE, "Look at sessions' state, export, import or delete it."),
    ("migrate", "callboard.cli.migrate:migrate", _CARE, "Move an agent's session to another host."),
    ("answer", "callboard.cli.inbox:answer", _CARE, "Answer a question that a run asks."),
    ("signal", "callboard.cli.inbox:signal", _CARE, "Send a run a signal that it waits for."),
    ("cancel", "callboard.cli.runs:cancel", _CARE, "Cancel a run and all its calls."),
    ("dead", "callboard.cli.dead:app", _CARE, "Look at dead letters, send them again or drop them."),
    ("route", "callboard.cli.route:app", _CARE, "Say which hosts calls go to."),
    ("admit", "callboard.cli.admit:admit", _CARE, "Say how many requests of a workflow are accepted."),
    ("budget", "callboard.cli.budget:budget", _CARE, "Say what may be spent on models."),
    ("policy", "callboard.cli.policy:app", _CARE, "Say which policies controllers follow."),
    ("control", "callboard.cli.control:app", _CARE, "Tell running hosts what to do."),
    ("stubs", "callboard.cli.stubs:stubs", _CARE, "Write typed stubs of actors for other repositories."),
)


def build(chosen: str = "") -> App:
    """The command line; the module of a command is loaded when the command is called.

    Args:
        chosen: the command that will be called: its own text is its help, not the line of the list.
    """
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
    for place, (name, target, group, text) in enumerate(_COMMANDS):
        help_ = None if name == chosen else text
        app.command(target, name=name, group=group, sort_key=place, help=help_)
    app.register_install_completion_command()
    return app


def run(argv: Sequence[str]) -> int:
    """Run one command; returns its exit code. Expected errors are told, never raised."""
    output = Output(as_json="--json" in argv)
    try:
        return int(build(argv[0] if argv else "")(list(argv)) or Exit.OK)
    except CycloptsError as error:
        chain = " ".join(error.command_chain or ())
        help_ = f"'callboard {chain} --help' tells how" if chain else "'callboard --help' lists the commands"
        usage = UsageError(f"{str(error).strip()} ({help_})")
        return output.fail(usage, exit_for(usage))
    except CallboardError as error:
        return output.fail(error, exit_for(error))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough
        return output.silence()
