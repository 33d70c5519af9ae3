"""What state costs follows what is done to it, not how much there is."""

from __future__ import annotations

import pytest
from tests.state.conftest import Process
from tests.support.state import Actor, CrashingShelf

from callboard.state.dicts import ManagedDict
from callboard.state.lists import ManagedList


class Desk:
    """Two collections."""

    items: ManagedList[str]
    notes: ManagedDict[str, str]


async def grown(process: Process, length: int, size: int) -> Actor:
    """A desk with a list and a dict of so many items of so many bytes."""
    desk = Actor(Desk, CrashingShelf(process.shelf), process.settings)
    session = f"{length}-{size}"
    async with desk.call("", session):
        desk.agent.items.extend(["x" * size] * length)
        desk.agent.notes.update({str(number): "x" * size for number in range(min(length, 10_000))})
    for number in range(process.settings.state_history):  # until what was put in is in parts
        async with desk.call(f"g{number}", session):
            desk.agent.items.append("z" * size)
    await desk.sessions.idle()
    return desk


async def written(desk: Actor, session: str, size: int, *, calls: int = 256) -> tuple[float, float]:
    """Bytes written for each append, and for each item put into the dict, over many calls."""
    found: list[float] = []
    for name in ("items", "notes"):
        before = desk.shelf.bytes
        for number in range(calls):
            async with desk.call(f"01JD0000000000000000000000:{number}", session):
                if name == "items":
                    desk.agent.items.append("y" * size)
                else:
                    desk.agent.notes[f"new {number}"] = "y" * size
        found.append((desk.shelf.bytes - before) / calls)
    return found[0], found[1]


@pytest.mark.slow
@pytest.mark.timeout(400)  # there is much to write, and disks are busy at times
@pytest.mark.parametrize("size", [20, 200, 2000])
async def test_the_bytes_of_an_append_do_not_depend_on_the_length(process: Process, size: int) -> None:
    """At 10, 1,000 and 100,000 items about the same; setting a key of a dict costs a few leaves at most."""
    appends: list[float] = []
    for length in (10, 1_000, 100_000 if size < 2000 else 10_000):
        desk = await grown(process, length, size)
        append, put = await written(desk, f"{length}-{size}", size)
        appends.append(append)
        assert put < 6 * (size + 1500), f"{put:.0f} bytes for a key of a dict of {length}"
    assert max(appends) <= 1.2 * min(appends), appends


async def test_opening_reads_a_bounded_number_of_messages(process: Process) -> None:
    """The newest commit and those since its head; the last items need no more, any other one a few."""
    desk = await grown(process, 100_000, 100)
    session = "100000-100"
    for number in range(40):
        async with desk.call(f"c{number}", session):
            desk.agent.items.append(f"item {number}")
    desk.restart()
    read: list[str] = []
    load = process.shelf.load

    async def counting(place: object, keys: list[str]) -> object:
        read.extend(keys)
        return await load(place, keys)  # type: ignore[arg-type]

    process.shelf.load = counting  # type: ignore[method-assign, assignment]
    desk.shelf.reads = 0
    opened = await desk.open(session)
    assert opened.version == 105
    async with desk.call("", session):
        assert desk.agent.items[-10:] == [f"item {number}" for number in range(30, 40)]
        assert (desk.shelf.reads, read) == (2, [])
        await desk.agent.items.load(50_000, 50_001)
        assert desk.agent.items[50_000] == "x" * 100
        assert len(read) <= 4
        await desk.agent.notes.load("7777")
        assert desk.agent.notes["7777"] == "x" * 100
        assert len(read) <= 8
