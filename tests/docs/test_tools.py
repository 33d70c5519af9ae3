"""docs/tools.md: its example works, and its figures are those of the code."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.cli.terminal import Running, callboard
from tests.docs.pages import DOCS, blocks, table

from callboard import Sandbox
from callboard.actors.mcp import adopt, link
from callboard.infra import errors

PAGE = DOCS / "tools.md"


def test_figures() -> None:
    """Retries, and how long is waited for what."""
    assert adopt._AGAIN == 3
    assert (link._FIRST * 2, link._LAST, link._WAIT) == (0.2, 30.0, 10.0)


def test_the_example_runs(tmp_path: Path, nats_url: str) -> None:
    """The commands as they stand there, on a server that is up already."""
    [app] = [block for block in blocks(PAGE) if block.title == "clock.py"]
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


def test_the_sandbox_runs(tmp_path: Path) -> None:
    """The command as it stands there."""
    [app] = [block for block in blocks(PAGE) if block.title == "risky.py"]
    (tmp_path / app.title).write_text(app.text)
    [told] = [block.text for block in blocks(PAGE) if "--local" in block.text]
    line, expected = told.splitlines()
    ran = callboard(*shlex.split(line)[2:], cwd=tmp_path)
    assert (ran.code, ran.out.strip()) == (0, expected), ran.err


def test_limits_of_sandboxes() -> None:
    """Their names, defaults and errors."""
    rows = table(PAGE, "Sandboxes").records()
    names = [row["limit"].partition(",")[0].strip("`") for row in rows]
    assert [*names, "env"] == [
        "cpu_s",
        "wall_s",
        *[n for n in Sandbox.__struct_fields__ if not n.endswith("_s")],
    ]
    units = {"GiB": 2**30, "MiB": 2**20}
    for name, row in zip(names, rows, strict=True):
        number, _, unit = row["default"].partition(" ")
        told = None if number == "none" else float(number) * units.get(unit, 1)
        assert told == getattr(Sandbox(), name)
    named = {row["error"].strip("`") for row in rows if "Sandbox" in row["error"]}
    assert named == {cls.__name__ for cls in errors.SandboxExceeded.__subclasses__()}
