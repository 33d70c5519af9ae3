"""docs/agents.md: its example runs, and its tables are the code's."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from tests.docs.pages import DOCS, blocks, table

from callboard import Limits, LlmAgent
from callboard.cli.commands import run
from callboard.infra import errors

PAGE = DOCS / "agents.md"


def test_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what the page shows."""
    monkeypatch.chdir(tmp_path)
    app = next(block for block in blocks(PAGE) if block.title == "app.py")
    (tmp_path / "agents_app.py").write_text(app.text)
    shown = next(block.text for block in blocks(PAGE) if "--local" in block.text).splitlines()
    command = shown[0].removeprefix("$ callboard ").replace("app.py", "agents_app.py").split()
    assert run(command) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(shown[1])


def test_arguments() -> None:
    """All, with their defaults."""
    parameters = inspect.signature(LlmAgent.__init__).parameters
    own = [name for name in parameters if name not in {"self", "name", "directives"}]
    rows = table(PAGE, "Agents that are models with tools").records()
    assert [row["argument"].strip("`") for row in rows] == own
    for row in rows:
        default = parameters[row["argument"].strip("`")].default
        shown = {Limits(): "Limits()", str: "str", inspect.Parameter.empty: ""}.get(default, repr(default))
        assert row["default"].strip("`") == shown
    assert repr(Limits()) == "Limits(steps=20, tokens=None, seconds=None)"


def test_errors() -> None:
    """They exist, and all are there."""
    named = {row["error"].strip("`") for row in table(PAGE, "What happens").records()}
    base = errors.AgentExceeded
    assert {cls.__name__ for cls in base.__subclasses__()} == {
        one for one in named if one.startswith("Agent")
    }
