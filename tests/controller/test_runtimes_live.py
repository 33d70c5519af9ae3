"""The runtime table on a board: what is learnt, of arguments that travel by reference too, and where it is told."""

from __future__ import annotations

from typing import Any

from tests.support.board import Board
from tests.support.waiting import eventually, until

from callboard import tool, workflow
from callboard.controller.controller import Controller
from callboard.infra.messages.runtimes import Curve
from callboard.state.curves import read_curves

LENGTHS = (1_000, 200_000)


@tool
async def measure(text: str) -> str:
    """Give it back."""
    return text


@workflow
async def measured() -> int:
    """Calls with short and long arguments, of which some are another call's outcome."""
    first: Any = [measure("x" * length) for length in LENGTHS]
    second: Any = measure(first[1])
    await first[0]
    return len(await measure(second))


async def test_sizes_are_those_of_the_arguments(board: Board) -> None:
    """Long arguments count as long ones, also where the call has references in their place."""
    await board.host(measure, measured)
    node = await board.node()
    async with Controller(board.settings()) as controller:
        await until(lambda: controller.view.on_ended is not None)
        assert await board.run(measured) == LENGTHS[1]
        bits = {length.bit_length() for length in LENGTHS}
        await until(lambda: controller.runtimes.sizes("measure.call") == bits)

        async def stored() -> Curve | None:
            found = await read_curves(node.reader)
            return next((one for one in found if sum(line.count for line in one.lines) == 4), None)

        curve = await eventually(stored)
    assert curve is not None
    assert (curve.call, {line.size for line in curve.lines}) == ("measure.call", bits)
    assert [line.count for line in curve.lines] == [1, 3]
