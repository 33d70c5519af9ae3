"""``callboard runtimes``: how long calls take, and how far off that was."""

from __future__ import annotations

import asyncio
import statistics
import struct
from typing import TYPE_CHECKING

import msgspec

from callboard.cli.common import DEFAULTS, Common
from callboard.cli.exits import Exit, NotFound
from callboard.cli.output import table
from callboard.infra.durations import seconds
from callboard.infra.messages.runtimes import Curve

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class SizeRow(msgspec.Struct):
    """Calls with arguments of one size.

    Attributes:
        up_to: bytes; calls: of the latest ones; expected: seconds, in the middle of the size; p99: seconds.
    """

    up_to: int
    calls: int
    expected: float
    p99: float


class Row(msgspec.Struct):
    """A method.

    Attributes:
        call: ``actor.method``; calls: of the latest ones; p50: seconds.
        error: the median of the shares by which the expected times of the latest calls were off; None:
            nothing was expected yet; judged: of how many calls.
        sizes: the same by size.
    """

    call: str
    calls: int
    p50: float
    error: float | None
    judged: int
    sizes: list[SizeRow]


def runtimes(call: str | None = None, /, *, common: Common = DEFAULTS) -> int:
    """List how long calls take, as the controller that leads has learnt it.

    'off' tells how good predictions are: by what share of the time that it took the expected time of a call
    was off, as the median of the latest calls. What is expected goes by the size of the arguments, and is
    written down before the call counts itself.

        callboard runtimes
        callboard runtimes search

    Args:
        call: Only this actor or method, as 'search' or 'Analyst.plan', by the size of arguments.
    """

    async def look() -> list[Curve]:
        from callboard.state.curves import read_curves

        async with common.client() as client:
            return await read_curves(client.node.reader)

    curves = asyncio.run(look())
    rows = [_row(curve) for curve in curves if call is None or _is_meant(call, curve.call)]
    if call is not None and not rows:
        text = f"nothing is known of how long {call} takes; 'callboard runtimes' lists what is"
        raise NotFound(text, what="call", name=call)
    common.output.answer(rows, lambda screen: _print(rows, screen, sizes=call is not None))
    return Exit.OK


def _is_meant(asked: str, call: str) -> bool:
    return asked in (call, call.rpartition(".")[0])


def _row(curve: Curve) -> Row:
    count = len(curve.errors) // 4
    errors = struct.unpack(f"<{count}f", curve.errors[: 4 * count])
    return Row(
        call=curve.call,
        calls=sum(line.count for line in curve.lines),
        p50=curve.middle,
        error=statistics.median(errors) if errors else None,
        judged=count,
        sizes=_sizes(curve),
    )


def _sizes(curve: Curve) -> list[SizeRow]:
    from callboard.state.curves import Expected

    try:
        asked = Expected(curve)
    except ValueError:  # anybody may write there
        return []
    return [
        SizeRow((1 << line.size) - 1, line.count, asked.seconds(int(2 ** (line.size - 0.5))), line.p99)
        for line in asked.lines
    ]


def _print(rows: list[Row], screen: Console, *, sizes: bool) -> None:
    if not rows:
        screen.print("nothing is known yet; 'callboard controller' learns how long calls take")
        return
    numbers = ("calls", "p50", "off", "judged")
    listed = table(("call", *numbers), numbers=numbers)
    for row in rows:
        off = "" if row.error is None else f"{row.error:.0%}"
        listed.add_row(row.call, str(row.calls), seconds(row.p50), off, str(row.judged))
    screen.print(listed)
    for row in rows if sizes else []:
        screen.print()
        screen.print(_by_size(row))


def _by_size(row: Row) -> Table:
    numbers = ("bytes up to", "calls", "expected", "p99")
    listed = table((row.call, *numbers), numbers=numbers)
    for one in row.sizes:
        listed.add_row("", f"{one.up_to:,}", str(one.calls), seconds(one.expected), seconds(one.p99))
    return listed
