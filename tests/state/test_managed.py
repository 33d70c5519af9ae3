"""Managed attributes: how they are declared, typed, read ahead, and what they refuse."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import datetime as dt
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
import structlog
from tests.state.conftest import Join, Process
from tests.support.state import Actor, CrashingShelf

from callboard import Managed, ManagedCounter, ManagedDict, ManagedList
from callboard.infra.errors import DeclarationInvalid, ItemInvalid, NoSession, StateUnset
from callboard.infra.settings import Settings
from callboard.state.managed import manage
from callboard.state.shelf import MemoryShelf

SETTINGS = Settings.load({})


class Message(msgspec.Struct):
    """A struct that can be changed."""

    role: str
    text: str = ""


class Other(msgspec.Struct):
    """Nothing tells it from a message on the wire."""


class Fixed(msgspec.Struct, frozen=True):
    """A struct that cannot."""

    place: tuple[int, ...] = ()


@dataclasses.dataclass
class Profile:
    """A dataclass, all of whose fields have defaults."""

    name: str = ""
    tags: list[str] = dataclasses.field(default_factory=list)


class Agent:
    """One of everything."""

    history: ManagedList[Message]
    notes: ManagedDict[tuple[str, int], Fixed]
    days: ManagedDict[dt.date, set[str]]
    profile: Managed[Profile]
    mode: Managed[Literal["fast", "slow"]]
    last: Managed[Message | None]
    anything: ManagedList[Any]
    tokens: ManagedCounter


@pytest.fixture
def agent() -> Actor:
    """The agent, its state in memory."""
    return Actor(Agent, MemoryShelf(SETTINGS), SETTINGS)


# -- values ----------------------------------------------------------------------------------------


async def test_values_come_back_as_their_annotations_say(agent: Actor) -> None:
    """Structs, dataclasses and standard types, as keys and as values."""
    day = dt.date(2024, 5, 1)
    async with agent.call():
        agent.agent.notes["a", 1] = Fixed((1, 2))
        agent.agent.days[day] = {"x"}
        agent.agent.profile = Profile("Ann", ["b"])
        agent.agent.mode = "slow"
        agent.agent.anything.extend([1, None, {"a": [b"x"]}])
    agent.restart()
    async with agent.call():
        assert agent.agent.notes == {("a", 1): Fixed((1, 2))}
        assert agent.agent.days == {day: {"x"}}
        assert agent.agent.profile == Profile("Ann", ["b"])
        assert agent.agent.mode == "slow"
        assert agent.agent.anything == [1, None, {"a": [b"x"]}]


async def test_what_fits_is_converted(agent: Actor) -> None:
    """What reads as the annotation says is stored as such."""
    async with agent.call():
        agent.agent.history.append({"role": "user"})
        assert agent.agent.history[0] == Message("user")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a.history.append("text"),
        lambda a: a.history.extend([Message("user"), 3]),
        lambda a: a.history.__setitem__(slice(0, 0), [None]),
        lambda a: setattr(a, "history", [object()]),
        lambda a: a.notes.__setitem__("a", Fixed()),
        lambda a: a.notes.__setitem__(("a", 1), "x"),
        lambda a: setattr(a, "profile", 3),
        lambda a: setattr(a, "mode", "other"),
        lambda a: setattr(a, "tokens", "x"),
        lambda a: a.anything.append(object()),
        lambda a: a.anything.append(2**70),
    ],
)
async def test_what_does_not_fit_is_refused_where_it_is_put_in(
    agent: Actor, wrong: Callable[[Any], Any]
) -> None:
    """A typed error that names the attribute, and nothing is changed."""
    async with agent.call():
        with pytest.raises(ItemInvalid, match=r"Agent\.\w+ takes") as caught:
            wrong(agent.agent)
        assert isinstance(caught.value, TypeError)
        assert (agent.agent.history, agent.agent.notes, agent.agent.tokens) == ([], {}, 0)


async def test_an_item_that_is_made_not_to_fit_fails_the_commit(agent: Actor) -> None:
    """What was fetched is looked at when the call ends."""
    async with agent.call():
        agent.agent.history.append(Message("user"))
    with pytest.raises(ItemInvalid, match=r"Agent\.history"):
        async with agent.call():
            agent.agent.history[0].text = 5
    async with agent.call():
        assert agent.agent.history == [Message("user")]


async def test_unset_values_have_defaults_where_their_types_have(agent: Actor) -> None:
    """None where that fits, else what the type makes; what is done to a default is stored."""
    async with agent.call():
        assert (agent.agent.last, agent.agent.tokens, agent.agent.profile) == (None, 0, Profile())
        with pytest.raises(StateUnset, match="assign it first"):
            _ = agent.agent.mode
        assert getattr(agent.agent, "mode", "none yet") == "none yet"
        agent.agent.profile.tags.append("new")
    agent.restart()
    async with agent.call():
        assert agent.agent.profile == Profile(tags=["new"])
        del agent.agent.profile
        assert agent.agent.profile == Profile()


async def test_an_item_is_one_object_within_a_call(agent: Actor) -> None:
    """Moved, it stays the one; in the next call it is another, so that nothing leaks from call to call."""
    async with agent.call():
        agent.agent.history += [Message("a"), Message("b"), Message("c")]
        kept = agent.agent.history[1]
    kept.text = "too late"
    async with agent.call():
        item = agent.agent.history[1]
        assert (item, item is kept) == (Message("b"), False)
        agent.agent.history.insert(0, Message("first"))
        agent.agent.history.reverse()
        assert agent.agent.history[1] is item
        item.text = "changed"
        agent.agent.last = item
    async with agent.call():
        assert [one.text for one in agent.agent.history] == ["", "changed", "", ""]
        assert agent.agent.last == Message("b", "changed")
        agent.agent.last.text = "alone"
        assert agent.agent.history[1].text == "changed"


async def test_copies_are_plain(agent: Actor) -> None:
    """A copy of a collection belongs to nobody's call."""
    async with agent.call():
        agent.agent.history.append(Message("a"))
        agent.agent.notes["n", 1] = Fixed((2,))
        history, notes = copy.copy(agent.agent.history), copy.copy(agent.agent.notes)
        deep = copy.deepcopy([agent.agent.history, agent.agent.notes])
        assert history[0] is agent.agent.history[0]
        deep[0][0].text = "of its own"
    assert (history, notes) == ([Message("a")], {("n", 1): Fixed((2,))})
    assert deep == [[Message("a", "of its own")], {("n", 1): Fixed((2,))}]
    assert [type(one) for one in (history, notes, *deep)] == [list, dict] * 2


