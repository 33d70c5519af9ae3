"""``route``: set, list and clear on the command line."""

from __future__ import annotations

from tests.cli.terminal import Typed


def test_a_route_is_set_listed_and_cleared(board: str, typed: Typed) -> None:
    """For people, and as JSON; a host that is not there is told."""
    assert typed("route", "list", url=board).out == "no routes\n"
    known = typed("route", "set", "prices", "h-a=3", "h-b=1", "--reason", "[big] and small", url=board)
    assert (known.code, known.out) == (0, "prices: h-a 75%, h-b 25%\n")
    assert "no prices at h-a, h-b now" in known.err
    one = typed("route", "set", "prices", "h-a", "--session", "chat 7", "--ttl", "60", "--json", url=board)
    assert one.json["hosts"] == {"h-a": 1.0}
    assert round(one.json["until"] - one.json["at"]) == 60
    shown = typed("route", "list", url=board).out
    assert "h-a 75% (not there)" in " ".join(shown.split())
    listed = typed("route", "list", "--actor", "prices", "--json", url=board).json
    assert [(r.get("session", ""), r["missing"]) for r in listed] == [
        ("", ["h-a", "h-b"]),
        ("chat 7", ["h-a"]),
    ]
    assert listed[0]["reason"] == "[big] and small"
    cleared = typed("route", "clear", "prices", "--session", "chat 7", "--json", url=board)
    assert cleared.json == {"cleared": {"actor": "prices", "session": "chat 7"}}
    assert typed("route", "clear", "prices", "--session", "chat 7", url=board).code == 4
    assert typed("route", "clear", "prices", url=board).out == "cleared\n"
    assert typed("route", "list", "--json", url=board).json == []


def test_what_is_no_route(board: str, typed: Typed) -> None:
    """Wrong usage, told as such."""
    for wrong in (["prices"], ["prices", "h-a=much"], ["prices", "h-a=0"], ["prices", "h a"]):
        assert typed("route", "set", *wrong, url=board).code == 2, wrong
