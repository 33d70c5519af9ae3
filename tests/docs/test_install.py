"""What the pages say of installing Callboard can be done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.pages import blocks, name, pages

_INSTALL = re.compile(r"^pip install (.+?)(?: *#.*)?$", re.MULTILINE)


@pytest.mark.parametrize("page", pages(), ids=name)
def test_it_is_installed_from_a_checkout(page: Path) -> None:
    """It is on no package index: what `pip` is given is a folder."""
    given = [one for block in blocks(page) for one in _INSTALL.findall(block.text)]
    assert [one for one in given if not one.startswith((".", "'."))] == []


def test_newcomers_are_told() -> None:
    """The first page and the tutorial say how."""
    told = {name(page) for page in pages() for block in blocks(page) if _INSTALL.search(block.text)}
    assert {"README.md", "docs/tutorial.md"} <= told
