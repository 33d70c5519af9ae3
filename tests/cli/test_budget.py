"""``budget``: set, list and end budgets on the command line."""

from __future__ import annotations

from tests.cli.terminal import Typed


def test_a_budget_is_set_listed_and_ended(board: str, typed: Typed) -> None:
    """For people, and as JSON."""
    assert typed("budget", url=board).out == "no budgets\n"
    told = typed("budget", "key", "team a", "--usd", "2.5", "--calls", "7", "--when-spent", "ask", url=board)
    assert (told.code, told.out) == (0, "key team a: 0 / 7 calls, 0 / 2.5 usd; ask when spent\n")
    typed(
        "budget", "session", "s", "--tokens", "5", "--when-spent", "degrade", "--degrade-to", "m", url=board
    )
    shown = " ".join(typed("budget", url=board).out.split())
    assert "key team a 0 / 7 0 0 0 / 2.5 0 ask" in shown
    assert "session s 0 0 / 5 0 0 0 degrade m" in shown
    assert [one["id"] for one in typed("budget", "--json", url=board).json] == ["team a", "s"]
    assert typed("budget", "key", "team a", "--clear", url=board).out == "key team a: no budget\n"
    assert [one["id"] for one in typed("budget", "--json", url=board).json] == ["s"]


def test_what_is_no_budget(board: str, typed: Typed) -> None:
    """Is refused, with what to say."""
    assert "say what may be spent" in typed("budget", "key", "k", url=board).err
    assert "say whose budget" in typed("budget", "key", url=board).err
    assert "has no budget" in typed("budget", "key", "k", "--clear", url=board).err
    assert (
        "need each other" in typed("budget", "key", "k", "--calls", "1", "--degrade-to", "m", url=board).err
    )
