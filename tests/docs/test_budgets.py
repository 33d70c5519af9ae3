"""docs/budgets.md: its tables and figures are the code's."""

from __future__ import annotations

from tests.docs.pages import DOCS, blocks, tables

from callboard.actors import budgeting
from callboard.actors.models import metered
from callboard.state import accounts, charging

PAGE = DOCS / "budgets.md"
TEXT = PAGE.read_text("utf-8")


def test_tables() -> None:
    """All units, and all that may happen when nothing is left."""
    units, policies = tables(PAGE, "Budgets")
    assert [cell.strip("`") for cell in units.column("limit")] == list(charging.UNITS)
    assert {cell.strip("`") for cell in policies.column("when_spent")} == set(budgeting.WHEN_SPENT)


def test_figures() -> None:
    """Estimates, and how long it is believed that there is no budget."""
    assert (metered.ANSWER, metered.SECONDS, metered._BYTES) == (4096, 10.0, 2)
    assert (accounts.NOTHING_FOR, charging.SETTLED) == (5.0, 500)


def test_example() -> None:
    """It is Python as this version has it."""
    (example,) = [block for block in blocks(PAGE) if block.language == "python"]
    names: dict[str, object] = {}
    exec(compile(example.text, "budgets.md", "exec"), names)  # noqa: S102 - our own page
    assert callable(names["main"])
