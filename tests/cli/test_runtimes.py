"""``runtimes``: what is known of how long calls take."""

from __future__ import annotations

import asyncio
import struct

import msgspec
from tests.cli.terminal import Typed

from callboard import connect
from callboard.cli.exits import Exit
from callboard.infra import subjects
from callboard.infra.messages.runtimes import Curve, Line

CURVE = Curve(
    "hash.call",
    middle=0.004,
    lines=[Line(11, -20.0, 1.0, 60, 0.002), Line(17, -20.0, 1.0, 40, 0.25)],
    errors=struct.pack("<3f", 0.5, 0.125, 0.0625),
)
RUBBISH = Curve("Analyst.plan", middle=1.5)


async def store(url: str, *curves: Curve) -> None:
    """As the controller that leads stores them."""
    async with connect(url) as client:
        for curve in curves:
            subject = subjects.runtime_curve(*curve.call.split("."))
            await client.node.store.stored(subject, msgspec.msgpack.encode(curve))


def test_they_are_listed(board: str, typed: Typed) -> None:
    """For people, and as JSON; one of them by size; of nothing it says what would know."""
    assert "'callboard controller' learns" in typed("runtimes", url=board).out
    asyncio.run(store(board, CURVE, RUBBISH))
    shown = [line.split() for line in typed("runtimes", url=board).out.splitlines()]
    assert shown[0] == ["call", "calls", "p50", "off", "judged"]
    assert ["hash.call", "100", "4.0", "ms", "12%", "3"] in shown
    assert ["Analyst.plan", "0", "1.50", "s", "0"] in shown
    told = typed("runtimes", "--json", url=board).json
    assert [(row["call"], row["error"], row["judged"]) for row in told] == [
        ("Analyst.plan", None, 0),
        ("hash.call", 0.125, 3),
    ]
    for name in ("hash", "hash.call"):
        by_size = typed("runtimes", name, url=board).out
        assert "2,047" in by_size
        assert "250.0 ms" in by_size
        assert "Analyst" not in by_size
    (row,) = typed("runtimes", "hash", "--json", url=board).json
    assert [(one["up_to"], one["calls"]) for one in row["sizes"]] == [(2047, 60), (131071, 40)]
    assert row["sizes"][1]["expected"] > row["sizes"][0]["expected"] > 0
    missing = typed("runtimes", "nobody", url=board)
    assert missing.code == Exit.NOT_FOUND
    assert "nothing is known" in missing.err
