"""Managed state without NATS: each session has one call at a time, whichever run, thread or loop makes it."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import ManagedCounter, ManagedList, agent, method, options, workflow
from callboard.actors.local_locks import Entry, SessionLocks
from callboard.actors.local_maker import background
from callboard.actors.local_state import locks
from callboard.infra.errors import SessionHeld
from callboard.state.shelf import Place

RUNS = 5
RAN: list[str] = anew([])
GATE = Gate()


def places(of: SessionLocks) -> list[Place]:
    """The session of each call that holds one or waits."""
    return [entry.place for queue in list(of._queues.values()) for entry in list(queue)]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No session is held, and none is known."""
    yield
    assert places(locks) == []


@agent
class Till:
    """Counts what it takes."""

    count: ManagedCounter
    log: ManagedList[str]

    @method
    async def awaits(self, name: str) -> int:
        """Take on an event loop, giving way meanwhile."""
        return await self._take(name)

    @method(effect=True)
    async def acts(self, name: str) -> int:
        """The same, as an effect."""
        return await self._take(name)

    @method
    def blocks(self, name: str) -> int:
        """The same in a thread."""
        RAN.append(name)
        self.log.append(name)
        found = self.count
        threading.Event().wait(0.01)
        self.count = found + 1
        return self.count

    @method
    async def waits(self, name: str) -> int:
        """Take when the gate opens."""
        RAN.append(name)
        await GATE.wait()
        self.log.append(name)
        self.count += 1
        return self.count

    @method
    async def reenters(self, name: str) -> int:
        """Run a workflow that takes in this very session."""
        return await asyncio.to_thread(take.run_local, "awaits", name)

    @method
    async def all(self) -> list[str]:
        """What it has taken."""
        return list(self.log)

    async def _take(self, name: str) -> int:
        RAN.append(name)
        self.log.append(name)
        found = self.count
        await asyncio.sleep(0.01)
        self.count = found + 1
        return self.count


METHODS: dict[str, Callable[[str], Any]] = {
    "awaits": Till.awaits,
    "acts": Till.acts,
    "blocks": Till.blocks,
    "waits": Till.waits,
    "reenters": Till.reenters,
}


@workflow
async def take(how: str, name: str) -> Any:
    """Take something."""
    return await METHODS[how](name)


@workflow
def take_plainly(how: str, name: str) -> Any:
    """The same in plain code."""
    return METHODS[how](name)


@workflow
async def taken() -> list[str]:
    """What was taken."""
    return await Till.all()


def in_thread(session: str, work: Callable[[], Any], told: list[Any]) -> threading.Thread:
    """Do something in a thread of its own, in a session."""

    def run() -> None:
        with options(session=session):
            told.append(work())

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def queued(session: str, count: int) -> Callable[[], bool]:
    """Whether so many calls hold a session or wait for it."""
    return lambda: sum(place.session == session for place in places(locks)) == count


@pytest.mark.parametrize("how", ["awaits", "acts", "blocks"])
@pytest.mark.parametrize("loops", ["one", "many", "plain"])
def test_runs_in_threads_share_a_session(how: str, loops: str) -> None:
    """Each call runs once, and counts, whether the runs share an event loop, have their own or have none."""
    session = f"shared by {how} {loops}"
    run: dict[str, Callable[[str], Any]] = {
        "one": lambda name: take.run_local(how, name),
        "many": lambda name: asyncio.run(take(how, name)),
        "plain": lambda name: take_plainly(how, name) + 0,
    }
    told: list[int] = []
    names = [str(number) for number in range(RUNS)]
    threads = [in_thread(session, lambda name=name: run[loops](name), told) for name in names]  # type: ignore[misc]
    for thread in threads:
        thread.join(SOON)
    with options(session=session):
        stored = taken.run_local()
    assert sorted(told) == list(range(1, RUNS + 1))
    assert sorted(RAN) == sorted(stored) == names


async def test_calls_run_in_the_order_in_which_they_came() -> None:
    """From several threads and event loops; who waits keeps no loop from other work."""
    told: list[int] = []
    threads = []
    with options(session="in order"):
        first = asyncio.ensure_future(take("waits", "0"))
        await until(queued("in order", 1))
        for number in range(1, RUNS):
            way = asyncio.run if number % 2 else _in_background
            work = functools.partial(_taken_by, way, str(number))
            threads.append(in_thread("in order", work, told))
            await until(queued("in order", number + 1))
        last = asyncio.ensure_future(take("awaits", str(RUNS)))
        await until(queued("in order", RUNS + 1))
        with options(session="another"):
            assert await take("awaits", "x") == 1
        GATE.set()
        assert (await first, await last) == (1, RUNS + 1)
        await until(lambda: len(told) == len(threads))
        assert told == list(range(2, RUNS + 1))
        assert await taken() == [str(number) for number in range(RUNS + 1)]


def _taken_by(way: Callable[[Any], Any], name: str) -> Any:
    return way(take("awaits", name))


def _in_background(work: Any) -> Any:
    """Run a workflow on the loop that plain code shares."""
    return asyncio.run_coroutine_threadsafe(work, background.loop()).result(SOON)


async def test_who_is_cancelled_while_it_waits_holds_nobody_up() -> None:
    """Behind a call that runs, as the next in turn, and while the session is being handed to it."""
    with options(session="cancelled"):
        first = asyncio.ensure_future(take("waits", "a"))
        await until(lambda: RAN == ["a"])
        behind = [asyncio.ensure_future(take("awaits", name)) for name in "bcd"]
        await until(queued("cancelled", 4))
        behind[0].cancel()
        await asyncio.wait(behind[:1])
        await until(queued("cancelled", 3))
        GATE.set()
        await first  # the session is the next one's, which has not gone on yet
        behind[1].cancel()
        told = await asyncio.gather(*behind, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in told] == [True, True, False]
        assert await taken() == ["a", "d"]


async def test_who_waited_on_a_loop_that_was_closed_holds_nobody_up() -> None:
    """It never goes on, and is passed over; that it leaves later changes nothing."""
    of = SessionLocks()
    place = Place("Till", "closed")

    async def enter(call: str) -> Entry:
        entry = of.enter(place, call, ())
        assert entry is not None
        return entry

    first, closed, behind = (
        await enter("a"),
        await asyncio.to_thread(asyncio.run, enter("b")),
        await enter("c"),
    )
    assert first.granted.done()
    of.leave(first)
    await behind.granted
    of.leave(closed)
    assert places(of) == [place]
    of.leave(behind)
    assert places(of) == []


async def test_a_run_within_a_handler_cannot_enter_its_session() -> None:
    """It would wait for itself; the session is free afterwards."""
    with options(session="inward"):
        with pytest.raises(SessionHeld, match=r"call the method on 'self'"):
            await take("reenters", "a")
        assert await take("awaits", "b") == 1
