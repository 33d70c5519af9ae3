"""docs/python.md has every directive with its default, and names only what there is."""

from __future__ import annotations

import ast
import re

import msgspec
from tests.docs.pages import DOCS, blocks, table, tables

from callboard.actors.client import Client
from callboard.actors.directives import Directives

PAGE = DOCS / "python.md"


def test_directives() -> None:
    """In the order of the code."""
    rows = table(PAGE, "Directives").records()
    expected = {name: repr(value) for name, value in msgspec.structs.asdict(Directives()).items()}
    assert [(row["directive"], row["default"]) for row in rows] == list(expected.items())


def test_methods() -> None:
    """Every name in the table is the client's."""
    rows = tables(PAGE, "Submitting runs")[0].records()
    told = " ".join(row["method of `Client`"] for row in rows)
    names = set(re.findall(r"[a-z_]+", re.sub(r"\([^)]*\)", "", told)))
    assert {"submit", "result", "cancel", "events", "running", "state"} <= names
    assert [name for name in names if not hasattr(Client, name)] == []


def test_code_is_code() -> None:
    """What is shown can at least be parsed."""
    for block in blocks(PAGE):
        ast.parse(block.text)
