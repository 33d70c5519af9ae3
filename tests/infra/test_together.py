"""Work side by side: all of it, or nothing goes on."""

from __future__ import annotations

import asyncio

import pytest

from callboard.infra.together import together


async def test_all_of_it_is_done() -> None:
    """Side by side: each part waits for the other."""
    meeting = asyncio.Barrier(2)
    done: list[int] = []

    async def part(number: int) -> None:
        await meeting.wait()
        done.append(number)

    await together(part(number) for number in (1, 2))
    assert sorted(done) == [1, 2]


async def test_nothing_goes_on_when_one_part_has_failed() -> None:
    """Its error comes out as it is; the other parts are cancelled."""
    tasks = len(asyncio.all_tasks())
    cancelled = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def fails() -> None:
        raise KeyError("refused")

    with pytest.raises(KeyError, match="refused"):
        await together([waits(), fails()])
    await cancelled.wait()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == tasks
