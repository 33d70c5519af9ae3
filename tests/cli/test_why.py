"""``why`` on the command line."""

from __future__ import annotations

import re

from tests.cli.terminal import Typed

from callboard import connect_sync


def test_why(board: str, typed: Typed) -> None:
    """For people, and as JSON; of what is not known, as such."""
    with connect_sync(board) as client:
        run = client.submit("totals", {"numbers": [1]})
        client.result(run, timeout=20)
    told = typed("why", f"{run}:1", url=board).out
    assert f"{run}:1, add.call, ran on h-" in told
    assert "where: the shared lane: no decision" in told
    assert re.search(r"it waited [\d.]+ (µs|ms|s), and took [\d.]+ (µs|ms|s);", told)
    data = typed("why", f"{run}:1", "--json", url=board).json
    assert (data["call"], data["policy"], data["done"]) == ("add.call", 0, True)
    assert typed("why", f"{run}:99", url=board).code == 4
    assert typed("why", "no id", url=board).code == 2


def test_why_of_a_wait(board: str, typed: Typed) -> None:
    """A wait runs nowhere: nothing is said of lanes and slots."""
    with connect_sync(board) as client:
        run = client.submit("dozes")
        client.result(run, timeout=20)
    told = typed("why", f"{run}:2", url=board).out
    assert (
        told == f"{run}:2, callboard.sleep, is over: it belongs to the workflow itself and ran on no host\n"
    )
