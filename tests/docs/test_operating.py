"""docs/operating.md has every setting with its default, and every exit code."""

from __future__ import annotations

import msgspec
from tests.docs.pages import DOCS, table, tables

from callboard.cli.exits import MEANING
from callboard.infra.settings import Settings

PAGE = DOCS / "operating.md"


def test_settings() -> None:
    """In the order of the code."""
    defaults = msgspec.structs.asdict(Settings())
    rows = table(PAGE, "Settings").records()
    assert {row["setting"]: row["default"] for row in rows} == {
        name: str(value).removesuffix(".0") for name, value in defaults.items()
    }


def test_exit_codes() -> None:
    """As ``callboard --help`` tells them."""
    rows = tables(PAGE, "Looking")[0].records()
    assert {int(row["code"]): row["meaning"] for row in rows} == {
        int(code): text for code, text in MEANING.items()
    }