async def test_outside_of_a_call_there_is_no_state(agent: Actor) -> None:
    """A typed error says where it is."""
    with pytest.raises(NoSession, match="while a handler of the agent runs"):
        _ = agent.agent.history
    with pytest.raises(NoSession):
        agent.agent.tokens = 3


def test_the_class_has_its_declarations() -> None:
    """Attributes are found by annotation, inherited ones too; others are left alone."""

    class Base:
        seen: ManagedList[str]
        size: int = 3

    class Derived(Base):
        count: ManagedCounter

    found = manage(Derived, "Derived")
    assert {name: one.kind for name, one in found.items()} == {"seen": "list", "count": "counter"}
    assert Derived.size == 3


def test_what_cannot_be_stored_cannot_be_declared() -> None:
    """Found when the agent is declared, not when it runs."""

    class Wrong:
        items: ManagedList[Message | Other]

    with pytest.raises(DeclarationInvalid, match=r"Wrong\.items"):
        manage(Wrong, "Wrong")


# -- reading ---------------------------------------------------------------------------------------


class Reader:
    """Long collections."""

    history: ManagedList[str]
    notes: ManagedDict[str, str]


async def long_state(process: Process, join: Join) -> Actor:
    """A state of some hundred parts, and large values, in a process that has read none of it."""
    first = Actor(Reader, process.shelf, process.settings)
    async with first.call():
        first.agent.history.extend([f"{number} {'x' * 400}" for number in range(2000)])
        first.agent.history[3] = "large" * 50_000
        first.agent.notes.update({str(number): f"{number} {'y' * 400}" for number in range(2000)})
    other = await join()
    return Actor(Reader, CrashingShelf(other.shelf), other.settings)


async def test_what_was_loaded_is_there_without_reading(process: Process, join: Join) -> None:
    """Parts of a list, keys of a dict, or all."""
    reader = await long_state(process, join)
    async with reader.call():
        await reader.agent.history.load(0, 10)
        await reader.agent.notes.load("7", "1999", "none")
        before = reader.shelf.reads
        assert reader.agent.history[3] == "large" * 50_000
        assert reader.agent.history[9].startswith("9 ")
        assert (reader.agent.notes["7"][:2], "none" in reader.agent.notes) == ("7 ", False)
        assert reader.shelf.reads == before
        await reader.agent.history.load()
        await reader.agent.notes.load()
        before = reader.shelf.reads
        assert len(list(reader.agent.history)) == len(dict(reader.agent.notes)) == 2000
        assert reader.shelf.reads == before


