"""States from outside: looked at as of any kept version, exported, imported, deleted."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.state.conftest import Join, Process
from tests.support.state import Actor

from callboard.infra import subjects
from callboard.infra.errors import Fenced, ItemInvalid, StateDamaged, StateExists, StateUnknown
from callboard.state import states as states_module
from callboard.state.dicts import ManagedDict
from callboard.state.lists import ManagedList
from callboard.state.managed import Managed, ManagedCounter
from callboard.state.states import Export, Exported, States


class Desk:
    """One attribute of each kind."""

    items: ManagedList[str]
    days: ManagedDict[int, dt.datetime]
    blob: Managed[bytes]
    count: ManagedCounter


NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
async def desk(process: Process) -> Actor:
    """A state with long lists, large values, and what JSON does not know."""
    desk = Actor(Desk, process.shelf, process.settings)
    for number in range(40):
        async with desk.call(f"c{number}", "chat 1"):
            desk.agent.items.append(f"{number} {'x' * 500}")
            desk.agent.count += 1
            if number == 20:
                desk.agent.days = {2: NOON, 1: NOON}
                desk.agent.blob = b"\xff" * 100_000
    return desk


@pytest.fixture
async def states(join: Join, desk: Actor) -> States:
    """Another process that looks."""
    other = await join()
    return States(other.shelf, other.settings)


async def test_all_states_are_listed(states: States, desk: Actor) -> None:
    """By actor and session, with what was last done."""
    async with desk.call("c1", "chat 2"):
        desk.agent.count += 1
    found = await states.all()
    assert [(one.actor, one.session, one.version, one.call) for one in found] == [
        ("Desk", "chat 1", 40, "c39"),
        ("Desk", "chat 2", 1, "c1"),
    ]
    assert 120_000 < found[0].size < 125_000
    assert await states.all("Other") == []


async def test_a_state_is_shown_whole(states: States) -> None:
    """Large values, dates and bytes included, dicts in their order."""
    view = await states.show("Desk", "chat 1")
    assert [item.split()[0] for item in view.attributes["items"]] == [str(number) for number in range(40)]
    assert list(view.attributes["days"].items()) == [(2, NOON), (1, NOON)]
    assert (view.attributes["blob"], view.attributes["count"]) == (b"\xff" * 100_000, 40)


async def test_a_state_is_shown_as_of_every_version_that_is_kept(states: States, desk: Actor) -> None:
    """What the history calls readable is, and each version is what it was."""
    for number in range(40, 150):
        async with desk.call(f"c{number}", "chat 1"):
            desk.agent.items.append(f"{number} {'x' * 500}")
            desk.agent.items.pop(0)
            desk.agent.count += 1
    await desk.sessions.idle()
    history = await states.history("Desk", "chat 1")
    assert [one.version for one in history] == list(range(87, 151))
    readable = [one.version for one in history if one.readable]
    assert readable == list(range(readable[0], 151))
    assert len(readable) >= 32
    for version in readable:
        view = await states.show("Desk", "chat 1", version)
        assert view.attributes["count"] == version == view.version
        assert [int(one.split()[0]) for one in view.attributes["items"]] == list(range(version - 40, version))
    for version in (3, 87, 200):
        with pytest.raises(StateUnknown, match="is not kept"):
            await states.show("Desk", "chat 1", version)


async def test_the_history_tells_which_call_did_what(states: States) -> None:
    """One row for each commit."""
    rows = {one.version: one for one in await states.history("Desk", "chat 1")}
    assert rows[5].call == "c4"
    assert rows[5].changed == {"items": "+1", "count": "set"}
    assert rows[21].changed == {"items": "+1", "count": "set", "days": "cleared, 2 put", "blob": "set"}


async def test_what_is_exported_can_be_imported(states: States, desk: Actor) -> None:
    """Under another session, exactly: in JSON, and what JSON does not know in base64."""
    text = msgspec.json.encode(await states.export("Desk", "chat 1"))
    document = msgspec.json.decode(text, type=Export)
    document.session = "copy"
    assert await states.import_(document) == 1
    expected = await states.show("Desk", "chat 1")
    assert (await states.show("Desk", "copy")).attributes == expected.attributes
    async with desk.call("", "copy"):
        assert (desk.agent.days[1], desk.agent.blob, desk.agent.count) == (NOON, b"\xff" * 100_000, 40)


async def test_importing_over_a_state_has_to_be_said(states: States, desk: Actor) -> None:
    """Then it replaces all, and whoever held the session is fenced."""
    document = Export("Desk", "chat 1", attributes={"count": Exported("counter", [msgspec.Raw(b"7")])})
    with pytest.raises(StateExists):
        await states.import_(document)
    assert await states.import_(document, replace=True) == 41
    with pytest.raises(Fenced):
        async with desk.call("", "chat 1"):
            desk.agent.count += 1
    async with desk.call("", "chat 1"):
        assert (desk.agent.count, desk.agent.items) == (7, [])


@pytest.mark.parametrize(
    "wrong",
    [
        Exported("set", []),
        Exported("list", [msgspec.Raw(b'{"$msgpack": "!"}')]),
        Exported("list", [msgspec.Raw(b'{"$msgpack": "wQ=="}')]),
        Exported("dict", [msgspec.Raw(b"1")], [msgspec.Raw(b"1"), msgspec.Raw(b"2")]),
        Exported("dict", [msgspec.Raw(b"1")]),
    ],
)
async def test_a_document_that_is_none_is_refused(states: States, wrong: Exported) -> None:
    """And nothing is stored."""
    with pytest.raises(ItemInvalid):
        await states.import_(Export("Desk", "new", attributes={"items": wrong}))
    assert [one.session for one in await states.all()] == ["chat 1"]


async def test_a_commit_that_is_none(states: States, desk: Actor, process: Process) -> None:
    """Anybody can write there: others are listed all the same, and the versions before it are there to save."""
    async with desk.call("c1", "chat 2"):
        desk.agent.count += 1
    await process.store.stored(subjects.state("Desk", subjects.session_token("chat 1")), b"rubbish")
    found = await states.all()
    assert [(one.session, one.version, bool(one.damaged)) for one in found] == [
        ("chat 1", 0, True),
        ("chat 2", 1, False),
    ]
    history = await states.history("Desk", "chat 1")
    assert [(one.version, one.readable) for one in history[-2:]] == [(40, True), (0, False)]
    assert "sequence" in history[-1].damaged
    with pytest.raises(StateDamaged, match="callboard state history Desk"):
        await states.show("Desk", "chat 1")
    assert (await states.show("Desk", "chat 1", 40)).attributes["count"] == 40
    saved = await states.export("Desk", "chat 1", 40)
    await states.delete("Desk", "chat 1")
    await states.import_(saved)
    assert (await states.show("Desk", "chat 1")).attributes["count"] == 40


async def test_what_is_deleted_is_gone(states: States) -> None:
    """And what is not there cannot be deleted."""
    await states.delete("Desk", "chat 1")
    assert await states.all() == []
    for looked in (states.delete, states.show, states.history, states.export):
        with pytest.raises(StateUnknown, match="callboard state list"):
            await looked("Desk", "chat 1")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_every_value_survives_json(value: Any) -> None:
    """As the same msgpack, whatever JSON makes of it."""
    raw = msgspec.msgpack.encode(value)
    assert states_module._as_msgpack("x", states_module._as_json(raw)) == raw
