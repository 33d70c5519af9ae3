"""Promises of docs/guarantees.md that no other suite holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

import callboard
from callboard import agent, method, tool, workflow
from callboard.actors.declared import declaration
from callboard.actors.host import Host
from callboard.actors.node import Node
from callboard.infra import headers as H
from callboard.infra import subjects
from callboard.infra.messages.run import Owner, Result
from callboard.infra.settings import Settings

WITHIN = 30.0
_open: list[bool] = []
"""Holds something once the test lets calls of ``gated`` go."""
_log: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    """What handlers leave behind is of one test."""
    _open.clear()
    _log.clear()


@tool
async def gated(name: str) -> str:
    """Waits until the test lets it go; tells how it ends."""
    _log.append(f"begins {name}")
    try:
        await until(lambda: bool(_open))
    except asyncio.CancelledError:
        _log.append(f"cancelled {name}")
        raise
    _log.append(f"ends {name}")
    return name


@tool
async def quick(text: str) -> str:
    """Gives what it got."""
    return text


@agent
class Asker:
    """Makes a call that it does not wait for."""

    @method
    async def ask(self) -> str:
        """Leave a call open."""
        _ = gated("nested")
        await begun("nested")
        return "asked"


async def begun(name: str) -> None:
    """Wait until a call has begun."""
    await until(lambda: f"begins {name}" in _log)


async def until(condition: Callable[[], bool]) -> None:
    """Give way to the event loop until the condition holds."""
    ends = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < ends, _log
        await asyncio.sleep(0.005)


@workflow
async def leaves_open() -> str:
    """Ends with a call open, and with one that left a call open itself."""
    _ = gated("own")
    await begun("own")
    return await Asker.ask()


@workflow
async def recorded() -> list[str]:
    """What is drawn before and after a point where drivers change."""
    first = [callboard.now().isoformat(), str(callboard.uuid()), str(callboard.random().random())]
    await gated("between")
    second = [callboard.now().isoformat(), str(callboard.uuid()), str(callboard.random().random())]
    return [*first, *second, await quick("done")]


@agent(stateful=True)
class Diary:
    """Writes one thing after the other."""

    @method
    async def write(self, page: str) -> None:
        """Would be torn apart if two wrote at once."""
        _log.append(f"opens {page}")
        await asyncio.sleep(0.01)
        _log.append(f"closes {page}")


@workflow
async def diary(pages: list[str]) -> None:
    """All at once."""
    await asyncio.gather(*(Diary.write(page) for page in pages))


Started = Callable[..., Awaitable[Host]]


@pytest.fixture
async def start(nats_url: str) -> AsyncIterator[Started]:
    """Starts hosts; they end with the test."""
    hosts: list[Host] = []

    async def start(*things: Any) -> Host:
        declared = [one for thing in things if (one := declaration(thing)) is not None]
        host = Host(declared, Settings(nats_url=nats_url))
        hosts.append(host)
        await host.start()
        return host

    yield start
    for host in hosts:
        await host.stop(grace=0.1)


async def test_open_calls_end_with_their_maker(start: Started, nats_url: str) -> None:
    """Of a workflow, and of a handler."""
    await start(gated, Asker, leaves_open)
    async with callboard.connect(nats_url) as client:
        assert await client.run("leaves_open", timeout=WITHIN) == "asked"
    await until(lambda: {"cancelled own", "cancelled nested"} <= set(_log))


async def test_what_was_drawn_stays_drawn_when_another_driver_goes_on(start: Started, nats_url: str) -> None:
    """Time, random numbers and UUIDs: before the change from the journal, after it anew."""
    await start(gated, quick)
    first = await start(recorded)
    async with callboard.connect(nats_url) as client:
        run = await client.submit("recorded")
        await begun("between")
        before = [e async for e in client.events(run, follow=False) if e.kind == "result"]
        await start(recorded)
        await first.stop(grace=0.0)
        _open.append(True)
        drawn = await client.result(run, timeout=WITHIN)
        after = [e async for e in client.events(run, follow=False)]
    assert len({*drawn}) == len(drawn) == 7
    assert [e.data["epoch"] for e in after if e.kind == "owner"] == [1, 2]
    results = [e for e in after if e.kind == "result"]
    assert results[: len(before)] == before
    assert [e.data["call"] for e in results].count("callboard.now") == 2


async def test_changed_code_is_an_error_that_names_both_calls(start: Started, nats_url: str) -> None:
    """The journal has another call at a place than the code makes."""
    node = Node(Settings(nats_url=nats_url), "ghost")
    await node.open()
    head = H.encode([(H.MESSAGE_ID, "changed")])
    request = await node.store.stored(subjects.request("recorded"), b"{}", head)
    await node.journal.open("changed", Owner("ghost", 1, request, "recorded"))
    node.journal.put_result(
        "changed", Result("changed:1", "Before.call", msgspec.Raw(b"\xc0")), lambda _: None
    )
    await node.close()
    await start(recorded)
    async with callboard.connect(nats_url) as client:
        with pytest.raises(callboard.CallboardError) as failed:
            await client.result("changed", timeout=WITHIN)
    cause = failed.value.__cause__
    assert isinstance(cause, callboard.CallboardError)
    assert cause.code == "diverged"
    assert (cause.fields["journal"], cause.fields["code"]) == ("Before.call", "callboard.now")


async def test_a_stateful_agent_takes_a_sessions_calls_one_by_one(start: Started, nats_url: str) -> None:
    """In the order in which they were made."""
    await start(Diary, diary)
    pages = [str(number) for number in range(20)]
    async with callboard.connect(nats_url) as client:
        await client.run("diary", {"pages": pages}, timeout=WITHIN)
    assert _log == [line for page in pages for line in (f"opens {page}", f"closes {page}")]
