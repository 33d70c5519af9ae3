"""docs/tools.md: its example works, and its figures are those of the code."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.cli.terminal import Running, callboard
from tests.docs.pages import DOCS, blocks

from callboard.actors.mcp import adopt, link

PAGE = DOCS / "tools.md"


def test_figures() -> None:
    """Retries, and how long is waited for what."""
    assert adopt._AGAIN == 3
    assert (link._FIRST * 2, link._LAST, link._WAIT) == (0.2, 30.0, 10.0)


def test_the_example_runs(tmp_path: Path, nats_url: str) -> None:
    """The commands as they stand there, on a server that is up already."""
    [app] = [block for block in blocks(PAGE) if block.title]
    (tmp_path / app.title).write_text(app.text)
    [told] = [block.text for block in blocks(PAGE) if "callboard host" in block.text]
    lines = [shlex.split(line)[1:] for line in told.splitlines()]
    host, run = ([*line[1:], "--json"] for line in lines if line[1] in {"host", "run"})
    host = [part.replace("python -m", f"{sys.executable} -m") for part in host]
    with Running(*host, url=nats_url, cwd=tmp_path) as hosting:
        hosting.until('"event":"host_ready"')
        ran = callboard(*run, url=nats_url, cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert '"Asia/Tokyo":"2' in ran.out.replace(" ", "")
