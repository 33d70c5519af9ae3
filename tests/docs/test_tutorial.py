"""The pages that show a session work as they stand: files are written, commands run, print what is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.pages import DOCS, blocks
from tests.docs.session import Shell, commands, matches

from callboard.infra.server import EmbeddedServer

PAGES = [DOCS / f"{name}.md" for name in ("tutorial", "state", "effects", "waiting", "whatif", "debugging")]
PORT = "4222"
"""What the page says; a test takes a port that is free."""


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page(page: Path, tmp_path: Path) -> None:
    """From the first block to the last."""
    with EmbeddedServer() as server:  # a port that is free now, and that others leave alone
        port = server.url.rpartition(":")[2]
    with Shell(tmp_path, {PORT: port}) as shell:
        for block in blocks(page):
            if block.title:
                shell.write(block)
            elif block.language == "console":
                for command in commands(block):
                    shell.run(command)


def test_every_block_is_run_or_known() -> None:
    """A block that is no file and no console is only text: there is one, the installation."""
    every = [block for page in PAGES for block in blocks(page)]
    left = [block for block in every if not block.title and block.language != "console"]
    assert [block.language for block in left] == ["sh"]


@pytest.mark.parametrize(
    ("expected", "printed", "fits"),
    [
        (["a  b"], ["a b"], True),
        (["a ... c"], ["a b c"], True),
        (["a ... c"], ["a b", "c"], False),
        (["a", "...", "b"], ["a", "b"], True),
        (["a", "...", "b"], ["a", "x", "y", "b"], True),
        (["a"], ["a", "b"], False),
        ([], [], True),
        ([], ["a"], False),
        (["a.c"], ["abc"], False),
    ],
)
def test_matching(expected: list[str], printed: list[str], *, fits: bool) -> None:
    """What stands for what in expected output."""
    assert matches(expected, printed) is fits
