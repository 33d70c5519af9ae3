"""Sessions of a stateful agent: one call at a time, except those that the holder has made itself."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.board import Board, instance
from tests.support.gates import Gate, anew
from tests.support.waiting import SOON, until

from callboard import agent, method, tool, workflow

_log: list[str] = anew([])
GATE = Gate()


@tool
async def around(name: str) -> str:
    """Call the agent from somewhere else, on behalf of whoever called this."""
    return await Memory.leaf(name)


@agent(stateful=True)
class Memory:
    """Calls itself, directly and through others."""

    @method
    async def leaf(self, name: str) -> str:
        """Take a moment."""
        _log.append(f"+{name}")
        await asyncio.sleep(0.002)
        _log.append(f"-{name}")
        return name

    @method
    async def directly(self, name: str) -> list[str]:
        """Call itself, twice at once, then through a tool."""
        _log.append(f"+{name}")
        found = list(await asyncio.gather(Memory.leaf(f"{name}.1"), Memory.leaf(f"{name}.2")))
        found.append(await around(f"{name}.3"))
        _log.append(f"-{name}")
        return found

    @method
    async def deeply(self, name: str, depth: int) -> int:
        """Call itself again and again."""
        _log.append(f"+{name}{depth}")
        found = 1 + await Memory.deeply(name, depth - 1) if depth else 0
        _log.append(f"-{name}{depth}")
        return found

    @method
    async def busy(self, name: str) -> str:
        """Make a call and do something else before it is waited for."""
        call = Memory.leaf(f"{name}.1")
        _log.append(f"+{name}")
        await GATE.wait()
        _log.append(f"={name}")
        await call
        _log.append(f"-{name}")
        return name


@agent(stateful=True)
class Tally:
    """Counts in its own memory."""

    def __init__(self) -> None:
        self.count = 0

    @method
    async def up(self) -> int:
        """One more."""
        self.count += 1
        return self.count


@workflow
async def counting() -> int:
    """One more."""
    return await Tally.up()


@workflow
async def several(names: list[str]) -> list[Any]:
    """Calls of one session."""
    made: dict[str, Any] = {"l": Memory.leaf, "d": Memory.directly, "b": Memory.busy}
    return await asyncio.gather(*(made[name[0]](name) for name in names))


@workflow
async def deep(name: str, depth: int) -> int:
    """One that goes down, and one behind it."""
    first, _ = await asyncio.gather(Memory.deeply(name, depth), Memory.leaf("after"))
    return first


async def test_a_call_may_enter_the_session_that_waits_for_it(board: Board) -> None:
    """One of them at a time; whoever is not of its making waits until it has ended."""
    await board.host(Memory, around, several)
    assert await board.run(several, names=["d", "l"]) == [["d.1", "d.2", "d.3"], "l"]
    nested = ["+d.1", "-d.1", "+d.2", "-d.2", "+d.3", "-d.3"]
    assert _log == ["+d", *nested, "-d", "+l", "-l"]


async def test_it_enters_at_any_depth(board: Board) -> None:
    """Each one holds the session for those below it."""
    host = await board.host(Memory, deep)
    assert await board.run(deep, name="x", depth=20) == 20
    down = [f"+x{depth}" for depth in range(20, -1, -1)]
    up = [f"-x{depth}" for depth in range(21)]
    assert _log == [*down, *up, "+after", "-after"]
    await until(lambda: not instance(host, Memory).running)
    assert instance(host, Memory)._sessions._sessions == {}


async def test_it_waits_until_its_maker_waits(board: Board) -> None:
    """As long as the maker does something else it has the session for itself."""
    host = await board.host(Memory, several)
    run = await board.submit(several, names=["b", "l"])
    await until(lambda: len(instance(host, Memory).running) == 3)
    assert _log == ["+b"]
    GATE.set()
    assert (await board.done(run)).status == "completed"
    assert _log == ["+b", "=b", "+b.1", "-b.1", "-b", "+l", "-l"]


async def test_other_sessions_are_not_held_up(board: Board) -> None:
    """Each run is a session of its own here."""
    await board.host(Memory, several)
    client = await board.client()
    first = await client.submit(several.name, {"names": ["b"]})
    await until(lambda: _log == ["+b"])
    assert await board.run(several, names=["l"]) == ["l"]
    GATE.set()
    assert (await board.done(first)).status == "completed"


async def test_a_cancelled_holder_lets_the_next_in(board: Board) -> None:
    """Though a call of its own is still there."""
    host = await board.host(Memory, several)
    client = await board.client()
    held = await client.submit(several.name, {"names": ["b"]}, session="s")
    await until(lambda: _log == ["+b"])
    behind = await client.submit(several.name, {"names": ["l"]}, session="s")
    await until(lambda: len(instance(host, Memory).running) == 3)
    await client.cancel(held)
    assert await client.result(behind, SOON) == ["l"]
    await until(lambda: not instance(host, Memory).running)
    assert instance(host, Memory)._sessions._sessions == {}


async def test_a_host_that_drains_lets_others_have_the_rest(board: Board) -> None:
    """The holder, too: it runs again elsewhere, and finds its calls."""
    first = await board.host(Memory)
    await board.host(several)
    run = await board.submit(several, names=["b", "l"])
    await until(lambda: len(instance(first, Memory).running) == 3)
    second = await board.host(Memory)
    GATE.set()
    await first.stop(grace=0.0)
    assert (await board.done(run)).status == "completed"
    assert _log.index("-l") == _log.index("+l") + 1, "nothing of the session ran meanwhile"
    await until(lambda: instance(second, Memory)._sessions._sessions == {})


async def test_what_it_keeps_in_itself_dies_with_its_host(board: Board) -> None:
    """The next host begins with nothing; until then one host serves all sessions, and the other stands by."""
    first = await board.host(Tally)
    await board.host(counting)
    second = await board.host(Tally)
    await until(lambda: instance(second, Tally).standby)
    client = await board.client()
    for session, count in (("a", 1), ("b", 2)):
        assert await client.run(counting.name, {}, session=session, timeout=SOON) == count
    await board.kill(first)
    assert await client.run(counting.name, {}, session="a", timeout=SOON) == 1
