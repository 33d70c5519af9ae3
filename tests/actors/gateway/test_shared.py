"""Work that many ask for at once."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.waiting import until

from callboard.actors.shared import Shared
from callboard.infra.errors import CallboardError, StoreFull


class Rounds:
    """Work whose rounds the test lets end."""

    def __init__(self) -> None:
        self.begun = 0
        self.ends: asyncio.Queue[CallboardError | None] = asyncio.Queue()

    async def __call__(self) -> int:
        """One round; gives its number, unless it is to fail."""
        self.begun += 1
        number = self.begun
        error = await self.ends.get()
        if error is not None:
            raise error
        return number


async def test_who_asks_gets_what_began_after() -> None:
    """All who ask during one round share the next."""
    rounds = Rounds()
    shared = Shared(rounds)
    first = asyncio.create_task(shared())
    await until(lambda: rounds.begun == 1)
    others = [asyncio.create_task(shared()) for _ in range(10)]
    rounds.ends.put_nowait(None)
    assert await first == 1
    await until(lambda: rounds.begun == 2)
    late = asyncio.create_task(shared())
    rounds.ends.put_nowait(None)
    assert await asyncio.gather(*others) == [2] * 10
    rounds.ends.put_nowait(None)
    assert await late == 3
    rounds.ends.put_nowait(None)
    assert await shared() == 4


async def test_an_error_is_shared() -> None:
    """Ten who wait for a store that does not answer do not wait ten times as long."""
    rounds = Rounds()
    shared = Shared(rounds)
    first = asyncio.create_task(shared())
    await until(lambda: rounds.begun == 1)
    others = [asyncio.create_task(shared()) for _ in range(10)]
    rounds.ends.put_nowait(None)
    await first
    rounds.ends.put_nowait(StoreFull("no room"))
    told = await asyncio.gather(*others, return_exceptions=True)
    assert [type(one) for one in told] == [StoreFull] * 10
    assert rounds.begun == 2
    rounds.ends.put_nowait(None)
    assert await shared() == 3


async def test_who_gives_up_does_not_end_it_for_others() -> None:
    """A round ends with whoever does it; the next of those who wait begins another."""
    rounds = Rounds()
    shared = Shared(rounds)
    first = asyncio.create_task(shared())
    await until(lambda: rounds.begun == 1)
    second, third = asyncio.create_task(shared()), asyncio.create_task(shared())
    rounds.ends.put_nowait(None)
    await first
    await until(lambda: rounds.begun == 2)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await until(lambda: rounds.begun == 3)
    rounds.ends.put_nowait(None)
    assert await third == 3
