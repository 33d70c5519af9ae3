"""``callboard state``: what agents keep for their sessions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from cyclopts import App, Parameter

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit, NotFound, UsageError, write
from callboard.cli.outcome import shortened, shown
from callboard.cli.output import clock, cut, out, pretty, table

if TYPE_CHECKING:
    from rich.console import Console

    from callboard.actors.client import Client
    from callboard.actors.deleting import Deleted
    from callboard.state.states import CommitInfo, StateInfo, States, StateView

T = TypeVar("T")

app = App(
    name="state",
    help="Look at what agents keep for their sessions, export, import or delete it.",
    result_action="return_value",
)
_FEW = 20
_SHORT = 400
_SESSION = 48


@app.command(name="list")
def list_(*, actor: str | None = None, common: Common = DEFAULTS) -> int:
    """List whose states there are.

    Args:
        actor: Only this agent's.
    """
    found = _with_states(common, lambda states: states.all(actor))
    common.output.answer(found, lambda screen: _print_list(found, screen))
    return Exit.OK


def _print_list(found: list[StateInfo], screen: Console) -> None:
    from rich.markup import escape

    if not found:
        screen.print("no states")
        return
    listed = table(("actor", "session", "version", "bytes", "since", "call"), numbers=("version", "bytes"))
    for one in found:
        listed.add_row(
            one.actor,
            escape(cut(one.session, _SESSION)),
            str(one.version),
            f"{one.size:,}",
            clock(one.at),
            "[red]damaged[/]" if one.damaged else escape(one.call),
        )
    screen.print(listed)


@app.command
def show(
    actor: str,
    session: str,
    /,
    *,
    revision: int | None = None,
    every: Annotated[bool, Parameter(negative=())] = False,
    full: Annotated[bool, Parameter(negative=())] = False,
    common: Common = DEFAULTS,
) -> int:
    """Show what an agent keeps for a session.

    On a terminal long values are cut.

        callboard state show Planner chat-7 --revision 12

    Args:
        actor: The agent.
        session: Its session.
        revision: As of this version; 'callboard state history' lists them.
        every: All items of long collections, not only the last.
        full: Long values whole.
    """
    view = _with_states(common, lambda states: states.show(actor, session, revision))
    common.output.answer(view, lambda screen: _print_state(view, screen, every=every, full=full))
    return Exit.OK


def _print_state(view: StateView, screen: Console, *, every: bool, full: bool) -> None:
    from rich.markup import escape

    def told(value: Any) -> str:
        return shown(value) if full or not screen.is_terminal else shortened(value, _SHORT, "--full")

    screen.print(f"[bold]{view.actor}[/]  {escape(view.session)}  version {view.version}", highlight=False)
    by = f", by {view.call}" if view.call else ""
    screen.print(f"{view.size:,} bytes, last changed {clock(view.at)}{by}", markup=False, highlight=False)
    for name, value in view.attributes.items():
        screen.print()
        if not isinstance(value, list | dict):
            screen.print(f"{name}: {told(value)}", markup=False, highlight=False, soft_wrap=True)
            continue
        rows = [f"{told(key)}: {told(one)}" for key, one in _rows(value)]
        left_out = 0 if every else max(len(rows) - _FEW, 0)
        lines = [f"{name} ({len(rows)})", *([f"  ... {left_out} more (--every)"] if left_out else [])]
        lines += [f"  {row}" for row in rows[left_out:]]
        screen.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _rows(value: list[Any] | dict[Any, Any]) -> list[tuple[Any, Any]]:
    return list(value.items()) if isinstance(value, dict) else list(enumerate(value))


@app.command
def history(actor: str, session: str, /, *, common: Common = DEFAULTS) -> int:
    """List the kept versions of a state, the oldest first: which call did what.

    Args:
        actor: The agent.
        session: Its session.
    """
    found = _with_states(common, lambda states: states.history(actor, session))
    common.output.answer(found, lambda screen: _print_history(found, screen))
    return Exit.OK


def _print_history(found: list[CommitInfo], screen: Console) -> None:
    from rich.markup import escape

    titles = ("revision", "at", "call", "holder", "bytes", "changed")
    listed = table(titles, numbers=("revision", "bytes"), texts=("changed",))
    for one in found:
        changed = "; ".join(f"{name}: {what}" for name, what in one.changed.items())
        listed.add_row(
            str(one.version) if one.readable else f"[dim]{one.version}[/]",
            clock(one.at),
            escape(one.call),
            one.holder,
            f"{one.size:,}",
            f"[red]{escape(one.damaged)}[/]" if one.damaged else escape(changed),
        )
    screen.print(listed)


@app.command
def export(
    actor: str,
    session: str,
    /,
    *,
    revision: int | None = None,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    common: Common = DEFAULTS,
) -> int:
    """Write a state as a JSON document, that 'callboard state import' reads.

    Args:
        actor: The agent.
        session: Its session.
        revision: As of this version.
        output: File to write; by default it is printed.
    """
    document = _with_states(common, lambda states: states.export(actor, session, revision))
    if output is None:
        out(pretty(document))
        return Exit.OK
    write(output, pretty(document) + "\n")
    data = {"actor": actor, "session": session, "version": document.version, "file": str(output)}
    common.output.answer(data, lambda screen: screen.print(f"wrote {output}", highlight=False))
    return Exit.OK


@app.command(name="import")
def import_(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    session: str | None = None,
    replace: Annotated[bool, Parameter(negative=())] = False,
    common: Common = DEFAULTS,
) -> int:
    """Store a state from a document of 'callboard state export'.

    Args:
        file: The document; '-' reads standard input.
        session: For this session, whatever the document says.
        replace: Also where there is a state already. A call that runs for the session starts over.
    """
    from callboard.state.states import Export

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8")
        document = msgspec.json.decode(text, type=Export)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {file}", what="file", name=str(file)) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} is no document of 'callboard state export': {error}") from error
    if session == "":
        raise UsageError("--session is empty: name a session, or leave it out to take the document's")
    document.session = session or document.session
    version = _with_states(common, lambda states: states.import_(document, replace=replace))
    data = {"actor": document.actor, "session": document.session, "version": version}
    text = f"{document.actor} has the state of session {document.session}, version {version}"
    common.output.answer(data, lambda screen: screen.print(text, markup=False, highlight=False))
    return Exit.OK


@app.command
def delete(
    actor: str | None = None,
    session: str | None = None,
    *,
    yes: Annotated[bool, Parameter(alias="-y", negative=())] = False,
    common: Common = DEFAULTS,
) -> int:
    """Remove every trace of what an agent keeps for a session, or all agents.

    Journals of its runs, and large values in them, stay until their age.

        callboard state delete Planner chat-7
        callboard state delete --session chat-7

    Args:
        actor: The agent; left out: all agents, and the session's routes and priorities, too.
        session: The session.
        yes: Do not ask.
    """
    if not session:
        raise UsageError("name the session: 'callboard state delete AGENT SESSION', or --session SESSION")
    if actor is None:
        return _delete_everywhere(session, common, yes=yes)
    what = f"the state of session {session} at {actor}"
    if not _sure(what, common, yes=yes):
        return Exit.OK
    _with_states(common, lambda states: states.delete(actor, session))
    common.output.answer(
        {"deleted": {"actor": actor, "session": session}},
        lambda screen: screen.print(f"removed {what}", markup=False),
    )
    return Exit.OK


def _delete_everywhere(session: str, common: Common, *, yes: bool) -> int:
    """A session at all agents, with its routes and priorities."""
    from callboard.actors import deleting

    if not yes:
        found = _with_client(common, lambda client: deleting.look(client.node, session))
        if not _sure(_told(found), common, yes=yes):
            return Exit.OK
    deleted = _with_client(common, lambda client: client.delete_session(session))
    common.output.answer(
        {"deleted": deleted},
        lambda screen: screen.print(f"removed {_told(deleted)}", markup=False, highlight=False),
    )
    return Exit.OK


def _told(found: Deleted) -> str:
    """What there is of a session, in words."""
    priorities = [actor or "all actors" for actor in found.priorities]
    parts = (("state", found.states), ("route", found.routes), ("priority", priorities))
    listed = "; ".join(f"its {what} at {', '.join(actors)}" for what, actors in parts if actors)
    return f"session {found.session}: {listed}"


def _sure(what: str, common: Common, *, yes: bool) -> bool:
    """Whether something may be removed for good; asked on a terminal, unless it was said.

    Raises:
        UsageError: nobody can be asked.
    """
    if yes:
        return True
    if common.json or not sys.stdin.isatty():
        raise UsageError(f"this removes {what} for good: say --yes")
    return input(f"remove {what} for good? [y/N] ").strip().lower() in {"y", "yes"}


def _with_states(common: Common, work: Callable[[States], Awaitable[T]]) -> T:
    return _with_client(common, lambda client: work(client.state))


def _with_client(common: Common, work: Callable[[Client], Awaitable[T]]) -> T:
    async def connected() -> T:
        async with common.client() as client:
            return await work(client)

    return asyncio.run(connected())