async def test_opening_reads_what_the_last_changes_touch(process: Process, join: Join) -> None:
    """Changes anywhere since the head are applied without blocking the event loop."""
    reader = await long_state(process, join)
    expected: list[str] = []
    async with reader.call():
        await reader.agent.history.load()
        await reader.agent.notes.load()
        reader.agent.history[500] = "set"
        reader.agent.history.insert(1000, "inserted")
        del reader.agent.history[1500:1600]
        del reader.agent.notes["77"]
        reader.agent.notes["1234"] = "put"
        expected = reader.agent.history.copy()
    other = await join()
    again = Actor(Reader, CrashingShelf(other.shelf), other.settings)
    with structlog.testing.capture_logs() as logs:
        await again.open()
    assert logs == []
    async with again.call():
        await again.agent.history.load()
        await again.agent.notes.load()
        assert again.agent.history == expected
        assert ("77" in again.agent.notes, again.agent.notes["1234"]) == (False, "put")


async def test_async_for_reads_ahead(process: Process, join: Join) -> None:
    """All items in order, and nothing is read while the loop is blocked."""
    reader = await long_state(process, join)
    with structlog.testing.capture_logs() as logs:
        async with reader.call():
            numbers = [int(item.split()[0]) async for item in reader.agent.history if item[0] != "l"]
            assert numbers == [number for number in range(2000) if number != 3]
            assert [key async for key in reader.agent.notes] == [str(number) for number in range(2000)]
    assert logs == []


async def test_a_thread_reads_through_the_event_loop(process: Process, join: Join) -> None:
    """A plain handler touches what it likes."""
    reader = await long_state(process, join)

    def handler() -> list[int]:
        reader.agent.history.insert(1000, "new")
        reader.agent.notes["new"] = "new"
        return [len(item) for item in reader.agent.history[990:1010]]

    with structlog.testing.capture_logs() as logs:
        async with reader.call():
            lengths = await asyncio.to_thread(contextvars.copy_context().run, handler)
    assert lengths[9:12] == [404, 3, 405]
    assert logs == []
    reader.restart()
    async with reader.call():
        assert (len(reader.agent.history), len(reader.agent.notes)) == (2001, 2001)


async def test_a_touch_on_the_event_loop_reads_beside_it_and_says_so_once(
    process: Process, join: Join
) -> None:
    """It works, and the log tells what to do about it."""
    reader = await long_state(process, join)
    with structlog.testing.capture_logs() as logs:
        async with reader.call():
            assert reader.agent.history[1000].startswith("1000 ")
            assert reader.agent.history[3] == "large" * 50_000
            assert reader.agent.notes["77"].startswith("77 ")
    told = [one for one in logs if one["event"] == "state_read_blocks_the_event_loop"]
    assert len(told) == 1
    assert "load" in told[0]["fix"]


# -- type checkers ---------------------------------------------------------------------------------

SAMPLE = """
from callboard import Managed, ManagedCounter, ManagedDict, ManagedList


class Profile:
    name: str = ""


class Agent:
    history: ManagedList[str]
    notes: ManagedDict[str, int]
    profile: Managed[Profile]
    tokens: ManagedCounter

    def right(self) -> str:
        self.history.append("a")
        self.history += ["b"]
        self.history = ["c"]
        self.history[1:] = [item.upper() for item in self.history[:3]]
        self.history.sort(key=len, reverse=True)
        self.notes["a"] = self.notes.get("b", 0) + 1
        self.notes |= {"c": 1}
        self.notes = {"d": 2}
        self.tokens += 5
        self.profile = Profile()
        total: int = self.tokens + sum(self.notes.values())
        return self.profile.name + self.history[0] + str(total)

    async def awaited(self) -> int:
        await self.history.load(0, 10)
        await self.notes.load("a")
        return sum([len(item) async for item in self.history])

    def wrong(self) -> None:
        text: str = self.tokens  # wrong
        self.profile.name = 3  # wrong
        self.history.append(1)  # wrong
        self.history = [1]  # wrong
        self.notes["a"] = "b"  # wrong
        self.profile = "x"  # wrong
        self.tokens = "x"  # wrong
        print(text)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)  # they read all that is imported, from nothing
@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_know_the_attributes(tmp_path: Path, checker: str) -> None:
    """As list, dict, value and int of what the annotation says; errors stand where the sample says so."""
    (tmp_path / "sample.py").write_text(SAMPLE)
    command = ["mypy", "--strict", "--no-pretty", "--config-file=", "--cache-dir=.cache"]
    if checker == "pyright":
        if shutil.which("node") is None:
            pytest.skip("pyright needs node")
        (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict"}))
        command = ["pyright", "--pythonpath", sys.executable]
    done = subprocess.run(
        [sys.executable, "-m", *command, "sample.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {int(line) for line in re.findall(r"sample\.py:(\d+):(?:\d+ -)? error", done.stdout)}
    wrong = {n for n, line in enumerate(SAMPLE.splitlines(), 1) if line.endswith("# wrong")}
    assert found == wrong, done.stdout + done.stderr
