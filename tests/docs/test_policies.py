"""docs/policies.md names what there is, and its examples work."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import DOCS, blocks, table

from callboard.controller import deciding, limited, loading, policy
from callboard.controller.policy import Act

PAGE = DOCS / "policies.md"


def test_policies() -> None:
    """Every one that comes with Callboard, and no other."""
    assert sorted(table(PAGE, "Choosing").column("policy")) == loading.names()


def test_primitives() -> None:
    """Each is there, and no other."""
    named = {
        found
        for cell in table(PAGE, "Writing one").column("primitive")
        for found in re.findall(r"act\.(\w+)", cell)
    }
    assert named == {name for name, value in vars(Act).items() if callable(value) and name[0] != "_"}


def test_figures() -> None:
    """Those of the code."""
    assert (limited.ROUND, policy.MOST_DECISIONS, deciding.GONE, policy.MOST_PRIORITY) == (0.5, 1000, 60, 9)


def test_examples(tmp_path: Path) -> None:
    """The policies load, and their test passes."""
    for block in blocks(PAGE):
        if block.title:
            (tmp_path / block.title).write_text(block.text)
    for name in ("Patient", "Keep"):
        assert loading.load(f"{tmp_path / 'my_policies.py'}:{name}").every > 0
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_policies.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in ran.stdout, ran.stdout
