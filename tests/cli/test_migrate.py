"""``callboard migrate``: from the one host to the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.terminal import Running, Typed

from callboard.cli.exits import Exit

CODE = """
from callboard import ManagedList, agent, workflow
@agent
class Notes:
    lines: ManagedList[str]
    async def add(self, text: str) -> int:
        self.lines.append(text)
        return len(self.lines)
@workflow
async def note(text: str) -> int:
    return await Notes.add(text)
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An application with an agent that keeps something."""
    file = tmp_path / "notes_app.py"
    file.write_text(CODE)
    return file


def _holder(typed: Typed, url: str, session: str = "s") -> str:
    return str(typed("state", "show", "Notes", session, "--json", url=url).json["holder"])


def test_a_session_is_moved(app: Path, nats_url: str, typed: Typed) -> None:
    """To the other host, or to the one that is named; with others, in one go."""
    with (
        Running("host", app, "--json", url=nats_url) as one,
        Running("host", app, "--json", url=nats_url) as two,
    ):
        one.until('"event":"host_ready"')
        two.until('"event":"host_ready"')
        for session in ("s", "t"):
            assert typed("run", "note", "--text", "x", "--session", session, url=nats_url).code == Exit.OK
        first = _holder(typed, nats_url)
        (moved,) = typed("migrate", "s", "Notes", "--json", url=nats_url).json
        assert moved["host"] == _holder(typed, nats_url) != first
        told = typed("migrate", "s", "Notes", "--also", "t", "--to", first, url=nats_url)
        assert told.out.splitlines() == [f"session s is on {first}", f"session t is on {first}"]
        assert _holder(typed, nats_url) == _holder(typed, nats_url, "t") == first
        second = moved["host"]
        stays = typed("route", "set", "Notes", second, "--session", "s", url=nats_url)
        assert (stays.code, f"session s is at {first}, and stays there" in stays.err) == (Exit.OK, True)
        there = typed("route", "set", "Notes", first, "--session", "s", url=nats_url)
        assert "stays there" not in there.err
        elsewhere = typed("migrate", "s", "Notes", "--from", "h-other", url=nats_url)
        assert (elsewhere.code, first in elsewhere.err) == (Exit.FAILED, True)
        assert typed("migrate", "nobody", "Notes", url=nats_url).code == Exit.NOT_FOUND
        assert typed("run", "note", "--text", "x", "--session", "s", url=nats_url).out == "2\n"
