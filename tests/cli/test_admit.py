"""``admit``: set, list and end limits of requests on the command line; what other commands tell of them."""

from __future__ import annotations

from typing import Any

from tests.cli.terminal import Typed, eventually

from callboard import connect_sync


def test_a_limit_is_set_listed_and_ended(board: str, typed: Typed) -> None:
    """For people, and as JSON; top, policy list and why show it."""
    assert typed("admit", url=board).out == "no limits\n"
    known = typed("admit", "totals", "40.5", "--reason", "[big] quota", url=board)
    assert (known.code, known.out, known.err) == (0, "totals: 40.5 requests a second\n", "")
    assert "nobody has announced a workflow totalz" in typed("admit", "totalz", "1", url=board).err
    assert typed("admit", "totalz", "all", url=board).code == 0
    eventually(lambda: _accepted(typed, board) is not None)
    told = _accepted(typed, board)
    assert (told["workflow"], told["limit"]["rate"], told["limit"]["reason"]) == (
        "totals",
        40.5,
        "[big] quota",
    )
    shown = " ".join(typed("admit", url=board).out.split())
    assert "totals 40.5" in shown
    assert "by hand [big] quota" in shown
    assert (
        "totals accepts 40.5 requests a second: by hand [big] quota" in typed("policy", "list", url=board).out
    )
    assert "40.5/s" in typed("top", url=board).out
    (limit,) = typed("admit", "--json", url=board).json
    assert (limit["workflow"], limit["rate"], limit["policy"]) == ("totals", 40.5, "by hand")
    ended = typed("admit", "totals", "all", "--json", url=board)
    assert ended.json == {"workflow": "totals", "rate": None, "limit": None}
    assert typed("admit", "--json", url=board).json == []
    assert "/s" not in typed("top", url=board).out


def _accepted(typed: Typed, url: str) -> Any:
    """How a new run was accepted, as ``why`` tells of its first call."""
    with connect_sync(url) as client:
        run = client.submit("totals", {"numbers": [1]})
        client.result(run, timeout=20)
    told = typed("why", f"{run}:1", "--json", url=url).json
    if told.get("accepted") is not None:
        assert "totals accept 40.5 requests a second" in typed("why", f"{run}:1", url=url).out
    return told.get("accepted")


def test_what_is_no_limit(board: str, typed: Typed) -> None:
    """Wrong usage, told as such."""
    for wrong in (["totals"], ["totals", "much"], ["totals", "nan"], ["a workflow", "1"]):
        assert typed("admit", *wrong, url=board).code == 2, wrong
    assert typed("admit", "totals", "--", "-1", url=board).code == 2
