"""docs/models.md: its example runs, and its tables are the code's."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from tests.docs.pages import DOCS, blocks, table

from callboard.actors.models import served, stub
from callboard.cli.commands import run
from callboard.infra import errors

PAGE = DOCS / "models.md"


def test_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what the page shows; the stream's pieces are the text."""
    monkeypatch.chdir(tmp_path)
    app = next(block for block in blocks(PAGE) if block.title == "app.py")
    (tmp_path / "models_app.py").write_text(app.text)
    assert run(["run", "plan", "--question", "Compare", "--local", "models_app.py"]) == 0
    shown = next(block.text for block in blocks(PAGE) if "--local" in block.text and "$ " in block.text)
    assert re.findall(r"\w+", capsys.readouterr().out) == re.findall(r"\w+", shown.splitlines()[1])
    assert run(["run", "write", "--topic", "tea", "--local", "models_app.py"]) == 0
    assert capsys.readouterr().out.endswith("On tea, in short. \n")


def test_methods() -> None:
    """Those of the stub, with their options."""
    cells = table(PAGE, "Calling").column("method")
    named = {re.match(r"`?(\w+)\(", cell)[1]: cell for cell in cells}  # type: ignore[index]
    assert set(named) == {"stream", "stream_completion", *served.METHODS}
    for name in ("chat", "complete"):
        parameters = inspect.signature(getattr(stub.Model, name)).parameters
        options = [one.name for one in parameters.values() if one.kind is inspect.Parameter.KEYWORD_ONLY]
        assert f"*, {', '.join(options)})" in named[name]


def test_errors() -> None:
    """Each with whether it is retried."""
    rows = table(PAGE, "When something is wrong").records()
    for row in rows:
        error = getattr(errors, row["error"].strip("`"))
        assert row["retried"] == ("yes" if error.retryable else "no")


def test_figures() -> None:
    """Of the repairs and the retries."""
    assert inspect.signature(stub.Model.chat).parameters["repairs"].default == 2
    made = served.model_at("figures", url="http://127.0.0.1:9/v1").directives
    assert (made.retries, made.backoff, made.concurrency) == (4, 0.5, None)
