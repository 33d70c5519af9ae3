"""``callboard state``: what agents keep for their sessions."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.terminal import Typed, command, environment
from tests.support.state import Actor

from callboard.actors.node import Node
from callboard.cli import state
from callboard.cli.exits import Exit
from callboard.infra.settings import Settings
from callboard.state.dicts import ManagedDict
from callboard.state.lists import ManagedList
from callboard.state.shelf import NatsShelf


class Planner:
    """Two collections."""

    history: ManagedList[str]
    notes: ManagedDict[str, int]


@pytest.fixture
def kept(nats_url: str) -> str:
    """The address of a server with one state of three versions."""

    async def make() -> None:
        node = await Node(Settings.load({}, nats_url=nats_url), "test").open()
        shelf = NatsShelf(node.connection, node.store, node.reader, node.topology, node.settings)
        planner = Actor(Planner, shelf, node.settings)
        for number in range(3):
            async with planner.call(f"r1:{number}", "chat-7"):
                planner.agent.history.extend(f"turn {number}.{n}" for n in range(10))
                planner.agent.notes["count"] = number
        await node.close()

    asyncio.run(make())
    return nats_url


def test_states_are_listed(kept: str, typed: Typed) -> None:
    """For people and for programs; by actor."""
    found = typed("state", "list", "--json", url=kept).json
    assert [(one["actor"], one["session"], one["version"]) for one in found] == [("Planner", "chat-7", 3)]
    lines = typed("state", "list", url=kept).out.splitlines()
    assert lines[1].split()[:3] == ["Planner", "chat-7", "3"]
    assert typed("state", "list", "--actor", "Other", url=kept).out == "no states\n"


def test_a_long_session_leaves_room_for_the_rest(kept: str, typed: Typed, tmp_path: Path) -> None:
    """It is cut for people, and whole for programs."""
    file, session = tmp_path / "state.json", "y" * 300
    assert typed("state", "export", "Planner", "chat-7", "-o", file, url=kept).code == Exit.OK
    assert typed("state", "import", file, "--session", session, url=kept).code == Exit.OK
    (line,) = [one for one in typed("state", "list", url=kept).out.splitlines() if "yyy" in one]
    assert line.split()[:3] == ["Planner", f"{'y' * 48}...", "1"]
    assert session in [one["session"] for one in typed("state", "list", "--json", url=kept).json]


def test_a_state_is_shown(kept: str, typed: Typed) -> None:
    """The last items of what is long; all of them when asked, or as JSON; as of a version."""
    out = typed("state", "show", "Planner", "chat-7", url=kept).out
    assert "history (30)" in out
    assert "... 10 more" in out
    assert ("turn 2.9" in out, "turn 0.1" in out, "count: 2" in out) == (True, False, True)
    assert "turn 0.1" in typed("state", "show", "Planner", "chat-7", "--every", url=kept).out
    old = typed("state", "show", "Planner", "chat-7", "--revision", "1", "--json", url=kept).json
    assert old["attributes"] == {"history": [f"turn 0.{n}" for n in range(10)], "notes": {"count": 0}}


def test_long_values_are_cut_on_a_terminal(kept: str, typed: Typed, tmp_path: Path) -> None:
    """Whole with --full, as JSON, and where another program reads."""
    long = "word " * 1000
    file = tmp_path / "long.json"
    document = typed("state", "export", "Planner", "chat-7", url=kept).json
    document["attributes"]["history"]["items"] = ["short", long]
    file.write_text(json.dumps(document))
    assert typed("state", "import", file, "--replace", url=kept).code == Exit.OK
    show = ("state", "show", "Planner", "chat-7")
    assert long.strip() in typed(*show, url=kept).out
    cut = typed(*show, url=kept, FORCE_COLOR="1").out
    assert "0: short" in cut
    assert "... 4,600 more characters (--full)" in cut
    assert len(cut) < 1000
    assert long.strip() in typed(*show, "--full", url=kept, FORCE_COLOR="1").out
    assert typed(*show, "--json", url=kept, FORCE_COLOR="1").json["attributes"]["history"][1] == long


def test_the_history_of_a_state(kept: str, typed: Typed) -> None:
    """Which call did what."""
    rows = typed("state", "history", "Planner", "chat-7", "--json", url=kept).json
    assert [(one["version"], one["call"]) for one in rows] == [(1, "r1:0"), (2, "r1:1"), (3, "r1:2")]
    assert "history: +10; notes: 1 put" in typed("state", "history", "Planner", "chat-7", url=kept).out


def test_a_state_is_exported_and_imported(kept: str, typed: Typed, tmp_path: Path) -> None:
    """Into a file or printed; over another only when that is said."""
    file = tmp_path / "state.json"
    assert typed("state", "export", "Planner", "chat-7", "-o", file, url=kept).code == Exit.OK
    assert typed("state", "export", "Planner", "chat-7", "-o", tmp_path, url=kept).code == Exit.USAGE
    assert json.loads(file.read_text()) == json.loads(
        typed("state", "export", "Planner", "chat-7", url=kept).out
    )
    taken = typed("state", "import", file, url=kept)
    assert (taken.code, "may be replaced (--replace" in taken.err) == (Exit.FAILED, True)
    again = typed("state", "import", file, "--replace", "--json", url=kept)
    assert again.json == {"actor": "Planner", "session": "chat-7", "version": 4}
    nameless = typed("state", "import", file, "--session", "", "--replace", url=kept)
    assert (nameless.code, "--session is empty" in nameless.err) == (Exit.USAGE, True)
    assert typed("state", "import", file, "--session", "other", url=kept).code == Exit.OK
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(json.loads(file.read_text()) | {"ttl": -5}))
    refused = typed("state", "import", wrong, "--session", "third", url=kept)
    assert (refused.code, "`$.ttl`" in refused.err) == (Exit.USAGE, True)
    shown = typed("state", "show", "Planner", "other", "--json", url=kept).json
    assert len(shown["attributes"]["history"]) == 30


def test_a_state_is_imported_from_standard_input(kept: str, typed: Typed) -> None:
    """As one is exported to standard output."""
    document = typed("state", "export", "Planner", "chat-7", url=kept).out
    ran = subprocess.run(
        command("state", "import", "-", "--session", "piped"),
        input=document,
        env=environment(kept),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == Exit.OK, ran.stderr
    assert typed("state", "show", "Planner", "piped", url=kept).code == Exit.OK


def test_a_state_is_deleted(kept: str, typed: Typed) -> None:
    """Only when that is said, where nobody can be asked."""
    assert typed("state", "delete", "Planner", "chat-7", url=kept).code == Exit.USAGE
    assert typed("state", "delete", "Planner", "chat-7", "--yes", url=kept).code == Exit.OK
    assert typed("state", "list", "--json", url=kept).json == []


def test_a_session_is_deleted_at_all_agents(kept: str, typed: Typed) -> None:
    """Only when that is said; an agent without a session is a slip."""
    assert typed("route", "set", "Other", "h-1", "--session", "chat-7", url=kept).code == Exit.OK
    refused = typed("state", "delete", "--session", "chat-7", url=kept)
    assert (
        refused.code,
        "this removes session chat-7: its state at Planner; its route at Other" in refused.err,
    ) == (
        Exit.USAGE,
        True,
    )
    assert typed("state", "delete", "Planner", "--yes", url=kept).code == Exit.USAGE
    assert typed("state", "delete", "--yes", url=kept).code == Exit.USAGE
    assert len(typed("state", "list", "--json", url=kept).json) == 1
    done = typed("state", "delete", "--session", "chat-7", "--yes", "--json", url=kept)
    assert done.json == {
        "deleted": {"session": "chat-7", "states": ["Planner"], "routes": ["Other"], "priorities": []}
    }
    assert (
        typed("state", "list", "--json", url=kept).json
        == typed("route", "list", "--json", url=kept).json
        == []
    )
    again = typed("state", "delete", "--session", "chat-7", "--yes", url=kept)
    assert (again.code, "there is nothing of session chat-7" in again.err) == (Exit.NOT_FOUND, True)


@pytest.mark.parametrize(("answer", "left"), [("n", 1), ("", 1), ("y", 0)])
def test_on_a_terminal_it_is_asked(
    kept: str, typed: Typed, monkeypatch: pytest.MonkeyPatch, answer: str, left: int
) -> None:
    """And told what would go."""
    asked: list[str] = []

    def ask(text: str) -> str:
        asked.append(text)
        return answer

    monkeypatch.setenv("NATS_URL", kept)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", ask)
    assert state.delete(session="chat-7") == Exit.OK
    assert asked == ["remove session chat-7: its state at Planner for good? [y/N] "]
    assert len(typed("state", "list", "--json", url=kept).json) == left


@pytest.mark.parametrize("command", ["show", "history", "export", "delete"])
def test_a_state_that_is_not_there(kept: str, typed: Typed, command: str) -> None:
    """It is named, with the exit code for what does not exist."""
    yes = ["--yes"] if command == "delete" else []
    ran = typed("state", command, "Planner", "nobody", *yes, url=kept)
    assert (ran.code, "no state of session nobody" in ran.err) == (Exit.NOT_FOUND, True)


def test_documents_that_are_none(nats_url: str, typed: Typed, tmp_path: Path) -> None:
    """Told apart from files that are not there."""
    assert typed("state", "import", tmp_path / "none.json", url=nats_url).code == Exit.NOT_FOUND
    (tmp_path / "wrong.json").write_text('{"format": "other"}')
    assert typed("state", "import", tmp_path / "wrong.json", url=nats_url).code == Exit.USAGE
